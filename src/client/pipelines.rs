//! Starts of the pipelines of a full Gofer: one at a time, and none while the run of an earlier one
//! is pending.
//!
//! A full Gofer counts a pending run among those that its pipeline's parallelism allows. If an
//! extension added a run whenever a tick falls due, all of them would wait for each other for good.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gofer_net::{Backoff, Effect, effect};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tonic::Status;

use super::start::{Wanted, may_pass};
use super::{Gofer, PipelineId, RunInfo, RunState};

/// Between two questions whether a run is still pending.
const POLL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// A Gofer that was restarted forgets the starts whose responses it was holding back: their runs
/// stay pending for good.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 60);

/// Starts of a pipeline that wait for longer than this are logged.
const LOGGED_AFTER: Duration = Duration::from_secs(60);

/// The pipelines with a start that is waiting, under way or unsettled.
#[derive(Clone, Default)]
pub(super) struct Pipelines(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    queues: HashMap<PipelineId, Queue>,
    /// At this length, those that nobody needs are removed.
    sweep_at: usize,
    /// Hashes of the pipelines that were searched for a pending run of an earlier process.
    searched: HashSet<u64>,
    hasher: RandomState,
}

/// First come, first served.
type Queue = Arc<tokio::sync::Mutex<State>>;

/// What is known of a pipeline.
#[derive(Default)]
struct State {
    /// The last start, if it is unsettled.
    unsettled: Option<Unsettled>,
    /// Since when runs have to wait before they start, as at the limit of the pipeline.
    waiting: Option<Instant>,
    /// Whether that was logged.
    is_logged: bool,
}

/// The right to start a run of a pipeline, until it is dropped.
pub(super) struct Turn {
    pipelines: Pipelines,
    pipeline: PipelineId,
    state: OwnedMutexGuard<State>,
}

/// A start of which it is not known whether its run is pending, or whose run is.
pub(super) struct Unsettled {
    wanted: Wanted,
    /// Its number, once it is known.
    run: Option<i64>,
    /// The newest connection when it was started.
    connection: u64,
    /// When it was noticed that the connection was lost, or that Gofer does not say what became of
    /// the run.
    lost: Option<Instant>,
    since: Instant,
}

/// Nobody waits for a start that was longer ago than this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

impl Unsettled {
    /// A start without a response.
    pub(super) fn unanswered(wanted: Wanted, connection: u64) -> Self {
        Self { wanted, run: None, connection, lost: None, since: Instant::now() }
    }

    /// A start whose run is pending.
    pub(super) fn pending(wanted: Wanted, connection: u64, run: i64) -> Self {
        Self { run: Some(run), ..Self::unanswered(wanted, connection) }
    }

    /// The connection, if the call was not answered.
    pub(super) fn unanswered_on(&self) -> Option<u64> {
        self.run.is_none().then_some(self.connection)
    }

    async fn find(&self, gofer: &Gofer) -> Result<Option<RunInfo>, Status> {
        match self.run {
            Some(id) => gofer.raw_run(&self.wanted.pipeline, id).await.map(Some),
            None => gofer.find(&self.wanted).await,
        }
    }

    /// Counts the time; true if it is over.
    fn is_given_up(&mut self) -> bool {
        let now = Instant::now();
        now - *self.lost.get_or_insert(now) >= GIVE_UP_AFTER
    }
}

impl Pipelines {
    /// Waits for those that came before.
    pub(super) async fn turn(&self, pipeline: PipelineId) -> Turn {
        let queue = {
            let mut table = lock(&self.0);
            table.sweep();
            Arc::clone(table.queues.entry(pipeline.clone()).or_default())
        };
        Turn { pipelines: self.clone(), pipeline, state: queue.lock_owned().await }
    }
}

impl Table {
    /// What became of a start is found out by the next one of its pipeline, and there may be none.
    fn sweep(&mut self) {
        const LEAST: usize = 1024;
        if self.queues.len() < self.sweep_at.max(LEAST) {
            return;
        }
        self.queues.retain(|_, queue| {
            // Besides the table's reference there are those of who waits, or has its turn.
            let is_used = Arc::strong_count(queue) > 1;
            let is_needed = |start: &Unsettled| start.since.elapsed() < FORGOTTEN_AFTER;
            is_used || queue.try_lock().is_ok_and(|it| it.unsettled.as_ref().is_some_and(is_needed))
        });
        // Twice what is left: one sweep for as many additions.
        self.sweep_at = 2 * self.queues.len();
    }

    /// Whether a pipeline was searched before.
    fn searched(&mut self, pipeline: &PipelineId) -> bool {
        let hash = self.hasher.hash_one(pipeline);
        !self.searched.insert(hash)
    }
}

impl Turn {
    /// If the start is given up now, the next one finds out what became of it.
    pub(super) fn set_unsettled(&mut self, start: Unsettled) {
        self.state.unsettled = Some(start);
    }

    pub(super) fn set_settled(&mut self) {
        self.state.unsettled = None;
    }

    /// A run is pending, and has to wait before it starts.
    pub(super) fn waits_for(&mut self, run: i64) {
        let since = *self.state.waiting.get_or_insert_with(Instant::now);
        if !self.state.is_logged && since.elapsed() >= LOGGED_AFTER {
            self.state.is_logged = true;
            tracing::warn!(
                pipeline = %self.pipeline, run,
                "the runs of the pipeline wait for its limit of parallel runs; no other is started \
                 while one is pending"
            );
        }
    }

    /// A run has started without waiting.
    pub(super) fn set_free(&mut self) {
        let since = self.state.waiting.take();
        if let Some(since) = since.filter(|_| std::mem::take(&mut self.state.is_logged)) {
            let seconds = since.elapsed().as_secs();
            tracing::info!(pipeline = %self.pipeline, seconds, "the runs of the pipeline wait no longer");
        }
    }

    /// The last start, if it is unsettled and was for this run.
    pub(super) fn unsettled_of(&self, wanted: &Wanted) -> Option<&Unsettled> {
        self.state.unsettled.as_ref().filter(|start| start.wanted.is(wanted))
    }

    /// Waits until the run of the last start is no longer pending, also if that start was in an
    /// earlier process.
    pub(super) async fn settle(&mut self, gofer: &Gofer) {
        let mut poll = POLL;
        if self.state.unsettled.is_none() && !lock(&self.pipelines.0).searched(&self.pipeline) {
            // If this fails, so does what follows.
            if let Ok(Some(run)) = gofer.pending_run(&self.pipeline).await {
                let wanted = Wanted::none(self.pipeline.clone());
                self.set_unsettled(Unsettled::pending(wanted, 0, run));
            }
        }
        while let Some(start) = &mut self.state.unsettled {
            match start.find(gofer).await {
                Ok(Some(run)) if run.state() == RunState::Pending => {
                    start.run = Some(run.id());
                    let was_lost = gofer.inner.transport.channel().opened() > start.connection;
                    let is_given_up = was_lost && start.is_given_up();
                    self.waits_for(run.id());
                    if is_given_up {
                        tracing::warn!(
                            pipeline = %self.pipeline, run = run.id(),
                            "the run has been pending for 5 minutes since the connection to Gofer \
                             was lost; not waiting for it any longer"
                        );
                        return self.set_settled();
                    }
                }
                Ok(_) => return self.set_settled(),
                // The start reports what is wrong with the pipeline.
                Err(status) if effect(&status) == Effect::Refused => {
                    if !may_pass(&status) || start.is_given_up() {
                        return self.set_settled();
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(poll.pause()).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.state.unsettled.is_some() || self.state.is_logged {
            return;
        }
        let queues = &mut lock(&self.pipelines.0).queues;
        // The table's reference and this one's: nothing else is waiting.
        if queues.get(&self.pipeline).is_some_and(|queue| Arc::strong_count(queue) == 2) {
            queues.remove(&self.pipeline);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
