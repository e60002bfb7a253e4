//! What an extension runs in, whatever it is: its end is awaited rather than polled, and it is
//! killed when its owner is dropped.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::LaunchSpec;
use crate::sync::lock;

/// How long a killed extension may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What an extension runs in. It is killed when this is dropped.
pub(crate) struct Process {
    /// The name of the extension.
    pub(crate) extension: String,
    id: Option<u32>,
    ended: watch::Receiver<Option<Arc<str>>>,
    kill: DropGuard,
    advice: Option<Advice>,
}

/// What to do about a failure, as far as what the extension has written shows it.
type Advice = Box<dyn Fn() -> Option<String> + Send + Sync>;

impl Process {
    /// `run` returns a sentence about how the extension ended, and kills it if its token is
    /// cancelled. It runs as a task of its own, so that it completes even if nobody waits for it.
    pub(super) fn new<F>(
        id: Option<u32>,
        spec: &LaunchSpec,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        let kill = CancellationToken::new();
        let (sender, ended) = watch::channel(None);
        let run = run(kill.clone());
        let until_gone = spec.until_gone.clone();
        spec.processes.spawn(async move {
            let end = run.await;
            drop(until_gone);
            sender.send_replace(Some(end.into()));
        });
        let kill = kill.drop_guard();
        Self { extension: spec.name.clone(), id, ended, kill, advice: None }
    }

    /// Has advice on failures.
    #[cfg(feature = "containers")]
    pub(super) fn with_advice(
        mut self,
        advice: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.advice = Some(Box::new(advice));
        self
    }

    /// Adds advice to a failure, if there is some that it does not have.
    pub(crate) fn explain(&self, failure: Status) -> Status {
        match self.advice.as_ref().and_then(|advice| advice()) {
            Some(advice) if !failure.message().contains(&advice) => {
                Status::new(failure.code(), format!("{}; {advice}", failure.message()))
            }
            _ => failure,
        }
    }

    /// The process ID, if it has a process of its own.
    pub(crate) fn id(&self) -> Option<u32> {
        self.id
    }

    /// How it ended, as a sentence; `None` while it is running.
    pub(crate) fn ended(&self) -> Option<Arc<str>> {
        self.ended.borrow().clone()
    }

    /// Waits for its end and returns how it ended, as a sentence.
    pub(crate) async fn end(&self) -> Arc<str> {
        self.watch().await
    }

    /// The same as [`end`](Self::end), without borrowing it.
    pub(crate) fn watch(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or_default(),
                // The runtime is shutting down.
                Err(_) => "it ended with the core".into(),
            }
        }
    }

    /// Waits for it to end, as it has been asked to, and kills it after `timeout`.
    pub(crate) async fn reap(&self, timeout: Duration) {
        if tokio::time::timeout(timeout, self.end()).await.is_err() {
            self.kill().await;
        }
    }

    pub(crate) async fn kill(&self) {
        self.kill.token().cancel();
        if tokio::time::timeout(KILL_TIMEOUT, self.end()).await.is_err() {
            tracing::warn!(extension = self.extension, "an extension was killed and has not ended");
        }
    }
}

/// The current step of bringing an extension up, as a sentence, for callers that ask for its
/// status.
#[derive(Clone, Default)]
pub(crate) struct LaunchProgress(Arc<Mutex<String>>);

impl LaunchProgress {
    pub(crate) fn report(&self, step: impl Into<String>) {
        *lock(&self.0) = step.into();
    }

    pub(crate) fn message(&self) -> String {
        lock(&self.0).clone()
    }
}
