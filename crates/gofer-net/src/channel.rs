//! An HTTP/2 connection to one server, opened when it is first needed and reopened when it is lost.
//!
//! Beyond what hyper's connection does, a request that was certainly not sent is reported as
//! [`NotSent`], so even one that isn't idempotent may be retried; one that the peer says it did not
//! process is sent again; and a connection on which nothing arrives until a deadline passes is
//! dropped, so that calls don't hang on a dead connection once the network has recovered.
//!
//! All calls share one backoff: after a failure to connect, they fail with its reason until the
//! next attempt is due. A connection that ends before anything was received counts as a failure
//! too, so that a peer that accepts connections and closes them isn't flooded with new ones.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{fmt, io};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use crate::BoxError;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::connect::{Connector, Driver, End, Sender};
use crate::effect::is_unprocessed;
use crate::promise::{Promised, promise};

/// How long the calls of a connection that is [replaced](Channel::replace) may go on.
const REPLACED_GRACE: Duration = Duration::from_secs(10);

/// How often a request is sent that the peer each time says it did not process. A proxy that lets a
/// connection carry a number of requests leaves out all that are on their way beyond it, so with
/// many calls one may be left out several times.
const ATTEMPTS: u32 = 10;

/// This many of the attempts follow each other at once; then the backoff is between them.
const AT_ONCE: u32 = 3;

/// No response has arrived yet.
const NOTHING: i64 = i64::MIN;

/// The connection ended without a response, and was counted as a failure.
const COUNTED: i64 = NOTHING + 1;

/// The request was not sent, because there is no connection.
#[derive(Debug, Clone)]
pub struct NotSent(Arc<io::Error>);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect: {}", self.0)
    }
}

impl std::error::Error for NotSent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // It is part of the message itself.
        self.0.source()
    }
}

impl NotSent {
    #[cfg(test)]
    pub(crate) fn because(reason: io::Error) -> Self {
        Self(Arc::new(reason))
    }

    /// `UNAVAILABLE`, with the reason as its source, so that callers see that retrying is safe.
    pub fn into_status(self) -> Status {
        let mut status = Status::unavailable(self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

/// Learns on which connection a request is sent.
#[derive(Clone, Default)]
pub struct SentOn(Arc<AtomicU64>);

impl SentOn {
    fn learn(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number of the connection; 0 if the request was not sent.
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    connector: Connector,
    clock: Clock,
    backoff: Backoff,
    /// Locked only to read or change it.
    state: Mutex<State>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    current: Option<Connection>,
    /// The latest attempt to connect, shared by all calls that wait for it.
    connecting: Option<Promised<Outcome>>,
    /// After a failure, until a response arrives.
    failed: Option<Failed>,
    /// Connections opened so far, which also numbers them.
    opened: u64,
    /// Those that have not ended.
    open: Vec<Arc<Link>>,
}

struct Failed {
    backoff: Backoff,
    /// When the next attempt may be made.
    until: Instant,
    why: NotSent,
}

#[derive(Clone)]
struct Connection {
    sender: Sender,
    link: Arc<Link>,
}

/// What is known of a connection.
struct Link {
    number: u64,
    /// When the last response arrived, in nanoseconds of the clock, or [`NOTHING`].
    last_response: AtomicI64,
    /// Calls that wait for their response.
    waiting: AtomicUsize,
    end: Arc<End>,
}

/// How an attempt to connect ended.
type Outcome = Result<(), NotSent>;

impl Channel {
    /// Connects at the first call. `backoff` is between attempts that fail one after the other.
    pub fn new(connector: Connector, clock: Clock, backoff: Backoff) -> Self {
        Self(Arc::new(Inner {
            connector,
            clock,
            backoff,
            state: Mutex::default(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }))
    }

    /// Sends a request, again if the peer says that it did not process it, and waits for the head of
    /// its response. `request` makes it for each attempt.
    pub async fn send_whole(
        &self,
        request: impl Fn() -> Request<Body> + Sync,
        sent_on: Option<&SentOn>,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut backoff = None;
        let mut attempt = 1;
        loop {
            match self.send(request(), sent_on).await {
                Err(error) if attempt < ATTEMPTS && is_unprocessed(&*error) => {
                    tracing::debug!(attempt, error = &*error, "a call was not processed");
                }
                outcome => return outcome,
            }
            if attempt >= AT_ONCE {
                let backoff = backoff.get_or_insert_with(|| self.0.backoff.clone());
                tokio::time::sleep(backoff.pause()).await;
            }
            attempt += 1;
        }
    }

    /// Sends one request and waits for the head of its response.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        sent_on: Option<&SentOn>,
    ) -> Result<Response<Incoming>, BoxError> {
        // A connection may close before it is used. The request then comes back unsent, and is sent
        // on a new connection. At most three times: a peer that closes every connection must not
        // be flooded with new ones.
        for _ in 0..3 {
            let Connection { mut sender, link } = self.connection().await?;
            if let Some(sent_on) = sent_on {
                sent_on.learn(link.number);
            }
            let watch = Watch::new(self, &link);
            let outcome = sender.try_send_request(request);
            // A request that is sent at the moment when the connection ends comes back unsent, but
            // not before the last sender is gone: hyper's queue ends with them.
            drop(sender);
            let outcome = outcome.await;
            if outcome.is_ok() {
                self.answered(&link);
            }
            watch.done();
            let mut failure = match outcome {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let Some(unsent) = failure.take_message() else {
                self.count_ended(&link);
                return Err(failure.into_error().into());
            };
            self.forget_closed();
            request = unsent;
        }
        Err(closed("every new connection was closed before the request was sent").into())
    }

    /// The number of the connection that calls use now, which is opened if there is none. A later
    /// one has a greater number.
    pub async fn connected(&self) -> Result<u64, NotSent> {
        // Without a copy of it, which is for calls.
        let current = self.state().current().map(|connection| connection.link.number);
        match current {
            Some(number) => Ok(number),
            None => Ok(self.connection().await?.link.number),
        }
    }

    /// How many connections have been opened so far, and so the number of the newest.
    pub fn opened(&self) -> u64 {
        self.state().opened
    }

    /// When the next attempt to connect may be made; `None` if it may be made now.
    pub fn next_attempt(&self) -> Option<Instant> {
        let state = self.state();
        state.failed.as_ref().map(|failed| failed.until).filter(|until| *until > Instant::now())
    }

    /// Replaces the connections up to this number: new calls open another one, and those in flight
    /// have ten seconds. Returns once they have ended, and so nothing that was sent on them is on
    /// its way any more.
    pub async fn replace(&self, number: u64) {
        let old: Vec<_> = {
            let mut state = self.state();
            if state.current.as_ref().is_some_and(|current| current.link.number <= number) {
                state.current = None;
            }
            state.open.iter().filter(|link| link.number <= number).map(Arc::clone).collect()
        };
        let deadline = Instant::now() + REPLACED_GRACE;
        for link in old {
            if tokio::time::timeout_at(deadline, link.end.reached()).await.is_err() {
                link.end.bring_about();
                link.end.reached().await;
            }
        }
    }

    /// Whether it was closed from this side.
    pub fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Makes the connection and its tasks end, without waiting for it.
    pub fn abandon(&self) {
        self.0.closed.cancel();
    }

    /// Ends the connection and waits for its tasks.
    pub async fn close(&self) {
        self.abandon();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, link: &Link) {
        let before = link.last_response.swap(self.0.clock.monotonic(), Ordering::Relaxed);
        if before <= COUNTED {
            self.state().failed = None;
        }
    }

    fn forget_closed(&self) {
        let mut state = self.state();
        if let Some(current) = state.current.take_if(|current| current.sender.is_closed())
            && current.link.waiting.load(Ordering::Relaxed) == 0
        {
            self.unanswered(&mut state, &current.link);
        }
    }

    /// Counts a connection that has ended as [`unanswered`](Self::unanswered), once no call waits on
    /// it: a response may have arrived that its caller has not seen yet.
    fn count_ended(&self, link: &Link) {
        if link.end.is_reached() && link.waiting.load(Ordering::Relaxed) == 0 {
            self.unanswered(&mut self.state(), link);
        }
    }

    /// Counts a connection that ended before anything was received as a failure. Not while calls
    /// wait for their responses: the peer may take no others, and answer these.
    fn unanswered(&self, state: &mut State, link: &Link) {
        let order = Ordering::Relaxed;
        if link.last_response.compare_exchange(NOTHING, COUNTED, order, order).is_ok() {
            self.failed(state, closed("the peer closed the connection without a response"));
        }
    }

    fn failed(&self, state: &mut State, why: NotSent) {
        let mut backoff =
            state.failed.take().map_or_else(|| self.0.backoff.clone(), |failed| failed.backoff);
        let until = Instant::now() + backoff.pause();
        state.failed = Some(Failed { backoff, until, why });
    }

    /// The connection; if there is none, waits for one attempt to open it.
    async fn connection(&self) -> Result<Connection, NotSent> {
        let attempt = {
            let mut state = self.state();
            if let Some(connection) = state.usable() {
                return Ok(connection);
            }
            self.attempt(&mut state)?
        };
        if let Some(Err(failure)) = attempt.wait().await {
            return Err(failure);
        }
        self.state().usable().ok_or_else(|| closed("the connection was closed immediately"))
    }

    /// The current attempt, or a new one if it is due. It runs in its own task, so it goes on if
    /// the deadline of its caller passes, and the next caller finds the connection.
    fn attempt(&self, state: &mut State) -> Result<Promised<Outcome>, NotSent> {
        if let Some(attempt) = state.connecting.as_ref().filter(|attempt| attempt.is_pending()) {
            return Ok(attempt.clone());
        }
        if let Some(failed) = &state.failed
            && failed.until > Instant::now()
        {
            return Err(failed.why.clone());
        }
        let (outcome, attempt) = promise();
        state.connecting = Some(attempt.clone());
        let this = self.clone();
        self.0.tasks.spawn(async move {
            outcome.keep(this.connect().await);
        });
        Ok(attempt)
    }

    async fn connect(&self) -> Outcome {
        let to = self.0.connector.to();
        tracing::trace!(%to, "connecting");
        let outcome = tokio::select! {
            biased;
            outcome = self.0.connector.connect() => outcome,
            () = self.0.closed.cancelled() => {
                Err(io::Error::new(io::ErrorKind::NotConnected, "the client is closed"))
            }
        };
        match outcome {
            Ok((sender, driver, end)) => {
                let mut state = self.state();
                state.opened += 1;
                let number = state.opened;
                let link = Arc::new(Link {
                    number,
                    last_response: AtomicI64::new(NOTHING),
                    waiting: AtomicUsize::new(0),
                    end,
                });
                state.open.retain(|link| !link.end.is_reached());
                state.open.push(Arc::clone(&link));
                state.current = Some(Connection { sender, link: Arc::clone(&link) });
                let closed = self.0.closed.clone();
                self.0.tasks.spawn(drive(Arc::downgrade(&self.0), driver, link, closed));
                drop(state);
                tracing::debug!(%to, connection = number, "connected");
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%to, error = &error as &dyn std::error::Error, "cannot connect");
                let why = NotSent(Arc::new(error));
                self.failed(&mut self.state(), why.clone());
                Err(why)
            }
        }
    }
}

/// Drives a connection until it ends. Does not keep the channel: a connection ends with the last
/// of its users.
async fn drive(channel: Weak<Inner>, driver: Driver, link: Arc<Link>, closed: CancellationToken) {
    let ended = async {
        // Each call on it gets the error. Streams may go on.
        let ended = driver.await;
        if let Some(channel) = channel.upgrade().map(Channel) {
            tracing::trace!(connection = link.number, ?ended, "a connection takes no more calls");
            let mut state = channel.state();
            state.current.take_if(|current| current.link.number == link.number);
            if link.waiting.load(Ordering::Relaxed) == 0 {
                channel.unanswered(&mut state, &link);
            }
        }
        link.end.reached().await;
        if let Some(channel) = channel.upgrade().map(Channel) {
            channel.count_ended(&link);
        }
    };
    tokio::select! {
        biased;
        () = closed.cancelled() => {
            link.end.bring_about();
            link.end.reached().await;
        }
        () = ended => {}
    }
}

impl State {
    fn current(&self) -> Option<&Connection> {
        self.current.as_ref().filter(|connection| !connection.sender.is_closed())
    }

    fn usable(&self) -> Option<Connection> {
        self.current().cloned()
    }
}

fn closed(why: &'static str) -> NotSent {
    NotSent(Arc::new(io::Error::new(io::ErrorKind::ConnectionReset, why)))
}

/// Detects calls that were given up. If no response has arrived on the connection since the call
/// began, the connection is dropped: other calls on it keep waiting, but new calls open a new one.
struct Watch<'a> {
    channel: &'a Channel,
    link: &'a Link,
    started: i64,
    done: bool,
}

/// A call that is given up sooner says nothing about its connection. In nanoseconds.
const STALE_AFTER: i64 = 1_000_000_000;

impl<'a> Watch<'a> {
    fn new(channel: &'a Channel, link: &'a Link) -> Self {
        link.waiting.fetch_add(1, Ordering::Relaxed);
        Self { channel, link, started: channel.0.clock.monotonic(), done: false }
    }

    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.link.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.done || self.channel.0.clock.monotonic() - self.started < STALE_AFTER {
            return;
        }
        self.channel.state().current.take_if(|connection| {
            connection.link.last_response.load(Ordering::Relaxed) < self.started
        });
    }
}
