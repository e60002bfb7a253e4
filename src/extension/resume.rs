//! Asking Gofer what the last run of a label was scheduled for, so that a restart of the extension
//! does not reset the clocks of its subscriptions.
//!
//! In the background, a few calls at a time: Gofer restores all subscriptions before its own API
//! listens, so at first there is no response, and a hundred thousand subscriptions may be waiting.
//! A question that fails is asked again later, behind the others. How long Gofer cannot be reached
//! does not matter; one that is answered with errors for ten minutes is given up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gofer_net::{Backoff, Effect, effect};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::context::Context;
use super::live::{LastTick, Live, Report};
use crate::catch_panic::drop_caught;
use crate::client::{RunInfo, RunState, error, is_permanent};

/// Calls in flight at once. They are less urgent than subscriptions and ticks, so each waits for a
/// place among the starts in flight too.
const IN_FLIGHT: usize = 4;

/// The calls begin once no subscription has been made for this long: while Gofer restores its
/// subscriptions, it does not respond yet. There is no tick before the answer, so this is well below
/// the second that the shortest periods have.
const QUIET: Duration = Duration::from_millis(250);

/// But not later than this after the first subscription: a constant stream of them must not delay
/// the calls for ever.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Pauses of a worker while Gofer cannot be reached.
const OUTAGE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Pauses of a question that fails.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(60));

/// A question that has failed for this long is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 60);

/// A question that fails for longer than this is logged.
const LOGGED_AFTER: Duration = Duration::from_secs(10);

/// How many runs of the pipeline are searched: a few first, since the last run of an interval's
/// pipeline is mostly its own, then whole pages.
const PAGES: [u16; 6] = [4, 200, 200, 200, 200, 200];

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// Notified when a question was added.
    added: Notify,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Question>,
    /// Those that have failed, by the time when they are asked again; numbered, since several may
    /// have the same.
    failed: BTreeMap<(Instant, u64), Question>,
    failures: u64,
    /// At this length, those whose subscription has ended are removed.
    sweep_at: usize,
    workers: usize,
    /// Whether it was logged that questions fail.
    is_logged: bool,
    first: Option<Instant>,
    last: Option<Instant>,
}

struct Question {
    /// Weak: a subscription that has ended is skipped.
    live: Weak<Live>,
    retry: Option<Box<Retry>>,
}

struct Retry {
    backoff: Backoff,
    /// When it first failed.
    failing: Instant,
    /// When Gofer first answered with an error.
    since: Option<Instant>,
}

/// What a worker does next.
enum Next {
    Ask(Question),
    Wait(Instant),
    End,
}

impl Context {
    /// Queues a question to Gofer for the last run of a label.
    pub(super) fn ask_for_last_run(self: &Arc<Self>, live: &Arc<Live>) {
        if !live.mark_asked() {
            return;
        }
        let now = Instant::now();
        let queue = &self.resumes;
        let mut state = queue.state();
        state.sweep();
        state.waiting.push_back(Question { live: Arc::downgrade(live), retry: None });
        state.first.get_or_insert(now);
        state.last = Some(now);
        if state.workers >= IN_FLIGHT || queue.closed.is_cancelled() {
            drop(state);
            return queue.added.notify_one();
        }
        state.workers += 1;
        drop(state);
        let context = Arc::clone(self);
        queue.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = context.resumes.closed.cancelled() => {}
                () = work(&context) => {}
            }
        });
    }
}

impl Queue {
    pub(super) fn abandon(&self) {
        self.closed.cancel();
    }

    pub(super) async fn close(&self) {
        self.abandon();
        self.tasks.close();
        self.tasks.wait().await;
        let mut state = self.state();
        state.waiting.clear();
        state.failed.clear();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, QueueState> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time when the calls may begin; `None` once they may.
    fn not_before(&self) -> Option<Instant> {
        let state = self.state();
        let start = (state.last? + QUIET).min(state.first? + MAX_DELAY);
        (start > Instant::now()).then_some(start)
    }

    fn next(&self) -> Next {
        let mut state = self.state();
        let now = Instant::now();
        // Behind those that have not been asked yet.
        while let Some(due) = state.failed.first_entry().filter(|entry| entry.key().0 <= now) {
            let question = due.remove();
            state.waiting.push_back(question);
        }
        if let Some(question) = state.waiting.pop_front() {
            return Next::Ask(question);
        }
        if let Some(((at, _), _)) = state.failed.first_key_value() {
            return Next::Wait(*at);
        }
        state.workers -= 1;
        state.first = None;
        let is_news = state.workers == 0 && std::mem::take(&mut state.is_logged);
        // The queue is long after a start only.
        state.waiting.shrink_to_fit();
        drop(state);
        if is_news {
            tracing::info!("the last runs of all subscriptions have been looked up");
        }
        Next::End
    }

    /// Gofer could not be asked.
    fn put_back(&self, question: Question) {
        self.state().waiting.push_front(question);
    }

    /// Asks again later. That questions fail is logged once, until all have been answered.
    fn retry(&self, live: &Live, mut question: Question, status: &Status) {
        let now = Instant::now();
        let retry = question.retry();
        let at = now + retry.backoff.pause();
        // An outage is logged once for all.
        let is_long = now - retry.failing >= LOGGED_AFTER && !live.context.gofer.has_outage();
        let mut state = self.state();
        let is_news = is_long && !std::mem::replace(&mut state.is_logged, true);
        state.failures += 1;
        let key = (at, state.failures);
        state.failed.insert(key, question);
        drop(state);
        if is_news {
            let _entered = live.key.span().entered();
            tracing::warn!(
                error = ?error(status),
                "cannot look up the last run yet, without which there are no ticks; trying again"
            );
        }
    }
}

impl Question {
    fn retry(&mut self) -> &mut Retry {
        self.retry.get_or_insert_with(|| {
            Box::new(Retry { backoff: RETRY, failing: Instant::now(), since: None })
        })
    }

    /// Counts an error; true if there have been errors for too long.
    fn is_given_up(&mut self) -> bool {
        let now = Instant::now();
        now - *self.retry().since.get_or_insert(now) >= GIVE_UP_AFTER
    }
}

impl QueueState {
    /// A subscription that has ended keeps its memory while it is queued, which in an outage may be
    /// long.
    fn sweep(&mut self) {
        const LEAST: usize = 1024;
        let len = self.waiting.len() + self.failed.len();
        if len >= self.sweep_at.max(LEAST) {
            let lives = |question: &Question| question.live.strong_count() > 0;
            self.waiting.retain(lives);
            self.failed.retain(|_, question| lives(question));
            // Twice what is left: one sweep for as many additions.
            self.sweep_at = 2 * (self.waiting.len() + self.failed.len());
        }
    }
}

async fn work(context: &Context) {
    let queue = &context.resumes;
    while let Some(start) = queue.not_before() {
        tokio::time::sleep_until(start).await;
    }
    let mut outage = OUTAGE;
    loop {
        let mut question = match queue.next() {
            Next::Ask(question) => question,
            Next::Wait(until) => {
                let _either = tokio::time::timeout_at(until, queue.added.notified()).await;
                continue;
            }
            Next::End => return,
        };
        // Behind the starts that wait: each subscription that is looked up may be due at once, and
        // with very many, more would wait each second than are served.
        let turn = context.gofer.turn_among_starts().await;
        // A strong reference only during a call, so that waiting for Gofer does not keep a
        // subscription that has ended.
        let Some(live) = question.live.upgrade() else { continue };
        let outcome = if live.is_cancelled() { None } else { Some(ask(&live).await) };
        drop(turn);
        let mut until = None;
        match outcome {
            None => {}
            Some(Ok(report)) => {
                outage = OUTAGE;
                live.resume(report);
            }
            Some(Err(status)) => match effect(&status) {
                Effect::None => {
                    queue.put_back(question);
                    let next = context.gofer.next_attempt();
                    until = Some(next.unwrap_or_else(|| Instant::now() + outage.pause()));
                }
                // From Gofer or a proxy, and no error of this question.
                Effect::Unavailable => queue.retry(&live, question, &status),
                Effect::Unknown | Effect::Refused => {
                    if is_permanent(&status) || question.is_given_up() {
                        give_up(&live, &status);
                    } else {
                        queue.retry(&live, question, &status);
                    }
                }
            },
        }
        // If it has ended meanwhile, its parameters are dropped here, which are the author's.
        drop_caught("a subscription", live);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn give_up(live: &Live, status: &Status) {
    let error = error(status);
    let entered = live.key.span().entered();
    if live.context.gofer.has_outage() {
        // Logged once for all.
        tracing::debug!(?error, "cannot look up the last run; counting ticks from now");
    } else {
        tracing::warn!(?error, "cannot look up the last run; counting ticks from now");
    }
    drop(entered);
    live.resume_from_now();
}

async fn ask(live: &Live) -> Result<Report, Status> {
    let gofer = &live.context.gofer;
    let initiator = gofer.initiator(live.key.label());
    let mut offset = 0;
    let mut newest = None;
    // When the label's last run started, and its ID if it has not.
    let mut started = None;
    let mut queued = 0;
    for limit in PAGES.map(i64::from) {
        let (namespace, pipeline) = (live.key.namespace(), live.key.pipeline());
        let runs = gofer.runs_page(namespace, pipeline, offset, limit).await?;
        let newest = *newest.get_or_insert_with(|| runs.first().map_or(0, RunInfo::id));
        let len = i64::try_from(runs.len()).unwrap_or(limit);
        let is_earlier = |run: &RunInfo| live.is_earlier(run.id());
        let is_last = len < limit || runs.last().is_some_and(is_earlier);
        let own =
            runs.into_iter().filter(|run| run.is_by_extension(&initiator) && !is_earlier(run));
        for run in own {
            if started.is_none() && run.state() == RunState::Pending {
                queued = run.id();
            }
            let started = *started.get_or_insert_with(|| run.started_at());
            // A run that was not started for a tick says nothing of the grid.
            if let Some(scheduled) = run.scheduled_at() {
                return Ok(Report { newest, queued, last: Some((scheduled, started)) });
            }
        }
        if is_last {
            break;
        }
        offset += len;
    }
    let last = started.map(|at| {
        // Runs that were started for no tick move no grid.
        if live.has_beginning() {
            return (LastTick::NEVER, at);
        }
        // A full Gofer does not say when the subscription was made: as if the last run, without a
        // time as it is, had been a tick.
        let at = at.min(gofer.now_nanos());
        (at, at)
    });
    Ok(Report { newest: newest.unwrap_or(0), queued, last })
}
