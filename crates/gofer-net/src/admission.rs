//! Admission of connections: how many may be open, and which one is evicted for a new one.
//!
//! One mechanism for every listener. What differs is which connections may be closed in favor of a
//! new one, and in which order: the state of each connection says so, see [`Evictable`].

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::BoxStream;
use crate::Listener;

/// Wait this long before accepting again when the process is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Peers can cause warnings at will, so each kind is logged at most this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The state of a connection, by which it is chosen to be closed in favor of a new one.
pub trait Evictable: Send + Sync + 'static {
    /// What the connections are for, to complete "cannot accept a connection for".
    const PURPOSE: &'static str;

    /// The warning when the limit is reached and no connection can be closed.
    const FULL: &'static str;

    /// The lowest is closed first.
    type Rank: Ord;

    /// `None` if the connection must stay open. Of equals, the oldest is closed first.
    fn rank(&self) -> Option<Self::Rank>;
}

/// The open connections of a listener. Dropping it closes them.
pub struct Connections<S> {
    limit: usize,
    tasks: JoinSet<()>,
    /// Oldest first. May contain connections that have ended.
    open: VecDeque<(AbortHandle, Arc<S>)>,
    accept_errors: Throttle,
    refused: Throttle,
}

impl<S: Evictable> Connections<S> {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            tasks: JoinSet::new(),
            open: VecDeque::new(),
            accept_errors: Throttle::default(),
            refused: Throttle::default(),
        }
    }

    /// Accepts connections until `stop`. `serve` makes the state of each connection, and the future
    /// that serves it.
    pub async fn accept<F>(
        &mut self,
        listener: &mut Listener,
        stop: impl Future<Output = ()>,
        mut serve: impl FnMut(BoxStream) -> (Arc<S>, F),
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                Some(_ended) = self.tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let pause = match accepted {
                Ok(stream) => {
                    self.admit(|| serve(stream));
                    Duration::ZERO
                }
                Err(error) => self.accept_failed(&error),
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits for the connections to end, and closes those that have not by `deadline`.
    pub async fn close(mut self, deadline: Instant) {
        while let Ok(Some(_ended)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await
        {
        }
        self.tasks.shutdown().await;
    }

    /// Serves a connection, closing another one if the limit is reached. If none can be closed, the
    /// new one is.
    fn admit<F>(&mut self, serve: impl FnOnce() -> (Arc<S>, F))
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Connections that have ended don't count.
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= self.limit && !self.evict() {
            if let Some(refused) = self.refused.record() {
                tracing::warn!(refused, "{}", S::FULL);
            }
            return;
        }
        let (state, connection) = serve();
        self.open.push_back((self.tasks.spawn(connection), state));
        // Swept only after it has grown to about twice what is needed, so that the cost of each
        // admission is constant on average.
        if self.open.len() > 2 * self.tasks.len() + 16 {
            self.sweep();
        }
    }

    /// How long to pause after an error. Unless it concerns that one connection, the process lacks
    /// files or memory: one connection is closed to free some.
    fn accept_failed(&mut self, error: &io::Error) -> Duration {
        if let Some(errors) = self.accept_errors.record() {
            tracing::warn!(%error, errors, "cannot accept a connection for {}", S::PURPOSE);
        }
        if is_of_one_connection(error) {
            return Duration::ZERO;
        }
        self.evict();
        ACCEPT_PAUSE
    }

    /// Closes the connection with the lowest rank; false if none can be closed.
    fn evict(&mut self) -> bool {
        self.sweep();
        let ranks = self.open.iter().enumerate();
        let lowest =
            ranks.filter_map(|(at, (_, state))| Some((state.rank()?, at))).min().map(|(_, at)| at);
        let evicted = lowest.and_then(|at| self.open.remove(at));
        if let Some((task, _)) = &evicted {
            task.abort();
        }
        evicted.is_some()
    }

    fn sweep(&mut self) {
        self.open.retain(|(task, _)| !task.is_finished());
    }
}

/// Whether an error concerns only the connection that was about to be accepted, and not the
/// listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Limits how often a warning is logged.
#[derive(Default)]
struct Throttle {
    logged: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// Counts one occurrence. If it is time to log, returns the number of occurrences since the
    /// last time.
    fn record(&mut self) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < WARN_EVERY) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests;
