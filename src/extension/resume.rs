//! Asking Gofer when the last run of a label started, so that a restart of the extension does not
//! reset the clocks of its subscriptions.
//!
//! In the background, a few calls at a time, without a time limit: Gofer restores all subscriptions
//! before its own API listens, so at first there is no response, and a hundred thousand
//! subscriptions may be waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gofer_net::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::Context;
use super::live::Live;
use crate::error::{ErrorKind, Result};

/// Calls in flight at once. They are less urgent than subscriptions and ticks.
const IN_FLIGHT: usize = 4;

/// The calls begin once no subscription has been made for this long: while Gofer restores its
/// subscriptions, it does not respond yet.
const QUIET: Duration = Duration::from_secs(1);

/// But not later than this after the first subscription: a constant stream of them must not delay
/// the calls for ever.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Delays while Gofer does not respond.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// How many runs of the pipeline are searched: a few first, since the last run of an interval's
/// pipeline is mostly its own, then whole pages.
const PAGES: [u32; 6] = [4, 200, 200, 200, 200, 200];

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct QueueState {
    /// Weak: a subscription that has ended is skipped.
    waiting: VecDeque<Weak<Live>>,
    /// At this length, those that have ended are removed.
    sweep_at: usize,
    workers: usize,
    first: Option<Instant>,
    last: Option<Instant>,
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
        state.waiting.push_back(Arc::downgrade(live));
        state.first.get_or_insert(now);
        state.last = Some(now);
        if state.workers >= IN_FLIGHT || queue.closed.is_cancelled() {
            return;
        }
        state.workers += 1;
        drop(state);
        let context = Arc::clone(self);
        queue.tasks.spawn(async move {
            tokio::select! {
                () = work(&context) => {}
                () = context.resumes.closed.cancelled() => {}
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
        self.state().waiting.clear();
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

    /// The next to ask for; `None` ends the worker.
    fn next(&self) -> Option<Weak<Live>> {
        let mut state = self.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.workers -= 1;
            state.first = None;
            // The queue is long after a start only.
            state.waiting.shrink_to_fit();
        }
        next
    }
}

impl QueueState {
    /// A subscription that has ended keeps its memory while it is queued, which in an outage may be
    /// long.
    fn sweep(&mut self) {
        const LEAST: usize = 1024;
        if self.waiting.len() >= self.sweep_at.max(LEAST) {
            self.waiting.retain(|live| live.strong_count() > 0);
            // Twice what is left: one sweep for as many additions.
            self.sweep_at = 2 * self.waiting.len();
        }
    }
}

async fn work(context: &Context) {
    let queue = &context.resumes;
    while let Some(start) = queue.not_before() {
        tokio::time::sleep_until(start).await;
    }
    while let Some(live) = queue.next() {
        let mut backoff = BACKOFF;
        // A strong reference only during a call, so that waiting for Gofer does not keep a
        // subscription that has ended.
        while let Some(live) = live.upgrade() {
            if live.is_cancelled() {
                break;
            }
            match ask(&live).await {
                Ok(last) => {
                    live.resume(last);
                    break;
                }
                Err(error) => match error.kind() {
                    // Asking again would not help.
                    ErrorKind::InvalidParameter
                    | ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
                    | ErrorKind::Unauthenticated
                    | ErrorKind::Unimplemented => {
                        tracing::warn!(
                            subscription = %live.key, ?error,
                            "cannot look up the last run; counting ticks from now"
                        );
                        break;
                    }
                    // An outage, or a failure that may pass.
                    _ => {}
                },
            }
            drop(live);
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Number and time of the last run that this label started.
async fn ask(live: &Live) -> Result<Option<(i64, i64)>> {
    let gofer = &live.context.gofer;
    let initiator = gofer.initiator(live.key.label());
    let mut offset = 0;
    for limit in PAGES {
        let (namespace, pipeline) = (live.key.namespace(), live.key.pipeline());
        let runs = gofer.list_runs(namespace, pipeline, offset, limit).await?;
        if let Some(run) = runs.iter().find(|run| run.is_by_extension(&initiator)) {
            let at = gofer.started_at(run);
            return Ok(Some((run.id(), at)));
        }
        if runs.len() < limit as usize {
            return Ok(None);
        }
        offset += i64::from(limit);
    }
    Ok(None)
}
