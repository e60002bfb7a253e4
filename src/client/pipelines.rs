//! Starts of the pipelines of a full Gofer: one at a time, and none while the run of an earlier one
//! is pending.
//!
//! A full Gofer counts a pending run among those that its pipeline's parallelism allows. If an
//! extension added a run whenever a tick falls due, all of them would wait for each other for good.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gofer_net::{Backoff, Effect, effect};
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};
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

/// Starts beyond those in flight whose response a full Gofer is holding back. Together they are
/// fewer than the calls that servers and proxies allow on one connection.
const HELD: usize = 32;

/// How long it is assumed that keys are not enforced, if the answer does not say.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// What all starts of one client share.
pub(super) struct Starts {
    pub(super) permits: Semaphore,
    pub(super) held: Semaphore,
    learned: Mutex<Learned>,
    pub(super) pipelines: Pipelines,
    seen: Mutex<Seen>,
}

/// Whether keys are enforced.
#[derive(Default)]
struct Learned {
    /// The number of the connection that this is about.
    connection: u64,
    enforced: bool,
    /// If it is an assumption.
    until: Option<Instant>,
    /// The question that is under way, or was last.
    question: Option<(u64, Answer)>,
}

/// The outcome of asking whether keys are enforced.
pub(super) type Answer = watch::Receiver<Option<Result<bool, Status>>>;

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
            held: Semaphore::new(HELD),
            learned: Mutex::default(),
            pipelines: Pipelines::default(),
            seen: Mutex::default(),
        }
    }
}

impl Starts {
    /// Whether keys are enforced on this connection, if that is known.
    pub(super) fn enforces_keys(&self, connection: u64) -> Option<bool> {
        let learned = lock(&self.learned);
        let is_over = learned.until.is_some_and(|until| until <= Instant::now());
        (learned.connection == connection && !is_over).then_some(learned.enforced)
    }

    pub(super) fn learned(&self, connection: u64, enforced: bool) -> bool {
        let mut learned = lock(&self.learned);
        (learned.connection, learned.enforced, learned.until) = (connection, enforced, None);
        enforced
    }

    /// Assumes for a while what is right on every Gofer.
    pub(super) fn assumed(&self, connection: u64) -> bool {
        let mut learned = lock(&self.learned);
        let until = Some(Instant::now() + ASSUMED_FOR);
        (learned.connection, learned.enforced, learned.until) = (connection, false, until);
        false
    }

    /// Asks in a task, unless that is under way for this connection.
    pub(super) fn ask<F>(&self, connection: u64, ask: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Result<bool, Status>> + Send + 'static,
    {
        let mut learned = lock(&self.learned);
        // An error if the task has ended without an outcome.
        let is_under_way = |(of, answer): &&(u64, Answer)| {
            *of == connection && answer.borrow().is_none() && answer.has_changed().is_ok()
        };
        if let Some((_, answer)) = learned.question.as_ref().filter(is_under_way) {
            return answer.clone();
        }
        let (outcome, answer) = watch::channel(None);
        learned.question = Some((connection, answer.clone()));
        let ask = ask();
        tokio::spawn(async move { outcome.send_replace(Some(ask.await)) });
        answer
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
    since: Instant,
}

/// Nobody waits for what was left behind longer ago than this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);

impl Left {
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
}

impl Pipelines {
    /// Waits for those that came before.
    pub(super) async fn turn(&self, pipeline: &PipelineId) -> Turn {
        let queue = {
            let mut table = lock(&self.0);
            table.sweep();
            Arc::clone(table.queues.entry(pipeline.clone()).or_default())
        };
        let (pipelines, pipeline) = (self.clone(), pipeline.clone());
        Turn { pipelines, pipeline, left: queue.lock_owned().await }
    }
}

impl Table {
    /// What was left behind is found out by the next start of its pipeline, and there may be none.
    fn sweep(&mut self) {
        const LEAST: usize = 1024;
        if self.queues.len() < self.sweep_at.max(LEAST) {
            return;
        }
        self.queues.retain(|_, queue| {
            // Locked by who has more than the table's reference.
            let left = queue.try_lock();
            let is_needed = |left: &Left| left.since.elapsed() < FORGOTTEN_AFTER;
            left.is_err() || left.is_ok_and(|left| left.as_ref().is_some_and(is_needed))
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
    pub(super) fn leave(&mut self, left: Left) {
        *self.left = Some(left);
    }

    pub(super) fn leave_nothing(&mut self) {
        *self.left = None;
    }

    /// What the last start left behind, if it was for this run.
    pub(super) fn left_by(&self, wanted: &Wanted) -> Option<&Left> {
        self.left.as_ref().filter(|left| left.wanted.is(wanted))
    }

    /// Waits until the run that the last start left behind is no longer pending, also if that start
    /// was in an earlier process.
    pub(super) async fn settle(&mut self, gofer: &Gofer) {
        let mut poll = POLL;
        if self.left.is_none() && !lock(&self.pipelines.0).searched(&self.pipeline) {
            // If this fails, so does what follows.
            if let Ok(Some(run)) = gofer.pending_run(&self.pipeline).await {
                let wanted = Wanted::none(self.pipeline.clone());
                self.leave(Left::pending(wanted, 0, run));
            }
        }
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
        let queues = &mut lock(&self.pipelines.0).queues;
        // The table's reference and this one's: nothing else is waiting.
        if queues.get(&self.pipeline).is_some_and(|queue| Arc::strong_count(queue) == 2) {
            queues.remove(&self.pipeline);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
