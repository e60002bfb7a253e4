//! An HTTP/2 connection to one server, opened when it is first needed and reopened when it is lost.
//!
//! Beyond what hyper's connection does, a request that was certainly not sent is reported as
//! [`NotSent`], so even one that isn't idempotent may be retried; and a connection on which nothing
//! arrives until a deadline passes is dropped, so that calls don't hang on a dead connection once
//! the network has recovered.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use crate::BoxError;
use crate::clock::Clock;
use crate::connect::{Connector, Sender};

/// The request was not sent, because there is no connection.
#[derive(Debug, Clone)]
pub struct NotSent(Arc<io::Error>);

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect: {}", self.0)
    }
}

impl std::error::Error for NotSent {}

#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    connector: Connector,
    clock: Clock,
    /// Locked only to clone or replace it.
    current: Mutex<Option<Connection>>,
    /// The latest attempt to connect, shared by all calls that wait for it.
    connecting: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Clone)]
struct Connection {
    sender: Sender,
    /// When the last response arrived, in nanoseconds of the clock.
    last_response: Arc<AtomicI64>,
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
        // A connection may close before it is used. The request then comes back unsent, and is sent
        // on a new connection. At most three times: a peer that closes every connection must not
        // be flooded with new ones.
        for _ in 0..3 {
            let mut connection = self.connection().await?;
            let watch = Watch { channel: self, started: self.0.clock.monotonic(), done: false };
            let outcome = connection.sender.try_send_request(request).await;
            watch.done();
            match outcome {
                Ok(response) => {
                    connection.last_response.store(self.0.clock.monotonic(), Ordering::Relaxed);
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
        Err(closed("every new connection was closed before the request was sent").into())
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

    /// The connection; if there is none, waits for one attempt to open it.
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
        self.usable().ok_or_else(|| closed("the connection was closed immediately"))
    }

    /// The current attempt, or a new one. It runs in its own task, so it goes on if the deadline of
    /// its caller passes, and the next caller finds the connection.
    fn attempt(&self) -> watch::Receiver<Option<Outcome>> {
        let mut connecting = self.0.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |attempt: &&watch::Receiver<Option<Outcome>>| match &*attempt.borrow() {
            // An error if the task has ended without an outcome.
            None => attempt.has_changed().is_ok(),
            Some(_) => self.usable().is_some(),
        };
        if let Some(attempt) = connecting.as_ref().filter(is_usable) {
            return attempt.clone();
        }
        let (outcome, attempt) = watch::channel(None);
        *connecting = Some(attempt.clone());
        let this = self.clone();
        self.0.tasks.spawn(async move {
            outcome.send_replace(Some(this.connect().await));
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
                // Each call on it gets the error.
                _ended = driver => {}
                () = closed.cancelled() => {}
            }
        });
        let last_response = Arc::new(AtomicI64::new(self.0.clock.monotonic()));
        self.set_current(Connection { sender, last_response });
        Ok(())
    }
}

fn closed(why: &'static str) -> NotSent {
    NotSent(Arc::new(io::Error::new(io::ErrorKind::ConnectionReset, why)))
}

/// Detects calls that were given up. If no response has arrived on the connection since the call
/// began, the connection is dropped: other calls on it keep waiting, but new calls open a new one.
struct Watch<'a> {
    channel: &'a Channel,
    started: i64,
    done: bool,
}

/// A call that is given up sooner says nothing about its connection. In nanoseconds.
const STALE_AFTER: i64 = 1_000_000_000;

impl Watch<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.done || self.channel.0.clock.monotonic() - self.started < STALE_AFTER {
            return;
        }
        let mut current = self.channel.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|connection| {
            connection.last_response.load(Ordering::Relaxed) < self.started
        }) {
            *current = None;
        }
    }
}
