//! The file of a store: created whole, opened only if it is intact and of a known version, and
//! written one transaction at a time.

use std::fmt::Display;
use std::io::ErrorKind::{InvalidData, NotFound, PermissionDenied, UnexpectedEof};
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, StorageBackend as _, StorageError, TableDefinition,
};

use super::journal::{RecordKind, Write};
use crate::files::NewFile;
use gofer_sdk::{Error, ErrorKind, Result};

/// One table: a record's kind is the first byte of its key.
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// The layout of the records. Newer ones are refused. Version 2 added the options of extensions,
/// of which any may be absent.
pub(super) const VERSION: u32 = 2;

/// Opens a file that is intact and of a known version, or creates one.
pub(super) fn open(path: &Path) -> Result<Database> {
    let shown = path.display();
    let explain = |error| explain(path, error);
    if std::fs::metadata(path).is_err_and(|error| error.kind() == NotFound) {
        create(path)
            .map_err(|error| refused(format!("the store `{shown}` cannot be created: {error}")))?;
    }
    verify(path)?;
    let database = Database::create(path).map_err(explain)?;
    if check(path, &database)? == Content::Empty {
        begin(&database)
            .map_err(|error| refused(format!("the store `{shown}` cannot be created: {error}")))?;
    }
    Ok(database)
}

/// Whether there is a store that has been begun. The file is left as it is, and refused if it is
/// not intact or of an unknown version.
pub(super) fn verify(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == NotFound => return Ok(false),
        Err(error) => return Err(refused(format!("cannot read `{}`: {error}", path.display()))),
    }
    let explain = |error| explain(path, error);
    match redb::ReadOnlyDatabase::open(path) {
        // A file that was not closed is repaired when it is opened.
        Ok(_) | Err(DatabaseError::RepairAborted) => {}
        Err(error) => return Err(explain(error)),
    }
    // Opening writes, so it is tried on a copy: a file that is refused is left as it is.
    check(path, &copy(path).map_err(explain)?)?;
    Ok(true)
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
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            PermissionDenied => format!(
                "the store `{shown}` cannot be opened: {error}; start the core as the user that \
                 the file belongs to"
            ),
            InvalidData | UnexpectedEof => format!(
                "`{shown}` is not a store of a Gofer core, or is damaged ({error}); restore it from \
                 a backup, or start on another file"
            ),
            _ => format!("the store `{shown}` cannot be opened: {error}"),
        },
        error => return damaged(path, &error),
    })
}

/// The whole file in memory, opened with all checksums verified.
fn copy(path: &Path) -> Result<Database, DatabaseError> {
    let content = std::fs::read(path)?;
    let memory = InMemoryBackend::new();
    memory.set_len(content.len() as u64)?;
    memory.write(0, &content)?;
    Database::builder().set_check_integrity_on_open(true).create_with_backend(memory)
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
    let key = RecordKind::Version.key(&[], None);
    commit(database, &[Write { key, value: Some(VERSION.to_be_bytes().to_vec()) }])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// New, or not finished by the process that created it.
    Empty,
    Records,
}

fn check(path: &Path, database: &impl ReadableDatabase) -> Result<Content> {
    let shown = path.display();
    match version(database) {
        Ok(None) => Ok(Content::Empty),
        Ok(Some(version)) if version <= VERSION => Ok(Content::Records),
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
    let version = found.and_then(|it| Some(u32::from_be_bytes(it.value().try_into().ok()?)));
    version.map(Some).ok_or_else(|| redb::Error::Corrupted("it has no version".to_owned()))
}

/// Writes all of the records or none.
pub(super) fn commit(database: &Database, writes: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for Write { key, value } in writes {
            match value {
                Some(value) => drop(table.insert(&**key, &**value)?),
                None => drop(table.remove(&**key)?),
            }
        }
    }
    Ok(transaction.commit()?)
}
