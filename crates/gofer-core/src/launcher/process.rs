//! What runs an extension, whatever it is: watched without asking again and
//! again, and ended when nobody holds it any more.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::contact::lock;

/// How long may pass from the order to end at once to its having ended.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What runs an extension. It is ended at once when this is dropped.
pub(crate) struct Process {
    id: Option<u32>,
    ended: watch::Receiver<Option<Arc<str>>>,
    kill: DropGuard,
}

impl Process {
    /// `life` ends with a sentence about how the extension ended, and ends it at
    /// once where its token is cancelled. It is a task of its own, so that it is
    /// seen through where nobody waits for it.
    pub(super) fn new<F>(
        id: Option<u32>,
        lives: &TaskTracker,
        life: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        let kill = CancellationToken::new();
        let (tell, ended) = watch::channel(None);
        let life = life(kill.clone());
        lives.spawn(async move {
            let end = life.await;
            tell.send_replace(Some(end.into()));
        });
        Self { id, ended, kill: kill.drop_guard() }
    }

    /// The number of the process, where it has one of its own.
    pub(crate) fn id(&self) -> Option<u32> {
        self.id
    }

    /// How it ended, as a sentence; `None` while it runs.
    pub(crate) fn ended(&self) -> Option<Arc<str>> {
        self.ended.borrow().clone()
    }

    /// Waits for its end: how it ended, as a sentence.
    pub(crate) async fn end(&self) -> Arc<str> {
        self.watch().await
    }

    /// The same, without holding it.
    pub(crate) fn watch(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or_default(),
                // The runtime is being shut down.
                Err(_) => "it was ended with the core".into(),
            }
        }
    }

    /// Waits for its end, which has been asked for, and ends it after `patience`.
    pub(crate) async fn reap(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.end()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends it at once.
    pub(crate) async fn kill(&self) {
        self.kill.token().cancel();
        if tokio::time::timeout(KILL_TIMEOUT, self.end()).await.is_err() {
            tracing::warn!("an extension that was to be ended at once is still there");
        }
    }
}

/// What is being done to bring an extension up, as a sentence, for whoever looks
/// at it meanwhile.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<String>>);

impl Progress {
    pub(crate) fn tell(&self, doing: impl Into<String>) {
        *lock(&self.0) = doing.into();
    }

    pub(crate) fn told(&self) -> String {
        lock(&self.0).clone()
    }
}
