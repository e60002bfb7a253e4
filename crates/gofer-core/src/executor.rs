//! Executes runs: takes them from the store as they may be executed, hands each
//! to the handler, and tells the store how it ended.
//!
//! A handler is called at most once for each run, whatever happens to the core:
//! that a run is being executed is on disk before its handler is called.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::handler::RunHandler;
use super::store::{Ending, Job, Store};
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::internal::run_info;

/// For handlers to be dropped once they are cancelled. One that does not yield
/// by then holds up nobody: its run has been ended.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// The task that executes runs, until it is stopped or dropped.
pub(super) struct Executor {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Executor {
    /// Executes runs; when stopped, lets those that it has begun end within
    /// `grace`.
    pub(super) fn start(store: Arc<Store>, handler: RunHandler, grace: Duration) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(execute_all(store, handler, stop.clone(), grace));
        Self { stop, task: Mutex::new(Some(task)) }
    }

    /// Begins no more runs and sees those that have begun to their end.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // Nothing in it panics, and it is aborted by nobody but the drop.
            let _ = task.await;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn execute_all(
    store: Arc<Store>,
    handler: RunHandler,
    stop: CancellationToken,
    grace: Duration,
) {
    // Dropped with this task, and with it the handlers.
    let mut begun = JoinSet::new();
    loop {
        if stop.is_cancelled() {
            break;
        }
        while let Some(job) = store.next_run() {
            begun.spawn(execute(Arc::clone(&store), handler.clone(), job));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = store.run_waits() => {}
            Some(_) = begun.join_next() => {}
        }
    }
    if tokio::time::timeout(grace, all(&mut begun)).await.is_err() {
        let why = "the core was stopped while the run was being executed";
        store.end_running(&Ending::failure(Reason::SchedulerError, why));
        // What is left is aborted when `begun` is dropped.
        let _ = tokio::time::timeout(DROP_PATIENCE, all(&mut begun)).await;
    }
}

async fn all(begun: &mut JoinSet<()>) {
    while begun.join_next().await.is_some() {}
}

async fn execute(store: Arc<Store>, handler: RunHandler, job: Job) {
    let run = run_info(job.run.clone());
    // Even where the handler's own drop panics, the run ends.
    let mut conclusion = Conclusion { store: &store, job: &job, ending: None };
    let execution = async {
        match store.durable().await {
            Ok(()) => handler.execute(run).await,
            // Nothing that follows would be kept, the run's end included.
            Err(_) => pending().await,
        }
    };
    conclusion.ending = tokio::select! {
        biased;
        // The store knows how it ended.
        () = job.cancelled.cancelled() => None,
        ending = execution => Some(ending),
    };
}

/// Tells the store that an execution is over, however it came to that.
struct Conclusion<'a> {
    store: &'a Store,
    job: &'a Job,
    ending: Option<Ending>,
}

impl Drop for Conclusion<'_> {
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or_else(|| {
            let why = "the run's handler was dropped before it ended";
            Ending::failure(Reason::SchedulerError, why)
        });
        self.store.end_run(self.job, &ending);
    }
}
