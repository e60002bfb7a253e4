//! Keeps the store beyond the life of its process.
//!
//! Reads go to the tables in memory; every change is also written to one redb file. The changes of
//! an operation are collected while it holds the lock of the tables and submitted together when it
//! releases it, so the file holds whole operations in their order. A thread commits everything
//! submitted since its last commit in one transaction, so concurrent callers share one wait for the
//! disk. A response is sent only once the changes it reports are on disk: see `Store::durable` and
//! its one caller, the router.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::watch;

use super::events::EventProgress;
use super::file::{self, RECORDS, commit};
use super::journal::{Journal, Record, RecordKind, Write, decode};
use super::seal::Seal;
use crate::sync::lock;
use gofer_sdk::Result;

/// The file, and the thread that writes it.
pub(super) struct Disk {
    queue: Arc<WriteQueue>,
    committed: watch::Receiver<Committed>,
}

struct WriteQueue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    /// The number of submissions.
    submitted: u64,
    /// The number of the newest event among them.
    last_event: i64,
    closed: bool,
}

/// How much is in the file.
#[derive(Clone, Debug, Default)]
struct Committed {
    submitted: u64,
    /// Why nothing more is written, once that is so.
    ended: Option<Arc<str>>,
}

impl Disk {
    /// Opens or creates the file, and passes every record in it to `read`, in the order of their
    /// kinds.
    ///
    /// Events are announced through `progress` once they are on disk.
    pub(super) fn open(
        path: &Path,
        progress: watch::Sender<EventProgress>,
        seal: &Seal,
        mut read: impl FnMut(Record) -> Result<()>,
    ) -> Result<Self> {
        let shown = path.display();
        let database = file::open(path)?;
        let damaged = |what: &dyn Display| file::damaged(path, what);
        let transaction = database.begin_read().map_err(|error| damaged(&error))?;
        // A new file has no table.
        if let Ok(table) = transaction.open_table(RECORDS) {
            for record in table.iter().map_err(|error| damaged(&error))? {
                let (key, value) = record.map_err(|error| damaged(&error))?;
                let record = decode(key.value(), value.value(), seal);
                let kind = key.value().first();
                let sealed = [RecordKind::Secret, RecordKind::Registration];
                if record.is_none() && sealed.iter().any(|it| kind == Some(&(*it as u8))) {
                    return Err(file::refused(format!(
                        "the secrets in the store `{shown}` were encrypted with another key; set \
                         that key (GOFER_ENCRYPTION_KEY, `encryption_key`) or put it back in \
                         `{shown}.key`, or restore a backup of both"
                    )));
                }
                read(record.ok_or_else(|| damaged(&"a record cannot be read"))?)?;
            }
        }
        drop(transaction);
        let queue = Arc::new(WriteQueue { pending: Mutex::default(), changed: Condvar::new() });
        let (committed, watched) = watch::channel(Committed::default());
        let writer = Writer { database, queue: Arc::clone(&queue), committed, progress };
        std::thread::Builder::new().name("gofer-store".to_owned()).spawn(|| writer.run())?;
        Ok(Self { queue, committed: watched })
    }

    /// Submits the changes of an operation, which still holds the tables.
    pub(super) fn submit(&self, journal: &mut Journal, last_event: i64) {
        if journal.writes.is_empty() {
            return;
        }
        let mut pending = lock(&self.queue.pending);
        pending.writes.append(&mut journal.writes);
        pending.submitted += 1;
        pending.last_event = last_event;
        self.queue.changed.notify_one();
    }

    /// Waits until everything submitted so far is on disk.
    ///
    /// # Errors
    ///
    /// The reason if it never will be.
    pub(super) async fn durable(&self) -> Result<(), Arc<str>> {
        let submitted = lock(&self.queue.pending).submitted;
        let mut committed = self.committed.clone();
        let reached = committed
            .wait_for(|it| it.submitted >= submitted || it.ended.is_some())
            .await
            .map(|it| (it.submitted >= submitted, it.ended.clone()));
        match reached {
            Ok((true, _)) => Ok(()),
            Ok((false, Some(why))) => Err(why),
            Ok(_) | Err(_) => Err("the store has stopped writing; restart the core".into()),
        }
    }

    /// Writes everything submitted and closes the file. Returns once another process may open it.
    pub(super) async fn close(&self) {
        self.end();
        let mut committed = self.committed.clone();
        // Fails only if the thread has ended, which closes the file too.
        let _ = committed.wait_for(|it| it.ended.is_some()).await;
    }

    fn end(&self) {
        lock(&self.queue.pending).closed = true;
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
    queue: Arc<WriteQueue>,
    committed: watch::Sender<Committed>,
    progress: watch::Sender<EventProgress>,
}

impl Writer {
    fn run(self) {
        let Self { database, queue, committed, progress } = self;
        let why: Arc<str> = loop {
            let (writes, submitted, last_event) = {
                let waiting = queue.changed.wait_while(lock(&queue.pending), |pending| {
                    pending.writes.is_empty() && !pending.closed
                });
                let mut pending = waiting.unwrap_or_else(PoisonError::into_inner);
                if pending.writes.is_empty() {
                    break "the store is closed".into();
                }
                (std::mem::take(&mut pending.writes), pending.submitted, pending.last_event)
            };
            if let Err(error) = commit(&database, &writes) {
                // Memory is now ahead of the disk, so no later response could be relied on.
                tracing::error!(%error, "the store cannot be written");
                break "the store cannot be written; see the core's log".into();
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
