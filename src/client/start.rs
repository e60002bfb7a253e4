//! Starting a run for a live subscription: kept through an outage, not started
//! twice, and not in a storm.

use std::time::Duration;

use tonic::Status;

use super::{BACKOFF, Effect, Gofer, Run, RunInfo, effect, error, types};
use crate::extension::{Error, ErrorKind, Live, Result, Subscription};
use crate::proto::StartRunRequest;

/// How many of a pipeline's newest runs are looked through for one that was
/// started by a call whose answer got lost. It was started within the last
/// deadline, so only what others started since stands before it.
const RECENT: u32 = 50;

/// How long an attempt that is on its way may go on after the subscription has
/// ended. An answer mostly comes within milliseconds; of a Gofer that does not
/// answer, whoever ends the subscription should not have to wait.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A run, and when it started in nanoseconds of [`Gofer::monotonic`].
struct Started {
    run: RunInfo,
    at: i64,
}

impl Gofer {
    pub(crate) async fn start_run_for(&self, live: &Live, run: Run) -> Result<RunInfo> {
        let request = types::start_request(
            self.initiator(live.key.label()),
            live.key.namespace().to_owned(),
            live.key.pipeline().to_owned(),
            run,
        );
        // One after the other: of two calls at once, a run that Gofer started
        // could be either's where an answer gets lost.
        let _turn = live.start_turn().await.ok_or_else(ended)?;
        // What was known before: a run that is newer may be this call's.
        let known = live.last_run_id();
        let mut backoff = BACKOFF;
        let mut lost = false;
        loop {
            let outcome = {
                // For an attempt and not for the pauses between: pipelines that
                // cannot be run now do not keep others from trying.
                let _permit = tokio::select! {
                    permit = self.inner.starts.acquire() => permit.map_err(Error::from)?,
                    () = live.cancelled() => return Err(ended()),
                };
                tokio::select! {
                    outcome = self.start_or_find(live, &request, known.filter(|_| lost)) => outcome,
                    () = given_up(live) => return Err(ended()),
                }
            };
            match outcome {
                Ok(Started { run, at }) => {
                    live.run_started(run.id(), at);
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
            self.pause(live, backoff.pause()).await?;
        }
    }

    /// One attempt. After an answer got lost, it looks first for a run that is
    /// newer than the last one that was `known` before.
    async fn start_or_find(
        &self,
        live: &Live,
        request: &StartRunRequest,
        known: Option<i64>,
    ) -> Result<Started, Status> {
        if let Some(known) = known
            && let Some(run) = self.newer_run(live, request, known).await?
        {
            // Ticks that fell due since then are not answered by it.
            let at = self.inner.clock.monotonic_at(run.started_unix_millis());
            return Ok(Started { run, at });
        }
        let response = self.api().start_run(request.clone()).await?.into_inner();
        let run = RunInfo::new(response.run.unwrap_or_default());
        Ok(Started { run, at: self.monotonic() })
    }

    /// The run of this label that is newer than the one known of.
    async fn newer_run(
        &self,
        live: &Live,
        request: &StartRunRequest,
        known: i64,
    ) -> Result<Option<RunInfo>, Status> {
        let request = crate::proto::ListRunsRequest {
            offset: 0,
            limit: RECENT.into(),
            namespace_id: request.namespace_id.clone(),
            pipeline_id: request.pipeline_id.clone(),
        };
        let runs = self.api().list_runs(request).await?.into_inner().runs;
        let initiator = self.initiator(live.key.label());
        Ok(runs
            .into_iter()
            .map(RunInfo::new)
            .find(|run| run.id() > known && run.is_by_extension(&initiator)))
    }

    async fn pause(&self, live: &Live, pause: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = live.cancelled() => Err(ended()),
        }
    }
}

async fn given_up(live: &Live) {
    live.cancelled().await;
    tokio::time::sleep(LAST_WORD).await;
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the subscription ended before the run was started")
}

impl<P: Send + Sync + 'static> Subscription<P> {
    /// Has Gofer asked, in the background, for the last run of this label.
    pub(crate) fn ask_for_last_run(&self) {
        self.gofer().inner.resumes.ask(self.gofer(), &self.shared());
    }
}
