//! What a core cannot do without: if a part of it panics or fails for good, whoever runs the core
//! learns of it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Clones watch over parts of the same core.
#[derive(Clone, Default)]
pub(super) struct EssentialTasks(watch::Sender<Option<Arc<str>>>);

impl EssentialTasks {
    /// Spawns a task. `what` is what it does, as a noun.
    pub(super) fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let failing = self.watch(what);
        tokio::spawn(async move {
            // Moved in, so that it is dropped by the panic of the task.
            let _failing = failing;
            task.await;
        })
    }

    /// For work elsewhere, which owns what is returned. `what` is what it does, as a noun.
    pub(super) fn watch(&self, what: &'static str) -> Failing {
        Failing { what, failed: self.0.clone() }
    }

    /// Waits until one has failed, and returns the reason as a sentence.
    pub(super) async fn failed(&self) -> Arc<str> {
        let mut failed = self.0.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // `self` has a sender.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Reports a panic that it is dropped by.
pub(super) struct Failing {
    what: &'static str,
    failed: watch::Sender<Option<Arc<str>>>,
}

impl Failing {
    /// Reports that it is given up.
    #[cfg_attr(not(feature = "store"), expect(dead_code, reason = "only the store gives up"))]
    pub(super) fn report(&self, why: &str) {
        self.fail(&format!("{} has failed: {why}", self.what));
    }

    fn fail(&self, why: &str) {
        self.failed.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(why.into());
            }
            is_first
        });
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(&format!("{} has panicked; the log has the reason", self.what));
        }
    }
}
