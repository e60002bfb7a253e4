//! Tasks that the server starts beside its own future, and that end with it.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that can be waited for, and that are dropped, whatever they wait for, if the server is.
#[derive(Default)]
pub(super) struct Tasks {
    tracked: TaskTracker,
    abandoned: CancellationToken,
}

impl Tasks {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracked.spawn(self.until_abandoned(task));
    }

    /// Spawns a task that [`ended`](Self::ended) does not wait for.
    pub(super) fn spawn_untracked(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.until_abandoned(task));
    }

    /// Waits until all have ended.
    pub(super) async fn ended(&self) {
        self.tracked.close();
        self.tracked.wait().await;
    }

    /// Drops them all, and those that are spawned from now on before they begin.
    pub(super) fn abandon(&self) {
        self.abandoned.cancel();
    }

    fn until_abandoned<F>(&self, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let abandoned = self.abandoned.clone();
        async move {
            tokio::select! {
                // First, so that the author's code does not go on once more.
                biased;
                () = abandoned.cancelled() => {}
                () = task => {}
            }
        }
    }
}
