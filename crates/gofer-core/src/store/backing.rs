//! What the file of a store is kept in: a file of the system, or what a test puts in its place.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use crate::sync::lock;

/// Opens the storage of a store, again and again.
pub trait Backing: Send + Sync {
    /// # Errors
    ///
    /// If it cannot be opened.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;
}

/// A file of the system, which exists.
pub(super) struct SystemFile(pub(super) PathBuf);

impl Backing for SystemFile {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file: File = OpenOptions::new().read(true).write(true).open(&self.0)?;
        let backend = FileBackend::new(file).map_err(|error| match error {
            DatabaseError::Storage(redb::StorageError::Io(error)) => error,
            error => io::Error::other(error),
        })?;
        Ok(Box::new(backend))
    }
}

/// Holds back what is written until it is [released](Staging::release): opening a file that has not
/// been closed repairs it, and one that is refused must stay as it is.
#[derive(Debug)]
pub(super) struct Staged {
    inner: Arc<Inner>,
}

/// The end of a [`Staged`] that releases it.
pub(super) struct Staging(Arc<Inner>);

struct Inner {
    storage: Box<dyn StorageBackend>,
    /// What was done, in order; `None` once it has been released.
    held_back: Mutex<Option<HeldBack>>,
}

#[derive(Default)]
struct HeldBack {
    length: u64,
    done: Vec<Done>,
}

enum Done {
    SetLength(u64),
    Write(u64, Vec<u8>),
    Sync,
}

impl Staged {
    pub(super) fn new(storage: Box<dyn StorageBackend>) -> io::Result<(Self, Staging)> {
        let held_back = HeldBack { length: storage.len()?, done: Vec::new() };
        let inner = Arc::new(Inner { storage, held_back: Mutex::new(Some(held_back)) });
        Ok((Self { inner: Arc::clone(&inner) }, Staging(inner)))
    }
}

impl Staging {
    /// Does what was held back, in its order; later writes are done at once. If it fails, it can be
    /// tried again, from the beginning.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut held_back = lock(&self.0.held_back);
        for done in held_back.iter().flat_map(|it| &it.done) {
            match done {
                Done::SetLength(length) => self.0.storage.set_len(*length)?,
                Done::Write(offset, data) => self.0.storage.write(*offset, data)?,
                Done::Sync => self.0.storage.sync_data()?,
            }
        }
        *held_back = None;
        Ok(())
    }

    /// How long the storage is, unless what changes it is still held back.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        let held_back = lock(&self.0.held_back);
        if held_back.is_some() { Ok(None) } else { self.0.storage.len().map(Some) }
    }
}

impl HeldBack {
    fn read(&self, storage: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What has been added to the file is empty.
        out.fill(0);
        let there = storage.len()?.min(end).saturating_sub(offset);
        let (there, _) = out.split_at_mut(usize::try_from(there).unwrap_or(usize::MAX));
        storage.read(offset, there)?;
        for done in &self.done {
            match done {
                Done::Write(at, data) => {
                    let (from, to) = (offset.max(*at), end.min(at + data.len() as u64));
                    if from < to {
                        let data = data.get(range(from - at)..range(to - at)).unwrap_or_default();
                        if let Some(out) = out.get_mut(range(from - offset)..range(to - offset)) {
                            out.copy_from_slice(data);
                        }
                    }
                }
                Done::SetLength(length) if *length < end => {
                    let kept = range(length.saturating_sub(offset));
                    out.iter_mut().skip(kept).for_each(|byte| *byte = 0);
                }
                Done::SetLength(_) | Done::Sync => {}
            }
        }
        Ok(())
    }
}

/// A length inside a buffer.
fn range(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

impl StorageBackend for Staged {
    fn len(&self) -> io::Result<u64> {
        match &*lock(&self.inner.held_back) {
            Some(held_back) => Ok(held_back.length),
            None => self.inner.storage.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(held_back) = &*lock(&self.inner.held_back) {
            return held_back.read(&*self.inner.storage, offset, out);
        }
        self.inner.storage.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if let Some(held_back) = &mut *lock(&self.inner.held_back) {
            held_back.length = length;
            held_back.done.push(Done::SetLength(length));
            return Ok(());
        }
        self.inner.storage.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(held_back) = &mut *lock(&self.inner.held_back) {
            held_back.done.push(Done::Sync);
            return Ok(());
        }
        self.inner.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(held_back) = &mut *lock(&self.inner.held_back) {
            held_back.done.push(Done::Write(offset, data.to_vec()));
            return Ok(());
        }
        self.inner.storage.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.storage.query_lock_range(start, end)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.storage.fmt(f)
    }
}

#[cfg(test)]
#[path = "../../../../tests/support/disk.rs"]
pub(super) mod simulated;

#[cfg(test)]
impl Backing for simulated::Disk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Self::open(self)))
    }
}
