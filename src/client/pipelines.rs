//! Starts of the pipelines of a full Gofer: one at a time, and none while the run of an earlier one
//! is pending.
//!
//! A full Gofer counts a pending run among those that its pipeline's parallelism allows. If an
//! extension added a run whenever a tick falls due, all of them would wait for each other for good.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gofer_net::{Backoff, Effect, effect};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use super::start::{Wanted, may_pass};
use super::{Gofer, PipelineId, RunInfo, RunState};

/// Calls to start a run that may be in flight at once. Fewer saturate one connection, and after an
/// outage, not every subscription calls Gofer at once.
const IN_FLIGHT: usize = 64;

/// Between two questions whether a run is still pending.
const POLL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// A Gofer that was restarted forgets the starts whose responses it was holding back: their runs
/// stay pending for good.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 60);

/// Keys of authors that are remembered, with the runs that have them.
const SEEN: usize = 1024;

/// What all starts of one client share.
pub(super) struct Starts {
    pub(super) permits: Semaphore,
    /// Held to find out whether keys are enforced.
    pub(super) asking: tokio::sync::Mutex<()>,
    /// The number of a connection, and in the lowest bit whether keys are enforced on it.
    enforced: AtomicU64,
    pub(super) pipelines: Pipelines,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    runs: HashMap<String, i64>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Default for Starts {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(IN_FLIGHT),
            asking: tokio::sync::Mutex::default(),
            enforced: AtomicU64::new(0),
            pipelines: Pipelines::default(),
            seen: Mutex::default(),
        }
    }
}

impl Starts {
    /// Whether keys are enforced on this connection, if that is known.
    pub(super) fn enforces_keys(&self, connection: u64) -> Option<bool> {
        let known = self.enforced.load(Ordering::Acquire);
        (known >> 1 == connection).then_some(known & 1 == 1)
    }

    pub(super) fn learned(&self, connection: u64, enforced: bool) {
        self.enforced.store(connection << 1 | u64::from(enforced), Ordering::Release);
    }

    /// The run of an author's key, as far as it is remembered.
    pub(super) fn seen(&self, wanted: &Wanted) -> Option<i64> {
        lock(&self.seen).runs.get(&wanted.name()).copied()
    }

    /// Remembers the run of an author's key.
    pub(super) fn remember(&self, wanted: &Wanted, run: i64) {
        let name = wanted.name();
        let Seen { runs, order } = &mut *lock(&self.seen);
        if runs.insert(name.clone(), run).is_none() {
            order.push_back(name);
        }
        if order.len() > SEEN
            && let Some(oldest) = order.pop_front()
        {
            runs.remove(&oldest);
        }
    }
}

/// The pipelines with a start that is waiting or under way, or that left something behind.
#[derive(Clone, Default)]
pub(super) struct Pipelines(Arc<Mutex<HashMap<PipelineId, Queue>>>);

/// First come, first served. Holds what the last start left behind.
type Queue = Arc<tokio::sync::Mutex<Option<Left>>>;

/// The right to start a run of a pipeline, until it is dropped.
pub(super) struct Turn {
    pipelines: Pipelines,
    pipeline: PipelineId,
    left: OwnedMutexGuard<Option<Left>>,
}

/// A start whose run may be pending.
pub(super) struct Left {
    wanted: Wanted,
    /// Its number, once it is known.
    run: Option<i64>,
    /// The newest connection when it was started.
    connection: u64,
    /// When it was noticed that the connection was lost, or that Gofer does not say what became of
    /// the run.
    lost: Option<Instant>,
}

impl Left {
    /// A start without a response.
    pub(super) fn unanswered(wanted: Wanted, connection: u64) -> Self {
        Self { wanted, run: None, connection, lost: None }
    }

    /// A start whose run is pending.
    pub(super) fn pending(wanted: Wanted, connection: u64, run: i64) -> Self {
        Self { wanted, run: Some(run), connection, lost: None }
    }

    async fn find(&self, gofer: &Gofer) -> Result<Option<RunInfo>, Status> {
        match self.run {
            Some(id) => gofer.raw_run(&self.wanted.pipeline, id).await.map(Some),
            None => gofer.find(&self.wanted).await,
        }
    }
}

impl Pipelines {
    /// Waits for those that came before.
    pub(super) async fn turn(&self, pipeline: &PipelineId) -> Turn {
        let queue = Arc::clone(lock(&self.0).entry(pipeline.clone()).or_default());
        let (pipelines, pipeline) = (self.clone(), pipeline.clone());
        Turn { pipelines, pipeline, left: queue.lock_owned().await }
    }
}

impl Turn {
    pub(super) fn leave(&mut self, left: Left) {
        *self.left = Some(left);
    }

    pub(super) fn leave_nothing(&mut self) {
        *self.left = None;
    }

    /// Waits until the run that the last start left behind is no longer pending.
    pub(super) async fn settle(&mut self, gofer: &Gofer) {
        let mut poll = POLL;
        while let Some(left) = &mut *self.left {
            match left.find(gofer).await {
                Ok(Some(run)) if run.state() == RunState::Pending => {
                    left.run = Some(run.id());
                    let was_lost = gofer.inner.transport.channel().opened() > left.connection;
                    if was_lost && left.is_given_up() {
                        tracing::warn!(
                            pipeline = %self.pipeline, run = run.id(),
                            "the run has been pending for 5 minutes since the connection to Gofer \
                             was lost, and may stay so; no longer waiting for it"
                        );
                        return self.leave_nothing();
                    }
                }
                Ok(_) => return self.leave_nothing(),
                // The start reports what is wrong with the pipeline.
                Err(status) if effect(&status) == Effect::Refused => {
                    if !may_pass(&status) || left.is_given_up() {
                        return self.leave_nothing();
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(poll.pause()).await;
        }
    }
}

impl Left {
    fn is_given_up(&mut self) -> bool {
        let now = Instant::now();
        now - *self.lost.get_or_insert(now) >= GIVE_UP_AFTER
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.left.is_some() {
            return;
        }
        let mut pipelines = lock(&self.pipelines.0);
        // The table's reference and this one's: nothing else is waiting.
        if pipelines.get(&self.pipeline).is_some_and(|queue| Arc::strong_count(queue) == 2) {
            pipelines.remove(&self.pipeline);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
