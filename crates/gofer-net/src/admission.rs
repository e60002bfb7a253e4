//! Admission of connections: how many may be open, and which one is evicted for a new one.
//!
//! One mechanism for every listener. What differs is which connections may be closed in favor of a
//! new one, and in which order: the state of each connection says so, see [`Evictable`].
//!
//! Newcomers have places that they do not take from each other at once: otherwise, if all others are
//! taken, each would be closed for the next one before it can say who it is.
//!
//! A listener may have extra places for when all others are taken by connections that must stay
//! open. What is required of a connection in one is up to the listener.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::BoxStream;
use crate::Listener;
use crate::throttle::Throttle;

/// Wait this long before accepting again when the process is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One in this many places of the limit is for newcomers.
const PER_NEWCOMER: usize = 4;

/// How many connections are chosen to be closed, if those that were chosen before must stay open
/// after all: more than one only if their peers make calls at that very moment.
const CLAIMS: usize = 4;

/// How many connections may be ending by themselves at a time, beyond the limit.
const ENDING: usize = 16;

/// How a connection is closed in favor of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It must stay open after all, because its rank has changed meanwhile.
    Refused,
    /// It is dropped.
    Dropped,
    /// It soon ends by itself, after it has told the peer which calls were not processed.
    Ending,
}

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

    /// Whether this is the rank of a newcomer, which has had no time to show whose it is. While
    /// there are few, none is closed for another connection; later it is one of the older half, at
    /// random: each has some time, and even a flood of them does not close each one.
    fn is_newcomer(_rank: &Self::Rank) -> bool {
        false
    }

    /// Claims the connection for being closed.
    fn claim(&self) -> Claim {
        Claim::Dropped
    }
}

/// Where a connection was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Regular,
    /// Beyond the limit.
    Extra,
}

/// The open connections of a listener. Dropping it closes them.
pub struct Connections<S> {
    regular: Pool<S>,
    extra: Pool<S>,
    accept_errors: Throttle,
    aborted: Throttle,
    refused: Throttle,
}

impl<S: Evictable> Connections<S> {
    pub fn new(limit: usize) -> Self {
        Self::with_extra(limit, 0)
    }

    /// With this number of extra places.
    pub fn with_extra(limit: usize, extra: usize) -> Self {
        Self {
            regular: Pool::new(limit, limit / PER_NEWCOMER),
            extra: Pool::new(extra, 0),
            accept_errors: Throttle::default(),
            aborted: Throttle::default(),
            refused: Throttle::default(),
        }
    }

    /// Accepts connections until `stop`. `serve` makes the state of each connection, and the future
    /// that serves it.
    pub async fn accept<F>(
        &mut self,
        listener: &mut Listener,
        stop: impl Future<Output = ()>,
        mut serve: impl FnMut(BoxStream, Place) -> (Arc<S>, F),
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                Some(_ended) = self.regular.tasks.join_next() => continue,
                Some(_ended) = self.extra.tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let pause = match accepted {
                Ok(stream) => {
                    self.admit(|place| serve(stream, place));
                    Duration::ZERO
                }
                Err(error) => self.accept_failed(&error),
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits for the connections to end, and closes those that have not by `deadline`.
    pub async fn close(self, deadline: Instant) {
        let mut pools = [self.regular, self.extra];
        for Pool { tasks, .. } in &mut pools {
            while let Ok(Some(_ended)) = tokio::time::timeout_at(deadline, tasks.join_next()).await
            {
            }
        }
        for Pool { tasks, .. } in &mut pools {
            tasks.shutdown().await;
        }
    }

    /// Serves a connection, closing another one if the limit is reached. If none can be closed, the
    /// new one gets an extra place, or is refused.
    fn admit<F>(&mut self, serve: impl FnOnce(Place) -> (Arc<S>, F))
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (pool, place) = if self.regular.make_room() {
            (&mut self.regular, Place::Regular)
        } else if self.extra.make_room() {
            (&mut self.extra, Place::Extra)
        } else {
            if let Some(refused) = self.refused.record() {
                tracing::warn!(refused, "{}", S::FULL);
            }
            return;
        };
        let (state, connection) = serve(place);
        pool.spawn(state, connection);
    }

    /// How long to pause after an error. Unless it concerns that one connection, the process lacks
    /// files or memory: one connection is closed to free some.
    fn accept_failed(&mut self, error: &io::Error) -> Duration {
        let of_one = is_of_one_connection(error);
        let kind = if of_one { &self.aborted } else { &self.accept_errors };
        if let Some(errors) = kind.record() {
            tracing::warn!(%error, errors, "cannot accept a connection for {}", S::PURPOSE);
        }
        if of_one {
            return Duration::ZERO;
        }
        if !self.regular.evict(0) {
            self.extra.evict(0);
        }
        ACCEPT_PAUSE
    }
}

/// Connections with a limit of their own.
struct Pool<S> {
    limit: usize,
    /// How many newcomers are not closed for another connection.
    newcomers: usize,
    tasks: JoinSet<()>,
    /// Oldest first. May contain connections that have ended.
    open: VecDeque<(AbortHandle, Arc<S>)>,
    /// Those that no longer count. Oldest first; may contain connections that have ended.
    ending: VecDeque<AbortHandle>,
}

impl<S: Evictable> Pool<S> {
    fn new(limit: usize, newcomers: usize) -> Self {
        Self {
            limit,
            newcomers,
            tasks: JoinSet::new(),
            open: VecDeque::new(),
            ending: VecDeque::new(),
        }
    }

    /// Makes room for one more, by closing another one if the limit is reached.
    fn make_room(&mut self) -> bool {
        // Connections that have ended don't count.
        while self.tasks.try_join_next().is_some() {}
        self.ending.retain(|task| !task.is_finished());
        self.tasks.len() - self.ending.len() < self.limit || self.evict(self.newcomers)
    }

    fn spawn(&mut self, state: Arc<S>, connection: impl Future<Output = ()> + Send + 'static) {
        self.open.push_back((self.tasks.spawn(connection), state));
        // Swept only after it has grown to about twice what is needed, so that the cost of each
        // admission is constant on average.
        if self.open.len() > 2 * self.tasks.len() + 16 {
            self.sweep();
        }
    }

    /// Closes the connection with the lowest rank, and no newcomer if there are fewer than
    /// `newcomers`; false if none can be closed.
    fn evict(&mut self, newcomers: usize) -> bool {
        self.sweep();
        for _ in 0..CLAIMS {
            let Some(at) = self.lowest(newcomers) else { return false };
            let claim = self.open[at].1.claim();
            if claim == Claim::Refused {
                continue;
            }
            let Some((task, _)) = self.open.remove(at) else { continue };
            match claim {
                Claim::Ending => self.end(task),
                _ => task.abort(),
            }
            return true;
        }
        false
    }

    /// Lets a connection end by itself, or drops the one that has had the most time for it.
    fn end(&mut self, task: AbortHandle) {
        self.ending.push_back(task);
        if self.ending.len() > ENDING
            && let Some(longest) = self.ending.pop_front()
        {
            longest.abort();
        }
    }

    /// Which one is to be closed, see [`evict`](Self::evict).
    fn lowest(&self, newcomers: usize) -> Option<usize> {
        let ranks = self.open.iter().map(|(_, state)| state.rank()).enumerate();
        let (new, others): (Vec<_>, Vec<_>) = ranks
            .filter_map(|(at, rank)| Some((rank?, at)))
            .partition(|(rank, _)| S::is_newcomer(rank));
        let older = new.len().div_ceil(2);
        let new = (new.len() >= newcomers)
            .then(|| fastrand::choice(new.into_iter().take(older)))
            .flatten();
        others.into_iter().chain(new).min().map(|(_, at)| at)
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

#[cfg(test)]
mod tests;
