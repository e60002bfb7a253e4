//! One HTTP/2 connection to one place, opened when it is first needed and
//! again when it is lost.
//!
//! What this adds to a bare connection is knowledge: a request that certainly
//! was not sent is reported as [`NotSent`], and may be sent again whatever it
//! asks for; and a connection on which a deadline passed in silence is let go,
//! so that a healed network is not answered with a wedged connection.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use crate::clock::Clock;
use crate::connect::{Connector, Sender};

/// The request did not leave: there is no connection.
#[derive(Debug, Clone)]
pub struct NotSent(Arc<io::Error>);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect: {}", self.0)
    }
}

impl std::error::Error for NotSent {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    connector: Connector,
    clock: Clock,
    /// Held for the time of a clone.
    current: Mutex<Option<Connection>>,
    /// The newest attempt to connect; one serves all who wait.
    connecting: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Clone)]
struct Connection {
    sender: Sender,
    /// When it last brought an answer, in nanoseconds of the clock.
    heard: Arc<AtomicI64>,
}

/// How an attempt to connect ended.
type Outcome = Result<(), NotSent>;

impl Channel {
    pub fn new(connector: Connector, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            connector,
            clock,
            current: Mutex::new(None),
            connecting: Mutex::new(None),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }))
    }

    /// Sends one request and waits for the head of its response.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        // A connection may close between being handed out and being used; the
        // request then comes back unsent, and goes out on a new connection. Not
        // for ever: a peer that closes every connection would be hammered.
        for _ in 0..3 {
            let mut connection = self.connection().await?;
            let watch = Watch { channel: self, started: self.0.clock.monotonic(), done: false };
            let outcome = connection.sender.try_send_request(request).await;
            watch.done();
            match outcome {
                Ok(response) => {
                    connection.heard.store(self.0.clock.monotonic(), Ordering::Relaxed);
                    return Ok(response);
                }
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => {
                        self.forget_closed();
                        request = unsent;
                    }
                    None => return Err(failure.into_error().into()),
                },
            }
        }
        let closed = io::Error::new(io::ErrorKind::ConnectionReset, "each connection was closed");
        Err(NotSent(Arc::new(closed)).into())
    }

    /// Has the connection and every task of it end.
    pub fn abandon(&self) {
        self.0.closed.cancel();
    }

    /// Ends the connection and every task of it.
    pub async fn close(&self) {
        self.abandon();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn usable(&self) -> Option<Connection> {
        let current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.sender.is_closed()).cloned()
    }

    fn set_current(&self, connection: Connection) {
        *self.0.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    fn forget_closed(&self) {
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|connection| connection.sender.is_closed()) {
            *current = None;
        }
    }

    /// The connection, or the outcome of the attempt that is under way.
    async fn connection(&self) -> Result<Connection, NotSent> {
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        let mut attempt = self.attempt();
        if let Ok(outcome) = attempt.wait_for(Option::is_some).await
            && let Some(Err(failure)) = &*outcome
        {
            return Err(failure.clone());
        }
        self.usable().ok_or_else(|| {
            let closed = io::Error::new(io::ErrorKind::ConnectionReset, "closed as soon as opened");
            NotSent(Arc::new(closed))
        })
    }

    /// The attempt that is under way, or a new one. It has a task of its own:
    /// a caller whose deadline is short does not take it with him, and the next
    /// one finds the connection.
    fn attempt(&self) -> watch::Receiver<Option<Outcome>> {
        let mut connecting = self.0.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_use = |attempt: &&watch::Receiver<Option<Outcome>>| match &*attempt.borrow() {
            // Without a sender its task is gone.
            None => attempt.has_changed().is_ok(),
            Some(_) => self.usable().is_some(),
        };
        if let Some(attempt) = connecting.as_ref().filter(is_of_use) {
            return attempt.clone();
        }
        let (tell, attempt) = watch::channel(None);
        *connecting = Some(attempt.clone());
        let this = self.clone();
        self.0.tasks.spawn(async move {
            tell.send_replace(Some(this.connect().await));
        });
        attempt
    }

    async fn connect(&self) -> Outcome {
        let outcome = tokio::select! {
            outcome = self.0.connector.connect() => outcome,
            () = self.0.closed.cancelled() => {
                Err(io::Error::new(io::ErrorKind::NotConnected, "the client is closed"))
            }
        };
        let (sender, driver) = outcome.map_err(|error| NotSent(Arc::new(error)))?;
        let closed = self.0.closed.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                // How it ended is told to each call on it.
                _ended = driver => {}
                () = closed.cancelled() => {}
            }
        });
        let heard = Arc::new(AtomicI64::new(self.0.clock.monotonic()));
        self.set_current(Connection { sender, heard });
        Ok(())
    }
}

/// Notices that a call was given up. If its connection brought nothing at all
/// since the call began, the connection is let go: whoever still waits on it
/// goes on waiting, new calls open a new one.
struct Watch<'a> {
    channel: &'a Channel,
    started: i64,
    done: bool,
}

/// A call that is given up sooner says nothing about its connection.
const SILENCE: i64 = 1_000_000_000;

impl Watch<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.done || self.channel.0.clock.monotonic() - self.started < SILENCE {
            return;
        }
        let mut current = self.channel.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|connection| connection.heard.load(Ordering::Relaxed) < self.started)
        {
            *current = None;
        }
    }
}
