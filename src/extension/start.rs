//! Starting a run for a live subscription: for as long as the subscription lasts.

use std::pin::pin;
use std::sync::Arc;
use std::thread::LocalKey;
use std::time::Duration;

use gofer_net::{AtRest, Backoff, BoxFuture, Job, Reused};
use tonic::Status;

use super::live::{Calling, Live};
use crate::client::{
    Cancellation, Known, Occurrence, PipelineId, PipelineRef, Run, RunInfo, RunState, Scheduled,
    Started,
};
use crate::error::{Error, ErrorKind, Result};

/// How long a call that is in flight may go on after the subscription was cancelled. Responses
/// usually take milliseconds; if there is none, Unsubscribe should not have to wait for it.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How long a run that is started for an external event may take to be stored. Whoever sent the event
/// waits, GitHub for ten seconds, and can send it again.
const STORED_WITHIN: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// Set while an external event is handled.
    static EVENT: ();
}

/// What an author does for an external event.
pub(crate) async fn for_event<T>(handle: impl Future<Output = T>) -> T {
    EVENT.scope((), handle).await
}

/// Between two looks at a run that is queued.
const POLL: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

thread_local! {
    static AT_REST: AtRest<Result<RunInfo>> = const { AtRest::new() };
}

/// A run to be started for a subscription.
///
/// Its future is some kilobytes, which a subscription that waits for its next tick must not hold.
pub(crate) struct Start {
    live: Arc<Live>,
    run: Run,
    /// How long it may take, and the error after that.
    limit: Option<(Duration, fn() -> Error)>,
}

impl Start {
    pub(super) fn new(live: Arc<Live>, run: Run) -> Reused<Self> {
        let limit = if let Some(too_late) = run.too_late() {
            let left = too_late.saturating_sub(live.context.gofer.now_nanos());
            let left = Duration::from_nanos(u64::try_from(left).unwrap_or(0));
            Some((left, too_late_for_tick as fn() -> Error))
        } else if EVENT.try_with(|()| ()).is_ok() {
            Some((STORED_WITHIN, too_late_for_sender as fn() -> Error))
        } else {
            None
        };
        Reused::new(Self { live, run, limit })
    }
}

impl Job for Start {
    type Output = Result<RunInfo>;

    async fn run(job: Option<Self>) -> Result<RunInfo> {
        let Some(Self { live, run, limit }) = job else { return std::future::pending().await };
        let began = live.context.metrics.begin();
        let mut start = pin!(live.start(run));
        let started = match limit {
            None => start.await,
            Some((limit, error)) => tokio::time::timeout(limit, start.as_mut())
                .await
                .unwrap_or_else(|_| Err(live.not_started(error()))),
        };
        live.context.metrics.run_start(&began, &started);
        started
    }

    fn at_rest() -> &'static LocalKey<AtRest<Result<RunInfo>>> {
        &AT_REST
    }
}

impl Live {
    fn not_started(&self, error: Error) -> Error {
        self.run_not_started(&error);
        error
    }

    async fn start(&self, run: Run) -> Result<RunInfo> {
        if self.is_cancelled() {
            return Err(ended());
        }
        let key = run.authors_key().map(str::to_owned);
        if let Some(run) = key.as_deref().and_then(|key| self.recent_run(key)) {
            return Ok(run);
        }
        let scheduled = run.scheduled_at();
        let pipeline =
            PipelineRef { namespace: self.key.namespace(), pipeline: self.key.pipeline() };
        let (gofer, label) = (&self.context.gofer, self.key.label());
        // After its future was dropped, or `serve` has failed.
        let is_repeat = scheduled.is_some_and(|at| self.is_tried(at));
        let known = Known { newest: self.newest_run(), is_repeat };
        // By a clock that was ahead, a run may have been scheduled for the same time before. Whether
        // it was is known, or shows by the answer.
        let (first, again) = match run.time() {
            Some(Scheduled { at, occurrence: Occurrence::Again, .. }) => {
                (run.again(self.second_key(at)), None)
            }
            Some(Scheduled { at, occurrence: Occurrence::First, .. }) => {
                (run.clone(), Some((run, at)))
            }
            Some(Scheduled { occurrence: Occurrence::Only, .. }) | None => (run, None),
        };
        let mut outcome = gofer.start_once(label, pipeline, first, known, &EndOf(self)).await;
        if let Ok(started) = &outcome
            && let Some((run, at)) = again
            && self.is_earlier(started.run.id())
            // Boxed: it is rare, and larger than all the rest.
            && Box::pin(self.run_ids_go_on(pipeline)).await
        {
            let again = run.again(self.second_key(at));
            outcome = gofer.start_once(label, pipeline, again, known, &EndOf(self)).await;
        }
        match outcome {
            Ok(Started { run, at, is_queued }) => {
                self.run_started(run.id(), scheduled, at, is_queued);
                self.second_is_answered(scheduled);
                if key.is_some() {
                    self.remember_run(&run);
                }
                Ok(run)
            }
            // Gofer refuses what it is asked for a pipeline that is no longer subscribed.
            Err(_) if self.is_cancelled() => Err(ended()),
            Err(error) => {
                self.run_refused();
                Err(self.not_started(error))
            }
        }
    }

    /// Whether the pipeline's run IDs have gone on since the ticks were resumed. They start at 1 again
    /// in a pipeline that was deleted and created again, and lower in a Gofer that has lost runs.
    async fn run_ids_go_on(&self, pipeline: PipelineRef<'_>) -> bool {
        let newest = self.context.gofer.newest_run(pipeline).await;
        newest.is_ok_and(|newest| !self.is_earlier(newest.saturating_add(1)))
    }

    /// Waits until the last run is no longer queued, or the subscription is cancelled. Ticks that
    /// have fallen due by then are covered by that run, if it was queued when this was called: as on
    /// a Gofer that answers when it has started.
    ///
    /// Boxed: most subscriptions never wait for this.
    pub(super) fn queued_run_has_started(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let pipeline = PipelineId::new(self.key.namespace(), self.key.pipeline());
            let gofer = &self.context.gofer;
            let mut poll = POLL;
            let mut covered = i64::MIN;
            while let Some(queued) = self.queued_run().filter(|_| !self.is_cancelled()) {
                let run = gofer.raw_run(&pipeline, queued).await;
                // In an outage, the next start waits for Gofer.
                let is_queued = run.is_ok_and(|run| run.state() == RunState::Pending);
                if !is_queued {
                    return self.queued_run_started(queued, covered);
                }
                let _cancelled = tokio::time::timeout(poll.pause(), self.cancelled()).await;
                covered = gofer.now_nanos();
            }
        })
    }
}

/// By the end of the subscription.
struct EndOf<'a>(&'a Live);

impl Cancellation for EndOf<'_> {
    async fn while_waiting(&self) {
        let _why = self.0.cancelled().await;
    }

    async fn while_calling(&self) {
        let _why = self.0.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    }

    fn calling(&self) -> impl Send {
        Calling::new(self.0)
    }

    fn error(&self, _: Option<&Status>) -> Error {
        ended()
    }
}

fn too_late_for_tick() -> Error {
    let why = "the run could not be started within the largest lateness of its tick";
    Error::new(ErrorKind::DeadlineExceeded, why)
}

fn too_late_for_sender() -> Error {
    Error::unavailable(format!("Gofer has not stored the run within {STORED_WITHIN:?}"))
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the subscription ended before the run was started")
}

#[cfg(test)]
mod tests;
