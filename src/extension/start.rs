//! Starting a run for a live subscription: kept through an outage, not started
//! twice, and not in a storm.

use std::time::Duration;

use gofer_net::{Effect, effect};
use gofer_proto::{ListRunsRequest, StartRunRequest};
use tonic::Status;

use super::live::Live;
use crate::client::{BACKOFF, Run, RunInfo, error, start_request};
use crate::error::{Error, ErrorKind, Result};

/// How many of a pipeline's newest runs are looked through for one that was
/// started by a call whose answer got lost. It was started within the last
/// deadline, so only what others started since stands before it.
const RECENT: u32 = 50;

/// How long an attempt that is on its way may go on after the subscription has
/// ended. An answer mostly comes within milliseconds; of a Gofer that does not
/// answer, whoever ends the subscription should not have to wait.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// A run, and when it started in nanoseconds of [`Gofer::monotonic`].
struct Started {
    run: RunInfo,
    at: i64,
}

impl<P: ?Sized> Live<P> {
    pub(super) async fn start_run(&self, run: Run) -> Result<RunInfo> {
        let request = start_request(
            self.context.gofer.initiator(self.key.label()),
            self.key.namespace().to_owned(),
            self.key.pipeline().to_owned(),
            run,
        );
        // One after the other: of two calls at once, a run that Gofer started
        // could be either's where an answer gets lost.
        let _guard = self.lock_starts().await.ok_or_else(ended)?;
        // What was known before: a run that is newer may be this call's.
        let known = self.last_run_id();
        let mut backoff = BACKOFF;
        let mut lost = false;
        loop {
            let outcome = {
                // For an attempt and not for the pauses between: pipelines that
                // cannot be run now do not keep others from trying.
                let _permit = tokio::select! {
                    permit = self.context.starts.acquire() => permit.map_err(Error::from)?,
                    () = self.cancelled() => return Err(ended()),
                };
                tokio::select! {
                    outcome = self.start_or_find(&request, known.filter(|_| lost)) => outcome,
                    () = self.cancel_grace_over() => return Err(ended()),
                }
            };
            match outcome {
                Ok(Started { run, at }) => {
                    self.run_started(run.id(), at);
                    return Ok(run);
                }
                Err(status) => match (effect(&status), known) {
                    (Effect::None, _) => {}
                    // Said by Gofer, or by a proxy that lost Gofer in mid-call.
                    (Effect::Unavailable, _) => lost = known.is_some(),
                    (Effect::Unknown, Some(_)) => lost = true,
                    // Without knowing the last run before the call, a run that
                    // this call may have started cannot be told from it.
                    (Effect::Refused, _) | (Effect::Unknown, None) => return Err(error(&status)),
                },
            }
            self.pause(backoff.pause()).await?;
        }
    }

    /// One attempt. After an answer got lost, it looks first for a run that is
    /// newer than the last one that was `known` before.
    async fn start_or_find(
        &self,
        request: &StartRunRequest,
        known: Option<i64>,
    ) -> Result<Started, Status> {
        let gofer = &self.context.gofer;
        if let Some(known) = known
            && let Some(run) = self.newer_run(request, known).await?
        {
            // Ticks that fell due since then are not answered by it.
            let at = gofer.started_at(&run);
            return Ok(Started { run, at });
        }
        let response = gofer.raw().start_run(request.clone()).await?.into_inner();
        let run = RunInfo::new(response.run.unwrap_or_default());
        Ok(Started { run, at: gofer.monotonic() })
    }

    /// The run of this label that is newer than the one known of.
    async fn newer_run(
        &self,
        request: &StartRunRequest,
        known: i64,
    ) -> Result<Option<RunInfo>, Status> {
        let request = ListRunsRequest {
            offset: 0,
            limit: RECENT.into(),
            namespace_id: request.namespace_id.clone(),
            pipeline_id: request.pipeline_id.clone(),
        };
        let runs = self.context.gofer.raw().list_runs(request).await?.into_inner().runs;
        let initiator = self.context.gofer.initiator(self.key.label());
        Ok(runs
            .into_iter()
            .map(RunInfo::new)
            .find(|run| run.id() > known && run.is_by_extension(&initiator)))
    }

    async fn pause(&self, pause: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.cancelled() => Err(ended()),
        }
    }

    async fn cancel_grace_over(&self) {
        self.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the subscription ended before the run was started")
}
