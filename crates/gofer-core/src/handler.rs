//! What a run executes: a function of the embedder, or a command.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use super::command::RunCommand;
use super::store::Ending;
use gofer_net::BoxFuture;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::internal::panic_message;
use gofer_sdk::{Result, RunInfo};

/// Executes runs. Dropping an execution ends it.
#[derive(Clone)]
pub(super) struct RunHandler(Arc<dyn Fn(RunInfo) -> BoxFuture<'static, Ending> + Send + Sync>);

impl fmt::Debug for RunHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunHandler").finish_non_exhaustive()
    }
}

impl RunHandler {
    pub(super) fn function<F, Fut>(handle: F) -> Self
    where
        F: Fn(RunInfo) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let handle = Arc::new(handle);
        Self(Arc::new(move |run| {
            let handle = Arc::clone(&handle);
            // Called inside the future, so that a panic of the call itself is caught too.
            Box::pin(async move {
                match handle(run).await {
                    Ok(()) => Ending::success(),
                    Err(error) => Ending::failure(Reason::AbnormalExit, &error.to_string()),
                }
            })
        }))
    }

    pub(super) fn command(command: RunCommand) -> Self {
        let command = Arc::new(command);
        Self(Arc::new(move |run| {
            let command = Arc::clone(&command);
            Box::pin(async move { command.execute(&run).await })
        }))
    }

    /// Executes a run. A panic fails the run and affects nothing else.
    pub(super) async fn execute(&self, run: RunInfo) -> Ending {
        let mut execution = (self.0)(run);
        poll_fn(|context| {
            // Not polled again after a panic.
            let polled = catch_unwind(AssertUnwindSafe(|| execution.as_mut().poll(context)));
            polled.unwrap_or_else(|payload| {
                let what = format!("the run's handler panicked: {}", panic_message(&*payload));
                Poll::Ready(Ending::failure(Reason::AbnormalExit, &what))
            })
        })
        .await
    }
}
