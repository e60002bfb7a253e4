//! Starting a run for a live subscription: retried during an outage, never started twice, and
//! limited in number at once.

use std::time::Duration;

use gofer_net::{BoxFuture, Effect, effect};
use gofer_proto::{ListRunsRequest, StartRunRequest};
use tonic::Status;

use super::live::Live;
use crate::client::{BACKOFF, Run, RunInfo, error};
use crate::error::{Error, ErrorKind, Result};

/// How many of a pipeline's newest runs are searched for one that was started by a call whose
/// response was lost. It started within the last deadline, so few runs are newer.
const RECENT: u32 = 50;

/// How long a call that is in flight may go on after the subscription was cancelled. Responses
/// usually take milliseconds; if there is none, Unsubscribe should not have to wait for it.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// A run, and when it started in nanoseconds of [`Gofer::monotonic`].
struct Started {
    run: RunInfo,
    at: i64,
}

impl Live {
    /// Boxed: a call's future is some kilobytes, which a subscription that waits for its next tick
    /// must not hold.
    pub(super) fn start_run(&self, run: Run) -> BoxFuture<'_, Result<RunInfo>> {
        Box::pin(self.start(run))
    }

    async fn start(&self, run: Run) -> Result<RunInfo> {
        let request = self.context.gofer.start_request(
            self.key.label(),
            self.key.namespace().to_owned(),
            self.key.pipeline().to_owned(),
            run,
        );
        // Serialized: if one of two concurrent calls lost its response, a run that Gofer started
        // could belong to either.
        let _guard = self.lock_starts().await.ok_or_else(ended)?;
        // A run that is newer than this may be this call's.
        let known = self.last_run_id();
        let mut backoff = BACKOFF;
        let mut lost = false;
        loop {
            let outcome = {
                // Held during an attempt and not between attempts: pipelines that cannot be run now
                // do not keep others from trying.
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
                    // From Gofer, or from a proxy that lost Gofer during the call.
                    (Effect::Unavailable, _) => lost = known.is_some(),
                    (Effect::Unknown, Some(_)) => lost = true,
                    // Without the last run before the call, a run that this call may have started
                    // cannot be distinguished from it.
                    (Effect::Refused, _) | (Effect::Unknown, None) => return Err(error(&status)),
                },
            }
            self.pause(backoff.pause()).await?;
        }
    }

    /// One attempt. After a response was lost, it first looks for a run that is newer than the last
    /// one that was `known` before.
    async fn start_or_find(
        &self,
        request: &StartRunRequest,
        known: Option<i64>,
    ) -> Result<Started, Status> {
        let gofer = &self.context.gofer;
        if let Some(known) = known
            && let Some(run) = self.newer_run(request, known).await?
        {
            // It does not cover ticks that fell due since then.
            let at = gofer.started_at(&run);
            return Ok(Started { run, at });
        }
        let response = gofer.raw().start_run(request.clone()).await?.into_inner();
        let run = RunInfo::new(response.run.unwrap_or_default());
        Ok(Started { run, at: gofer.monotonic() })
    }

    /// A run of this label that is newer than the known one.
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
