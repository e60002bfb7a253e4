//! Keeps the store beyond the life of its process.
//!
//! What is alive is read from the tables in memory; every change is also written to one redb file.
//! The changes of an operation are collected while it holds the lock of the tables and submitted
//! together when it releases it, so the file holds whole operations in their order. A writer commits
//! everything submitted since its last commit in one transaction, so concurrent callers share one
//! wait for the disk. A response is sent only once the changes it reports are on disk: see
//! `Store::durable`.
//!
//! If a commit fails, for example because the disk is full, nothing has changed: the tables become
//! what the file holds, then those who wait for the changes get an error, and further changes are
//! refused until the file can be written again, which is tried every [`RETRY_AFTER`]. Reading goes on.
//! What was undone before its caller began to wait is noticed by a [`Mark`], which the caller has taken
//! before the change.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::Tables;
use super::events::EventProgress;
use super::file::StoreFile;
use super::history::History;
use super::journal::{Journal, Part, Write};
use crate::essential::{EssentialTasks, Failing};
use crate::sync::lock;
use gofer_net::{Promise, Promised, Throttle, promise};
use gofer_proto::Run;
use gofer_sdk::{Error, ErrorKind, Result};

/// Between two attempts to write again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a file that cannot even be opened again is tried.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The end of the writer that submits to it.
pub(super) struct Disk {
    queue: Arc<Queue>,
    history: Arc<History>,
}

struct Queue {
    pending: Mutex<Pending>,
    /// Notified when there is something to do.
    changed: Notify,
    /// Whether the file has been closed.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    /// That of the commit under way, or of the one that failed until it is undone.
    committing: Option<Promised<Outcome>>,
    /// Why changes are refused, while they are.
    refused: Option<Arc<str>>,
    /// Taken by whoever reads or changes something now.
    mark: Mark,
    /// The file is to be closed.
    closing: bool,
    /// What the file needs; see [`Disk::close`].
    needed: u64,
}

/// Taken before something is read or changed, to wait for afterwards: see `Store::mark`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// How often changes have been undone.
    undone: u64,
    /// Whether the tables have what could not be written, and is about to be undone.
    is_ahead: bool,
}

/// Whether a batch has been written, or why not.
type Outcome = Result<(), Arc<str>>;

/// What is written in one transaction.
struct Batch {
    writes: Vec<Write>,
    /// The number of the newest submission.
    submission: u64,
    /// The number of the newest event.
    last_event: i64,
    /// Runs that have been accepted, for those that watch.
    started: Vec<Run>,
    promise: Promise<Outcome>,
    outcome: Promised<Outcome>,
}

impl Default for Batch {
    fn default() -> Self {
        let (promise, outcome) = promise();
        let (writes, started) = (Vec::new(), Vec::new());
        Self { writes, submission: 0, last_event: 0, started, promise, outcome }
    }
}

/// What the writer tells others about.
pub(super) struct Listeners {
    pub(super) progress: watch::Sender<EventProgress>,
    pub(super) started: tokio::sync::broadcast::Sender<Run>,
    /// Called when changes have been undone.
    pub(super) rolled_back: Box<dyn Fn() + Send + Sync>,
    /// Called after a failure, once changes are accepted again.
    pub(super) writable: Box<dyn Fn() + Send + Sync>,
}

impl Disk {
    pub(super) fn new(history: Arc<History>) -> Self {
        let queue = Queue {
            pending: Mutex::default(),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
        };
        Self { queue: Arc::new(queue), history }
    }

    /// Starts to write, in a thread of its own or as a task of this runtime.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub(super) fn start(
        &self,
        file: Arc<StoreFile>,
        tables: Arc<Mutex<Tables>>,
        listeners: Listeners,
        essential: &EssentialTasks,
        on_runtime: bool,
    ) -> Result<()> {
        let failing = essential.watch("the writing of the store");
        let (queue, history) = (Arc::clone(&self.queue), Arc::clone(&self.history));
        let failures = Throttle::default();
        let writer = Writer { file, queue, history, tables, listeners, failing, failures };
        if on_runtime {
            tokio::spawn(writer.run());
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let work = move || runtime.block_on(writer.run());
        std::thread::Builder::new().name("gofer-store".to_owned()).spawn(work)?;
        Ok(())
    }

    /// Whether changes are accepted. Asked while the tables are locked.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub(super) fn check_writable(&self) -> Result<(), Status> {
        let pending = lock(&self.queue.pending);
        if pending.closing {
            return Err(Status::unavailable("the store is closed: the core is stopping"));
        }
        match &pending.refused {
            None => Ok(()),
            Some(why) => Err(not_written(why)),
        }
    }

    /// Submits the changes of an operation, which still holds the tables.
    pub(super) fn submit(&self, journal: &mut Journal, last_event: i64, started: &mut Vec<Run>) {
        if journal.writes.is_empty() {
            return;
        }
        let submission = self.history.submitted();
        let mut pending = lock(&self.queue.pending);
        let batch = &mut pending.batch;
        if batch.writes.is_empty() {
            mem::swap(&mut batch.writes, &mut journal.writes);
        } else {
            batch.writes.append(&mut journal.writes);
        }
        batch.started.append(started);
        batch.submission = submission;
        batch.last_event = last_event;
        self.queue.changed.notify_one();
    }

    pub(super) fn mark(&self) -> Mark {
        lock(&self.queue.pending).mark
    }

    /// Waits until everything is on disk that has been read or changed since the mark was taken.
    ///
    /// # Errors
    ///
    /// If it cannot be written, once it has been undone. At once if the mark was taken between the
    /// failure and that: nothing could be changed then.
    pub(super) async fn durable(&self, since: Mark) -> Result<(), Status> {
        let outcome = {
            let pending = lock(&self.queue.pending);
            if since.is_ahead || since.undone != pending.mark.undone {
                let why = pending.refused.as_deref();
                return Err(not_written(why.unwrap_or("a write has failed")));
            }
            if pending.batch.writes.is_empty() {
                pending.committing.clone()
            } else {
                Some(pending.batch.outcome.clone())
            }
        };
        let Some(outcome) = outcome else { return Ok(()) };
        match outcome.wait().await {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(not_written(&why)),
            None => Err(not_written("the store has stopped writing")),
        }
    }

    /// Writes everything submitted and closes the file. Returns once another process may open it.
    /// A file that is far larger than `needed` is compacted.
    pub(super) async fn close(&self, needed: u64) {
        lock(&self.queue.pending).needed = needed;
        self.end();
        // `self` has a sender.
        let _ = self.queue.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn end(&self) {
        lock(&self.queue.pending).closing = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

fn not_written(why: &str) -> Status {
    Status::unavailable(format!(
        "the change was not made, since the store cannot be written ({why}); it can be tried again"
    ))
}

/// Commits what is submitted.
struct Writer {
    file: Arc<StoreFile>,
    queue: Arc<Queue>,
    history: Arc<History>,
    tables: Arc<Mutex<Tables>>,
    listeners: Listeners,
    failing: Failing,
    failures: Throttle,
}

impl Writer {
    async fn run(self) {
        let closed = Closed(&self.queue);
        let Self { file, queue, .. } = &self;
        loop {
            let (batch, closing) = {
                let mut pending = lock(&queue.pending);
                let batch = mem::take(&mut pending.batch);
                if !batch.writes.is_empty() {
                    pending.committing = Some(batch.outcome.clone());
                }
                (batch, pending.closing)
            };
            if batch.writes.is_empty() {
                if closing {
                    break;
                }
                queue.changed.notified().await;
                continue;
            }
            match file.commit(&batch.writes) {
                Ok(()) => self.committed(batch),
                Err(error) => {
                    // Once a second on a disk that has room for something small only.
                    let failures = self.failures.record();
                    if let Some(failures) = failures {
                        tracing::error!(
                            %error, failures,
                            "the store cannot be written; changes are refused until it can"
                        );
                    }
                    if !self.recover(batch, &error.to_string()).await {
                        break;
                    }
                    if failures.is_some() {
                        tracing::info!("the store can be written again");
                    }
                }
            }
        }
        let needed = lock(&queue.pending).needed;
        file.close(needed);
        drop(closed);
    }

    fn committed(&self, batch: Batch) {
        let keys = batch.writes.iter().filter(|it| it.of == Part::History).map(|it| &*it.key);
        self.history.committed(keys, batch.submission);
        lock(&self.queue.pending).committing = None;
        for run in batch.started {
            // Nobody may be watching.
            let _ = self.listeners.started.send(run);
        }
        self.listeners.progress.send_modify(|it| it.last = it.last.max(batch.last_event));
        batch.promise.keep(Ok(()));
    }

    /// Undoes in memory what could not be written, and waits until the file can be written again.
    /// Returns false if that is given up, or the file is to be closed.
    async fn recover(&self, failed: Batch, why: &str) -> bool {
        let why: Arc<str> = why.into();
        {
            let mut pending = lock(&self.queue.pending);
            pending.refused = Some(Arc::clone(&why));
            pending.mark.is_ahead = true;
        }
        let begun = Instant::now();
        let submitted = loop {
            match self.file.reopen().and_then(|()| self.roll_back()) {
                Ok(submitted) => break submitted,
                Err(error) if is_final(&error) || begun.elapsed() > GIVE_UP_AFTER => {
                    return self.give_up(&error);
                }
                Err(_) if !self.pause().await => return false,
                Err(_) => {}
            }
        };
        for batch in [failed, submitted] {
            batch.promise.keep(Err(Arc::clone(&why)));
        }
        loop {
            if !self.pause().await {
                return false;
            }
            let writable = self.file.reopen().and_then(|()| match self.file.try_write() {
                Ok(()) => Ok(true),
                // A file that failed to be written cannot be read either until it is opened again.
                Err(_) => self.file.reopen().map(|()| false),
            });
            match writable {
                Ok(true) => break,
                Err(error) if is_final(&error) => return self.give_up(&error),
                Ok(false) | Err(_) => {}
            }
        }
        lock(&self.queue.pending).refused = None;
        (self.listeners.writable)();
        true
    }

    fn give_up(&self, error: &Error) -> bool {
        self.failing.report(&format!("the store cannot be read again: {error}"));
        false
    }

    /// Before another attempt. Returns false if there is to be none.
    async fn pause(&self) -> bool {
        sleep(RETRY_AFTER).await;
        !lock(&self.queue.pending).closing
    }

    /// Makes the tables what the file holds. Returns what has been submitted and is not in it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read. It can be tried again.
    fn roll_back(&self) -> Result<Batch> {
        // Nothing can be submitted meanwhile.
        let mut tables = lock(&self.tables);
        self.history.roll_back();
        tables.roll_back(&self.file)?;
        let submitted = {
            let mut pending = lock(&self.queue.pending);
            pending.mark = Mark { undone: pending.mark.undone + 1, is_ahead: false };
            pending.committing = None;
            mem::take(&mut pending.batch)
        };
        drop(tables);
        (self.listeners.rolled_back)();
        Ok(submitted)
    }
}

/// Whether there is no use in reading the file again, as if it is damaged.
fn is_final(error: &Error) -> bool {
    error.kind() != ErrorKind::Unavailable
}

/// Says so when the file is closed, also after a panic.
struct Closed<'a>(&'a Queue);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.0.pending);
        pending.closing = true;
        // What has been submitted is never written.
        drop(mem::take(&mut pending.batch));
        drop(pending);
        self.0.closed.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
