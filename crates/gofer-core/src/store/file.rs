//! The file of a store: created whole, opened only if what is alive in it is intact and of a known
//! version, and written one transaction at a time.
//!
//! It has two tables: what is alive, which is read when the file is opened, and the history. Each
//! record ends with a checksum, which is verified when the record is read: redb itself verifies
//! those of its pages only in a file that has not been closed.

mod upgrade;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::ErrorKind::{InvalidData, NotFound, PermissionDenied, UnexpectedEof};
use std::io::{self, Read as _};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, TableDefinition, TableError, WriteTransaction,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::backing::{Backing, Staged, Staging, SystemFile};
use super::history::{Found, Order, unreadable};
use super::journal::{Part, Record, RecordKind, Write, decode};
use super::seal::Seal;
use crate::caught::catch;
use crate::files::NewFile;
use crate::sync::lock;
use gofer_proto::embedded::BackupRecord;
use gofer_sdk::{Error, ErrorKind, Result};

/// What is alive. A record's kind is the first byte of its key. In version 2 and before, everything.
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// The history.
const HISTORY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("history");

/// The layout of the records. Newer ones are refused. Version 2 added the options of extensions,
/// of which any may be absent; version 3 checksums, and the history as a table of its own.
pub(super) const VERSION: u32 = 3;

/// Bytes of the file that are cached.
const CACHE: usize = 32 << 20;

/// A file is compacted on a clean stop if it is larger than this, and than twice what it needs.
const WORTH_COMPACTING: u64 = 16 << 20;

/// An open store.
pub(super) struct StoreFile {
    /// For errors.
    path: PathBuf,
    backing: Arc<dyn Backing>,
    staging: Mutex<Staging>,
    /// `None` while it is opened again after a failure, and once it is closed.
    database: RwLock<Option<Database>>,
    /// Notified when the file is about to be closed, for which copies must end.
    closing: watch::Sender<()>,
    copies: Arc<Semaphore>,
}

/// Copies at a time. Each keeps a thread, and the file from using again what is deleted meanwhile.
const COPIES: usize = 4;

/// Bytes at the end of each record.
const CHECKSUM: usize = 4;

/// How each file of redb begins.
const MAGIC: &[u8] = b"redb";

/// A table of the file.
type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl StoreFile {
    /// Opens a file that is intact and of a known version, or creates one. What is alive in it is
    /// passed to `read`. Until it is [accepted](Self::accept), the file is left as it is.
    pub(super) fn open(
        path: &Path,
        backing: Option<Arc<dyn Backing>>,
        seal: &Seal,
        read: impl FnMut(Record) -> Result<()>,
    ) -> Result<Self> {
        let shown = path.display();
        let cannot = |what: &str, error: &dyn Display| {
            refused(format!("the store `{shown}` cannot be {what}: {error}"))
        };
        let is_new = std::fs::metadata(path).is_err_and(|error| error.kind() == NotFound);
        if backing.is_none() && is_new {
            create(path).map_err(|error| cannot("created", &error))?;
        }
        let backing = backing.unwrap_or_else(|| Arc::new(SystemFile(path.to_owned())));
        let storage = backing.open().map_err(|error| explain(path, error.into()))?;
        let (staged, staging) = Staged::new(storage).map_err(|error| cannot("opened", &error))?;
        let database = database(staged).map_err(|error| explain(path, error))?;
        let release = || staging.release().map_err(|error| cannot("opened", &error));
        match check(path, &database)? {
            Content::Empty => {
                release()?;
                begin(&database).map_err(|error| cannot("created", &error))?;
            }
            Content::Earlier => {
                upgrade::check(path, &database, seal)?;
                release()?;
                upgrade::upgrade(path, &database)?;
            }
            Content::Current => {}
        }
        alive(path, &database, seal, read)?;
        Ok(Self {
            path: path.to_owned(),
            backing,
            staging: Mutex::new(staging),
            database: RwLock::new(Some(database)),
            closing: watch::Sender::new(()),
            copies: Arc::new(Semaphore::new(COPIES)),
        })
    }

    /// Repairs the file if it was not closed, and writes to it from now on.
    pub(super) fn accept(&self) -> Result<()> {
        let shown = self.path.display();
        let released = lock(&self.staging).release();
        released.map_err(|error| refused(format!("the store `{shown}` cannot be opened: {error}")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file again after a failure, after which redb refuses everything. It is only read
    /// until [`try_write`](Self::try_write) has succeeded.
    ///
    /// # Errors
    ///
    /// If it cannot be read; of the kind [`ErrorKind::Unavailable`] if it perhaps can later.
    pub(super) fn reopen(&self) -> Result<()> {
        self.closing.send_replace(());
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // First, since it locks the file.
        drop(place.take());
        let opened = catch(|| {
            let (storage, staging) = Staged::new(self.backing.open()?)?;
            *lock(&self.staging) = staging;
            database(storage)
        });
        let opened = opened.unwrap_or_else(|panic| Err(StorageError::Corrupted(panic).into()));
        *place = Some(opened.map_err(|error| explain(&self.path, error))?);
        Ok(())
    }

    /// Passes what is alive to `read`.
    pub(super) fn alive(&self, seal: &Seal, read: impl FnMut(Record) -> Result<()>) -> Result<()> {
        let place = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = place.as_ref().ok_or_else(|| refused("the store is closed".to_owned()))?;
        catch(|| alive(&self.path, database, seal, read))
            .unwrap_or_else(|panic| Err(damaged(&self.path, &panic)))
    }

    /// A record of the history.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Status> {
        self.read_history(|table| {
            let Some(found) = table.get(key)? else { return Ok(None) };
            Ok(Some(intact(key, found.value()).map(Bytes::copy_from_slice)))
        })?
        .map(|found| found.ok_or_else(|| unreadable("a record of the history")))
        .transpose()
    }

    /// Passes each record of the history in a range to `visit`, damaged or not, until that breaks.
    pub(super) fn visit(
        &self,
        range: &Range<Vec<u8>>,
        order: Order,
        mut visit: impl FnMut(&[u8], Found<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Status> {
        self.read_history(|table| {
            let mut records = table.range(&*range.start..&*range.end)?;
            loop {
                let next = match order {
                    Order::OldestFirst => records.next(),
                    Order::NewestFirst => records.next_back(),
                };
                let Some(record) = next else { return Ok(ControlFlow::Continue(())) };
                let (key, value) = record?;
                let (key, value) = (key.value(), value.value());
                let length = value.len().saturating_sub(CHECKSUM);
                if visit(key, Found { record: intact(key, value), length }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        })
    }

    /// Changes when the file is about to be closed. It waits for a [copy](Self::copy) to end.
    pub(super) fn closing(&self) -> watch::Receiver<()> {
        self.closing.subscribe()
    }

    /// Allows a [copy](Self::copy) until it is dropped.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub(super) fn begin_copy(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.copies).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{COPIES} backups are being made already; wait until one of them has ended"
            ))
        })
    }

    /// Passes all records of one moment to `visit`, with their checksums, until that breaks. Breaks
    /// at a record that is damaged.
    pub(super) fn copy(
        &self,
        mut visit: impl FnMut(Part, &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Status> {
        let place = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*place else { return Err(reopened()) };
        let copy = || -> Result<_, redb::Error> {
            let transaction = database.begin_read()?;
            for (part, table) in [(Part::Alive, RECORDS), (Part::History, HISTORY)] {
                for record in transaction.open_table(table)?.iter()? {
                    let (key, value) = record?;
                    let (key, value) = (key.value(), value.value());
                    if intact(key, value).is_none() || visit(part, key, value).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        read_outcome(catch(copy), "the store")
    }

    fn read_history<T>(
        &self,
        read: impl FnOnce(&Table) -> Result<T, redb::Error>,
    ) -> Result<T, Status> {
        let place = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*place else { return Err(reopened()) };
        let outcome = catch(|| read(&database.begin_read()?.open_table(HISTORY)?));
        read_outcome(outcome, "the history")
    }

    /// Writes all of the records or none; of several with one key, the last.
    pub(super) fn commit(&self, writes: &[Write]) -> Result<(), redb::Error> {
        let place = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = place.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        catch(|| commit(database, writes))
            .unwrap_or_else(|panic| Err(redb::Error::Corrupted(panic)))
    }

    /// Writes what was held back since the file was opened again, and a record that is there already,
    /// to see whether the file can be written.
    pub(super) fn try_write(&self) -> Result<(), redb::Error> {
        lock(&self.staging).release()?;
        let place = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = place.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        catch(|| begin(database)).unwrap_or_else(|panic| Err(redb::Error::Corrupted(panic)))
    }

    /// Closes the file, compacting it first if it is far larger than `needed` bytes. One that cannot be
    /// written is not compacted: that would happen in memory.
    pub(super) fn close(&self, needed: u64) {
        self.closing.send_replace(());
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(mut database) = place.take() else { return };
        let length = lock(&self.staging).length().ok().flatten().unwrap_or(0);
        let closed = catch(|| {
            if length > WORTH_COMPACTING && length / 2 > needed {
                database.compact().map_err(redb::Error::from)?;
            }
            database.close().map_err(redb::Error::from)
        });
        let problem = match closed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        tracing::warn!(
            problem,
            "the store was not closed cleanly; it is repaired when it is opened"
        );
    }
}

fn reopened() -> Status {
    Status::unavailable("the store is being opened again; try again")
}

/// The outcome of a reading, which may have panicked.
fn read_outcome<T>(
    outcome: Result<Result<T, redb::Error>, String>,
    what: &str,
) -> Result<T, Status> {
    outcome.map_err(|_panic| unreadable(what))?.map_err(|error| match error {
        redb::Error::Corrupted(_) => unreadable(what),
        error => Status::unavailable(format!("the store cannot be read: {error}; try again")),
    })
}

fn database(storage: Staged) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).create_with_backend(storage)
}

/// Passes each record that is alive to `read`.
fn alive(
    path: &Path,
    database: &Database,
    seal: &Seal,
    mut read: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let damaged = |what: &dyn Display| damaged(path, what);
    let cannot = |error: redb::Error| match error {
        redb::Error::Io(error) if !is_damage(&error) => cannot_read(path, &error),
        error => damaged(&error),
    };
    let transaction = database.begin_read().map_err(|error| cannot(error.into()))?;
    let table = transaction.open_table(RECORDS).map_err(|error| cannot(error.into()))?;
    let mut count = 0;
    for record in table.iter().map_err(|error| cannot(error.into()))? {
        let (key, value) = record.map_err(|error| cannot(error.into()))?;
        let intact = intact(key.value(), value.value());
        let value = intact.ok_or_else(|| damaged(&"a record has another checksum"))?;
        read(record_of(path, key.value(), value, seal)?)?;
        count += 1;
    }
    if table.len().map_err(|error| cannot(error.into()))? != count {
        return Err(damaged(&"records are missing"));
    }
    // That it can be read, too.
    match transaction.open_table(HISTORY) {
        Ok(_) | Err(TableError::TableDoesNotExist(_)) => Ok(()),
        Err(error) => Err(cannot(error.into())),
    }
}

/// Whether a file is shorter than it was, or begins otherwise.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

/// A record of what is alive.
fn record_of(path: &Path, key: &[u8], value: &[u8], seal: &Seal) -> Result<Record> {
    decode(key, value, seal).ok_or_else(|| {
        let sealed = [RecordKind::Secret, RecordKind::Registration];
        if !sealed.iter().any(|kind| key.first() == Some(&(*kind as u8))) {
            return damaged(path, &"a record cannot be read");
        }
        let shown = path.display();
        refused(format!(
            "the secrets in the store `{shown}` were encrypted with another key; set that key \
             (GOFER_ENCRYPTION_KEY, `encryption_key`) or put it back in `{shown}.key`, or restore a \
             backup of both"
        ))
    })
}

/// A record without its checksum, if it is the right one.
fn intact<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (value, checksum) = value.split_last_chunk()?;
    (checksum_of(key, value) == *checksum).then_some(value)
}

/// Of the key too, so that a record is not taken for another one.
fn checksum_of(key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(key);
    checksum.update(value);
    checksum.finalize().to_be_bytes()
}

/// Whether there is a store already, which is not empty. Refused if it is something else.
pub(super) fn exists(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|it| it.take(MAGIC.len() as u64).read_to_end(&mut start));
    match read {
        Err(error) if error.kind() == NotFound => Ok(false),
        Ok(0) => Ok(false),
        Ok(_) if start == MAGIC => Ok(true),
        Ok(_) => Err(explain(path, io::Error::new(InvalidData, "it begins otherwise").into())),
        Err(error) => Err(explain(path, error.into())),
    }
}

/// Refuses a path where there can be no store, before anything is created.
pub(super) fn check_place(path: &Path) -> Result<()> {
    let shown = path.display();
    if std::fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        let why = format!("the store `{shown}` cannot be opened: it is not a regular file");
        return Err(refused(why));
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    match parent.map(|it| (it.display(), std::fs::metadata(it))) {
        Some((parent, Err(error))) if error.kind() == NotFound => Err(refused(format!(
            "the store `{shown}` cannot be created: there is no directory `{parent}`"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn refused(why: String) -> Error {
    Error::new(ErrorKind::FailedPrecondition, why)
}

pub(super) fn damaged(path: &Path, what: &dyn Display) -> Error {
    let shown = path.display();
    refused(format!(
        "the store `{shown}` is damaged ({what}); restore it from a backup, with its key"
    ))
}

/// Perhaps it can later.
pub(super) fn cannot_read(path: &Path, why: &dyn Display) -> Error {
    Error::unavailable(format!("the store `{}` cannot be opened: {why}", path.display()))
}

fn explain(path: &Path, error: DatabaseError) -> Error {
    let shown = path.display();
    refused(match error {
        DatabaseError::DatabaseAlreadyOpen => {
            format!(
                "the store `{shown}` is in use by another process; stop that process first, or start \
                 on another file"
            )
        }
        DatabaseError::UpgradeRequired(version) => format!(
            "the store `{shown}` has the file format {version} of another version; use the version \
             that it was made with"
        ),
        DatabaseError::Storage(StorageError::Io(error)) if is_damage(&error) => format!(
            "`{shown}` is not a store of a Gofer core, or is damaged ({error}); restore it from a \
             backup, or start on another file"
        ),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == PermissionDenied => {
            format!(
                "the store `{shown}` cannot be opened: {error}; start the core as the user that \
                 the file belongs to"
            )
        }
        DatabaseError::Storage(StorageError::Io(error)) => return cannot_read(path, &error),
        error => return damaged(path, &error),
    })
}

/// Creates the file, whole or not at all, for its owner alone: most of it is not encrypted. A
/// process that is killed half-way leaves a temporary file beside it, which is never read.
fn create(path: &Path) -> Result<(), redb::Error> {
    let new = NewFile::new(path)?;
    new.begin_private()?;
    let database = Database::create(new.path())?;
    begin(&database)?;
    database.close()?;
    new.create()?;
    Ok(())
}

fn begin(database: &Database) -> Result<(), redb::Error> {
    commit(database, &[version_record()])
}

fn version_record() -> Write {
    let key = RecordKind::Version.key(&[], None);
    Write { of: Part::Alive, key, value: Some(Bytes::copy_from_slice(&VERSION.to_be_bytes())) }
}

enum Content {
    /// New, or not finished by the process that created it.
    Empty,
    /// Of an earlier version.
    Earlier,
    Current,
}

fn check(path: &Path, database: &impl ReadableDatabase) -> Result<Content> {
    let shown = path.display();
    match version(database) {
        Ok(None) => Ok(Content::Empty),
        Ok(Some(VERSION)) => Ok(Content::Current),
        Ok(Some(version)) if version < VERSION => Ok(Content::Earlier),
        Ok(Some(version)) => Err(refused(format!(
            "the store `{shown}` has version {version}, and this program reads versions up to \
             {VERSION}; use a newer version of this program"
        ))),
        Err(error) => Err(refused(format!(
            "`{shown}` is not a store of a Gofer core, or is damaged ({error}); restore it from a backup, or \
             start on another file"
        ))),
    }
}

/// `None` if the file is empty.
fn version(database: &impl ReadableDatabase) -> Result<Option<u32>, redb::Error> {
    let transaction = database.begin_read()?;
    if transaction.list_tables()?.next().is_none() {
        return Ok(None);
    }
    let table = transaction.open_table(RECORDS)?;
    let found = table.get(&*RecordKind::Version.key(&[], None))?;
    // Of version 3 and later, a checksum follows.
    let version = found.and_then(|it| Some(u32::from_be_bytes(*it.value().first_chunk()?)));
    version.map(Some).ok_or_else(|| redb::Error::Corrupted("it has no version".to_owned()))
}

/// Writes all of the records or none. In the order of their keys, so that each page is found once.
pub(super) fn commit(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let last: BTreeMap<_, _> = writes.iter().map(|it| ((it.of, &*it.key), &it.value)).collect();
    let transaction = database.begin_write()?;
    {
        let mut alive = transaction.open_table(RECORDS)?;
        let mut history = transaction.open_table(HISTORY)?;
        let mut record = Vec::new();
        for ((of, key), value) in last {
            let table = match of {
                Part::Alive => &mut alive,
                Part::History => &mut history,
            };
            match value {
                Some(value) => {
                    record.clear();
                    record.extend_from_slice(value);
                    record.extend(checksum_of(key, value));
                    drop(table.insert(key, &*record)?);
                }
                None => drop(table.remove(key)?),
            }
        }
    }
    Ok(transaction.commit()?)
}

/// Inserts records that have their checksums, which must be right.
pub(super) fn insert(
    transaction: &WriteTransaction,
    records: &[BackupRecord],
) -> Result<(), redb::Error> {
    let mut alive = transaction.open_table(RECORDS)?;
    let mut history = transaction.open_table(HISTORY)?;
    for BackupRecord { is_history, key, value } in records {
        if intact(key, value).is_none() {
            return Err(redb::Error::Corrupted("a record has another checksum".to_owned()));
        }
        let table = if *is_history { &mut history } else { &mut alive };
        table.insert(&**key, &**value)?;
    }
    Ok(())
}
