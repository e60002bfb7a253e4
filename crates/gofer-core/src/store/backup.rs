//! Backups: a copy of the file of one moment, sent while the store goes on, and written by whoever
//! receives it as the file of another store.

use std::io::{self, ErrorKind::AlreadyExists};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, WriteTransaction};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

use super::file::{self, StoreFile, VERSION};
use super::history::unreadable;
use super::journal::Part;
use super::seal::KeyFile;
use crate::caught::catch;
use crate::files::{NewFile, with_suffix};
use gofer_proto::embedded::{BackupHeader, BackupRecord, BackupRecords};

/// About how many bytes of records are sent at a time.
const CHUNK: usize = 64 << 10;

/// Chunks that wait to be read.
const UNREAD: usize = 4;

/// How long a reader may take for a chunk. As long as the copy is not read, redb cannot use the
/// space of what has been changed since.
const STALLED: Duration = Duration::from_secs(60);

/// What a store that is in a file is copied from.
pub(super) struct Source {
    pub(super) file: Arc<StoreFile>,
    /// If the key was not given.
    pub(super) key: Option<KeyFile>,
}

/// A backup under way. Dropping it ends the copy.
pub(crate) struct Backup {
    pub(crate) header: BackupHeader,
    pub(crate) records: mpsc::Receiver<BackupRecords>,
    /// How many records there are, once all have been sent.
    pub(crate) outcome: JoinHandle<Result<u64, Status>>,
}

impl Source {
    /// Begins a backup of what has been committed.
    ///
    /// # Errors
    ///
    /// If too many are under way.
    pub(super) async fn begin(&self) -> Result<Backup, Status> {
        let permit = self.file.begin_copy()?;
        let path = self.file.path().to_owned();
        let read = move || -> Result<_, Status> {
            Ok((beside(&path, ".crt")?, beside(&path, ".crt.key")?))
        };
        let beside = tokio::task::spawn_blocking(read).await;
        let (certificate, certificate_key) = beside.map_err(|it| failed(&it))??;
        let key = self.key.as_ref().map(KeyFile::text);
        let header = BackupHeader { version: VERSION, key, certificate, certificate_key };
        let (sender, records) = mpsc::channel(UNREAD);
        let file = Arc::clone(&self.file);
        let mut sender = Sender {
            to: sender,
            // Before the file is read, so that it is not closed unnoticed.
            closing: file.closing(),
            runtime: Handle::current(),
            chunk: BackupRecords::default(),
            bytes: 0,
            sent: 0,
        };
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            sender.copy(&file)
        });
        Ok(Backup { header, records, outcome })
    }
}

/// What a file beside the store holds, if there is one.
fn beside(store: &Path, suffix: &str) -> Result<Option<String>, Status> {
    let path = with_suffix(store, suffix);
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Status::failed_precondition(format!(
            "cannot read `{}`, which is part of a backup: {error}",
            path.display()
        ))),
        Ok(text) => Ok(Some(text)),
    }
}

fn failed(_: &tokio::task::JoinError) -> Status {
    Status::internal("the backup was not completed; the core may be stopping")
}

struct Sender {
    to: mpsc::Sender<BackupRecords>,
    closing: watch::Receiver<()>,
    runtime: Handle,
    chunk: BackupRecords,
    /// In the chunk.
    bytes: usize,
    sent: u64,
}

impl Sender {
    fn copy(&mut self, file: &StoreFile) -> Result<u64, Status> {
        let mut problem = None;
        let flow = file.copy(|part, key, value| match self.add(part, key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(status) => {
                problem = Some(status);
                ControlFlow::Break(())
            }
        })?;
        match (flow, problem) {
            (_, Some(status)) => Err(status),
            (ControlFlow::Break(()), None) => Err(unreadable("a record")),
            (ControlFlow::Continue(()), None) => {
                self.send()?;
                Ok(self.sent)
            }
        }
    }

    fn add(&mut self, part: Part, key: &[u8], value: &[u8]) -> Result<(), Status> {
        self.chunk.records.push(BackupRecord {
            is_history: part == Part::History,
            key: key.to_vec(),
            value: value.to_vec(),
        });
        self.bytes += key.len() + value.len();
        if self.bytes >= CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Status> {
        let Self { to, closing, runtime, chunk, bytes, sent } = self;
        let chunk = std::mem::take(chunk);
        *bytes = 0;
        *sent += chunk.records.len() as u64;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = closing.changed() => Err(Status::unavailable(
                    "the store was closed during the backup, or could not be written; try again",
                )),
                sent = timeout(STALLED, to.send(chunk)) => match sent {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(Status::cancelled("nobody reads the backup any more")),
                    Err(_) => Err(Status::deadline_exceeded(format!(
                        "the backup was not read for {} s", STALLED.as_secs()
                    ))),
                },
            }
        })
    }
}

/// A store that is written from a backup: whole, with what is beside it, or not at all. Dropping it
/// leaves nothing.
pub struct Restored {
    // Dropped in this order: the file is removed last.
    transaction: WriteTransaction,
    database: Database,
    new: NewFile,
    path: PathBuf,
    beside: Vec<(PathBuf, String)>,
    records: u64,
}

/// The files of a backup, and how many records are in it.
pub struct WrittenBackup {
    /// The store first.
    pub files: Vec<PathBuf>,
    /// Of the store.
    pub bytes: u64,
    /// In the store.
    pub records: u64,
}

impl Restored {
    /// Begins to write a store, which must not exist.
    ///
    /// # Errors
    ///
    /// If one of its files exists, or it cannot be created, or its version is another one.
    pub fn begin(path: &Path, header: BackupHeader) -> io::Result<Self> {
        if header.version != VERSION {
            return Err(io::Error::other(format!(
                "the core's store has version {}, and this program writes version {VERSION}; use \
                 the same version as the core",
                header.version
            )));
        }
        if let Some(taken) = Self::taken(path) {
            return Err(exists(&taken));
        }
        let BackupHeader { key, certificate, certificate_key, .. } = header;
        let beside = [(".crt.key", certificate_key), (".crt", certificate), (".key", key)];
        let beside = beside
            .into_iter()
            .filter_map(|(suffix, text)| text.map(|text| (with_suffix(path, suffix), text)));
        let beside = beside.collect();
        let new = NewFile::new(path)?;
        new.begin_private()?;
        let (database, transaction) = redb(|| {
            let database = Database::create(new.path())?;
            let transaction = database.begin_write()?;
            Ok((database, transaction))
        })?;
        Ok(Self { transaction, database, new, path: path.to_owned(), beside, records: 0 })
    }

    /// The first of the files of a store that exists.
    pub fn taken(path: &Path) -> Option<PathBuf> {
        let paths = ["", ".key", ".crt", ".crt.key"].map(|suffix| with_suffix(path, suffix));
        paths.into_iter().find(|path| std::fs::symlink_metadata(path).is_ok())
    }

    /// Adds records, as they are.
    ///
    /// # Errors
    ///
    /// If they cannot be written, or were changed on their way.
    pub fn add(&mut self, records: &[BackupRecord]) -> io::Result<()> {
        redb(|| file::insert(&self.transaction, records))?;
        self.records += records.len() as u64;
        Ok(())
    }

    /// Completes the store, if it has as many records as were sent.
    ///
    /// # Errors
    ///
    /// If it is not complete, one of its files exists by now, or they cannot be written.
    pub fn finish(self, sent: u64) -> io::Result<WrittenBackup> {
        let Self { transaction, database, new, path, beside, records } = self;
        if records != sent {
            return Err(io::Error::other(format!("{records} of {sent} records have arrived")));
        }
        redb(|| {
            transaction.commit()?;
            Ok(database.close()?)
        })?;
        let bytes = std::fs::metadata(new.path())?.len();
        let mut created = Created(Vec::new());
        let mut staged = Vec::new();
        for (path, text) in beside {
            let file = NewFile::new(&path)?;
            file.write(text.as_bytes(), 0o600)?;
            staged.push((file, path));
        }
        // The store last: it is of no use without the others.
        staged.push((new, path));
        for (file, path) in staged {
            created.0.push(path.clone());
            if !file.create()? {
                created.0.pop();
                return Err(exists(&path));
            }
        }
        let files = std::mem::take(&mut created.0).into_iter().rev().collect();
        Ok(WrittenBackup { files, bytes, records })
    }
}

/// Files that are removed when this is dropped.
struct Created(Vec<PathBuf>);

impl Drop for Created {
    fn drop(&mut self) {
        for path in &self.0 {
            // It may not have come that far.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn exists(path: &Path) -> io::Error {
    let shown = path.display();
    io::Error::new(AlreadyExists, format!("`{shown}` exists, and is not overwritten"))
}

/// Uses the library of the file, which panics at some errors.
fn redb<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> io::Result<T> {
    match catch(work) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(redb::Error::Io(error))) => Err(error),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(panic) => Err(io::Error::other(panic)),
    }
}

#[cfg(test)]
mod tests;
