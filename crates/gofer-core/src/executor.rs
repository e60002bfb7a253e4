//! Executes runs: takes those that may start from the store, passes each to the handler, and
//! reports its end to the store.
//!
//! The handler is called at most once for each run, even if the core crashes: that a run has
//! started is on disk before its handler is called.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::essential::EssentialTasks;
use super::handler::RunHandler;
use super::store::{Ending, Job, Store};
use super::sync::lock;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::internal::run_info;

/// How long cancelled handlers may take to be dropped. One that does not yield in this time is not
/// waited for: its run has already ended.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// Between attempts to record the end of a run while the store cannot be written.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// The task that executes runs until it is stopped or dropped.
pub(super) struct Executor {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Executor {
    /// Starts to execute runs. On a stop, running handlers have `grace` to end.
    pub(super) fn start(
        store: Arc<Store>,
        handler: RunHandler,
        grace: Duration,
        essential: &EssentialTasks,
    ) -> Self {
        let stop = CancellationToken::new();
        let executing = execute_all(store, handler, stop.clone(), grace);
        let task = essential.spawn("the execution of runs", executing);
        Self { stop, task: Mutex::new(Some(task)) }
    }

    /// Starts no more runs, and waits for those that are running, up to the grace period.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let task = lock(&self.task).take();
        if let Some(task) = task {
            // Only `drop` aborts it.
            let _ = task.await;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
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
    // If this task is dropped, so are the handlers.
    let mut executions = JoinSet::new();
    loop {
        if stop.is_cancelled() {
            break;
        }
        while let Some(job) = store.next_run() {
            executions.spawn(execute(Arc::clone(&store), handler.clone(), job));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = executions.join_next() => {}
            () = store.run_queued() => {}
        }
    }
    if tokio::time::timeout(grace, all(&mut executions)).await.is_err() {
        let why = "the core was stopped while the run was being executed";
        store.end_running(&Ending::failure(Reason::SchedulerError, why));
        // Those that are left are aborted when `executions` is dropped.
        let _ = tokio::time::timeout(DROP_TIMEOUT, all(&mut executions)).await;
    }
}

async fn all(executions: &mut JoinSet<()>) {
    while executions.join_next().await.is_some() {}
}

async fn execute(store: Arc<Store>, handler: RunHandler, job: Job) {
    let run = run_info(job.run.clone());
    let mut execution = Execution { store: &store, job: &job, is_over: false };
    if store.durable(job.mark).await.is_err() {
        // It waits again.
        execution.is_over = true;
        return;
    }
    let ending = tokio::select! {
        biased;
        // Cancelled by the store, which has ended the run.
        () = job.cancelled.cancelled() => Ending::dropped(),
        ending = handler.execute(run) => ending,
    };
    // If the store cannot be written, its end is recorded as soon as it can.
    while store.committed(|store| store.end_run(&job, &ending)).await.is_err() {
        tokio::time::sleep(STORE_AGAIN).await;
    }
    execution.is_over = true;
}

/// Reports the end of an execution to the store when it is dropped early, even by a panic while its
/// handler is dropped.
struct Execution<'a> {
    store: &'a Store,
    job: &'a Job,
    is_over: bool,
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // If it cannot be stored, the next core notices.
            let _ = self.store.end_run(self.job, &Ending::dropped());
        }
        self.store.release(self.job);
    }
}
