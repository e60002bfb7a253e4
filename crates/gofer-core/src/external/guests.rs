//! The open connections, and which of them gives way.
//!
//! A guest who keeps the core waiting (for a handshake, for a request, for the
//! rest of one) may have to give way to a new one; one whose event is with its
//! extension may not. So half-sent requests, however many, keep nobody out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// One connection, as those see it who decide about it.
pub(super) struct Guest {
    epoch: Instant,
    /// Since when it has kept the core waiting, in milliseconds of the epoch;
    /// [`OURS`] while it waits for the core.
    waiting_since: AtomicU64,
    /// It waits for no answer: no request has been begun.
    between: AtomicBool,
    /// Not all of its last request has been read, and nothing more will be.
    pub(super) cut_off: AtomicBool,
}

/// The core's turn.
const OURS: u64 = u64::MAX;

impl Guest {
    fn new(epoch: Instant) -> Self {
        let guest = Self {
            epoch,
            waiting_since: AtomicU64::new(OURS),
            between: AtomicBool::new(true),
            cut_off: AtomicBool::new(false),
        };
        guest.between_requests();
        guest
    }

    /// It is its turn to send a request.
    pub(super) fn between_requests(&self) {
        self.between.store(true, Ordering::Relaxed);
        self.keeps_waiting(Instant::now(), Duration::ZERO);
    }

    /// It is its turn to send a body, `since` then. What has arrived of it is to
    /// its credit, as so much time: a long upload is not an attack.
    pub(super) fn keeps_waiting(&self, since: Instant, credit: Duration) {
        let since = (since + credit).saturating_duration_since(self.epoch);
        let since = u64::try_from(since.as_millis()).unwrap_or(OURS - 1);
        self.waiting_since.store(since, Ordering::Relaxed);
    }

    /// It has begun a request: it hears of what becomes of it.
    pub(super) fn begins(&self) {
        self.between.store(false, Ordering::Relaxed);
    }

    /// It is the core's turn.
    pub(super) fn waits(&self) {
        self.waiting_since.store(OURS, Ordering::Relaxed);
    }

    pub(super) fn is_between_requests(&self) -> bool {
        self.between.load(Ordering::Relaxed)
    }
}

/// All of them, oldest first.
pub(super) struct Guests {
    most: usize,
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Arc<Guest>)>,
}

impl Guests {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), open: VecDeque::new() }
    }

    /// Lets one in, in place of another where all places are taken. Where all
    /// wait for the core, the new one is hung up on.
    pub(super) fn admit<F>(&mut self, epoch: Instant, serve: impl FnOnce(Arc<Guest>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Who has left takes no place.
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= self.most && !self.evict() {
            tracing::warn!("too many external events are under way; one more is refused");
            return;
        }
        let guest = Arc::new(Guest::new(epoch));
        let task = self.tasks.spawn(serve(Arc::clone(&guest)));
        self.open.push_back((task, guest));
        // What has ended is let go now and then, at a cost that each admission
        // has paid for.
        if self.open.len() > 2 * self.tasks.len() + 16 {
            self.open.retain(|(task, _)| !task.is_finished());
        }
    }

    /// Hangs up on the one that has kept the core waiting longest.
    pub(super) fn evict(&mut self) -> bool {
        self.open.retain(|(task, _)| !task.is_finished());
        let waiting = self
            .open
            .iter()
            .map(|(_, guest)| guest.waiting_since.load(Ordering::Relaxed))
            .enumerate()
            .filter(|(_, since)| *since != OURS)
            .min_by_key(|(_, since)| *since);
        match waiting.and_then(|(at, _)| self.open.remove(at)) {
            Some((task, _)) => {
                task.abort();
                true
            }
            None => false,
        }
    }

    /// Completes when one has left; never where there is none.
    pub(super) async fn one_left(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the rest to leave, and then makes them.
    pub(super) async fn leave(&mut self, until: Instant) {
        while let Ok(Some(_left)) = tokio::time::timeout_at(until, self.tasks.join_next()).await {}
        self.tasks.shutdown().await;
    }
}
