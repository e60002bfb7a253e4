//! Tasks that a core cannot do without: if one of them panics, whoever runs the core learns of it.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Clones spawn tasks of the same core.
#[derive(Clone, Default)]
pub(super) struct EssentialTasks(watch::Sender<Option<&'static str>>);

impl EssentialTasks {
    /// Spawns a task. `what` is what it does, as a noun.
    pub(super) fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let report = ReportPanic { what, panicked: self.0.clone() };
        tokio::spawn(async move {
            // Moved in, so that it is dropped by the panic of the task.
            let _report = report;
            task.await;
        })
    }

    /// Waits until one has panicked, and returns what it did.
    pub(super) async fn panicked(&self) -> &'static str {
        let mut panicked = self.0.subscribe();
        match panicked.wait_for(Option::is_some).await {
            Ok(what) => what.unwrap_or_default(),
            // `self` has a sender.
            Err(_) => std::future::pending().await,
        }
    }
}

struct ReportPanic {
    what: &'static str,
    panicked: watch::Sender<Option<&'static str>>,
}

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.panicked.send_if_modified(|first| first.replace(self.what).is_none());
        }
    }
}
