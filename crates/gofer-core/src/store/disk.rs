//! What keeps the store beyond the life of its process.
//!
//! The tables in memory are what is read; beside them, every change is written
//! to one redb file. An operation's changes are gathered while it holds the
//! tables' lock and handed over as one when it lets go, so the file holds
//! operations whole and in their order. A thread commits whatever has been
//! handed over since its last commit in one transaction, which is what lets
//! many callers share the wait for the disk. Nobody is answered before what the
//! answer tells of is on disk: see `Store::durable` and its one caller, the
//! router.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::watch;

use super::events::Progress;
use super::file::{self, RECORDS, commit};
use super::journal::{Journal, Kind, Record, Write, decode};
use super::seal::Seal;
use gofer_sdk::{Error, ErrorKind, Result};

/// The file, and the thread that writes it.
pub(super) struct Disk {
    queue: Arc<Queue>,
    committed: watch::Receiver<Committed>,
}

struct Queue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    /// Counts what was handed over.
    submitted: u64,
    /// The number of the newest event among it.
    last_event: i64,
    closed: bool,
}

/// How far the file is.
#[derive(Clone, Debug, Default)]
struct Committed {
    submitted: u64,
    /// Why nothing more is written.
    ended: Option<Arc<str>>,
}

impl Queue {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing in a critical section panics.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Opens the file, or makes it, and gives every record in it to `read`, in
    /// the order of their kinds.
    ///
    /// Events are announced through `progress` once they are on disk.
    pub(super) fn open(
        path: &Path,
        progress: watch::Sender<Progress>,
        seal: &Seal,
        mut read: impl FnMut(Record) -> Result<()>,
    ) -> Result<Self> {
        let shown = path.display();
        let database = file::open(path)?;
        let damaged = |what: &str| {
            Error::new(
                ErrorKind::FailedPrecondition,
                format!("the store `{shown}` is damaged ({what}); restore it from a backup"),
            )
        };
        let failed = |error: &dyn std::fmt::Display| damaged(&error.to_string());
        let transaction = database.begin_read().map_err(|error| failed(&error))?;
        // Without the table it is new.
        if let Ok(table) = transaction.open_table(RECORDS) {
            for record in table.iter().map_err(|error| failed(&error))? {
                let (key, value) = record.map_err(|error| failed(&error))?;
                let record = decode(key.value(), value.value(), seal);
                let kind = key.value().first();
                let sealed = [Kind::Secret, Kind::Registration];
                if record.is_none() && sealed.iter().any(|it| kind == Some(&(*it as u8))) {
                    return Err(Error::new(
                        ErrorKind::FailedPrecondition,
                        format!(
                            "the secrets in the store `{shown}` were encrypted with another key"
                        ),
                    ));
                }
                read(record.ok_or_else(|| damaged("a record cannot be read"))?)?;
            }
        }
        drop(transaction);
        let queue = Arc::new(Queue { pending: Mutex::default(), changed: Condvar::new() });
        let (committed, watched) = watch::channel(Committed::default());
        let writer = Writer { database, queue: Arc::clone(&queue), committed, progress };
        std::thread::Builder::new().name("gofer-store".to_owned()).spawn(|| writer.run())?;
        Ok(Self { queue, committed: watched })
    }

    /// Hands over what an operation changed, while it still holds the tables.
    pub(super) fn submit(&self, journal: &mut Journal, last_event: i64) {
        if journal.writes.is_empty() {
            return;
        }
        let mut pending = self.queue.pending();
        pending.writes.append(&mut journal.writes);
        pending.submitted += 1;
        pending.last_event = last_event;
        self.queue.changed.notify_one();
    }

    /// Waits until everything that was handed over so far is on disk.
    ///
    /// # Errors
    ///
    /// Why it is not and will not be.
    pub(super) async fn durable(&self) -> Result<(), Arc<str>> {
        let submitted = self.queue.pending().submitted;
        let mut committed = self.committed.clone();
        let reached = committed
            .wait_for(|it| it.submitted >= submitted || it.ended.is_some())
            .await
            .map(|it| (it.submitted >= submitted, it.ended.clone()));
        match reached {
            Ok((true, _)) => Ok(()),
            Ok((false, Some(why))) => Err(why),
            Ok((false, None)) | Err(_) => Err("the store is not written any more".into()),
        }
    }

    /// Writes what has been handed over and closes the file; returns once
    /// another process may open it.
    pub(super) async fn close(&self) {
        self.end();
        let mut committed = self.committed.clone();
        // Fails where the thread has ended, which is as good.
        let _ = committed.wait_for(|it| it.ended.is_some()).await;
    }

    fn end(&self) {
        self.queue.pending().closed = true;
        self.queue.changed.notify_one();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread that commits.
struct Writer {
    database: Database,
    queue: Arc<Queue>,
    committed: watch::Sender<Committed>,
    progress: watch::Sender<Progress>,
}

impl Writer {
    fn run(self) {
        let Self { database, queue, committed, progress } = self;
        let why: Arc<str> = loop {
            let (writes, submitted, last_event) = {
                let waiting = queue.changed.wait_while(queue.pending(), |pending| {
                    pending.writes.is_empty() && !pending.closed
                });
                let mut pending = waiting.unwrap_or_else(PoisonError::into_inner);
                if pending.writes.is_empty() {
                    break "the store is closed".into();
                }
                (std::mem::take(&mut pending.writes), pending.submitted, pending.last_event)
            };
            if let Err(error) = commit(&database, &writes) {
                // What is in memory is ahead of the disk now: nothing that is
                // told from here on could be relied on.
                tracing::error!(%error, "the store cannot be written");
                break "the store cannot be written; the core's log says why".into();
            }
            progress.send_modify(|it| it.last = it.last.max(last_event));
            committed.send_modify(|it| it.submitted = submitted);
        };
        drop(database);
        committed.send_modify(|it| it.ended = Some(why));
    }
}

#[cfg(test)]
mod tests;
