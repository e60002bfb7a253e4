//! What has happened and is over: complete runs with their keys, events, earlier configurations; and
//! objects, which may be large. None of it is in memory for longer than it takes to be written.
//!
//! What was changed and is not on disk yet is in [`Recent`], which hides what the file says. Of a
//! store in memory it is everything.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use super::file::StoreFile;
use super::run_keys::RunKey;
use crate::sync::lock;
use gofer_proto as proto;

/// The history of a store.
#[derive(Default)]
pub(super) struct History {
    recent: Mutex<Recent>,
    file: Option<Arc<StoreFile>>,
}

#[derive(Default)]
struct Recent {
    records: BTreeMap<Vec<u8>, RecentRecord>,
    /// The number of the submission that changes belong to now.
    submission: u64,
}

/// A record that was put or, without a value, removed.
struct RecentRecord {
    #[cfg_attr(not(feature = "store"), expect(dead_code, reason = "nothing is submitted"))]
    submission: u64,
    value: Option<Bytes>,
}

/// The order in which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// A record, which may be damaged.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    /// `None` if its checksum is another one.
    pub(super) record: Option<&'a [u8]>,
    /// As it was written, unless that is what was damaged.
    pub(super) length: usize,
}

impl<'a> From<&'a Bytes> for Found<'a> {
    fn from(record: &'a Bytes) -> Self {
        Self { record: Some(record), length: record.len() }
    }
}

impl History {
    #[cfg(feature = "store")]
    pub(super) fn in_file(file: Arc<StoreFile>) -> Self {
        Self { recent: Mutex::default(), file: Some(file) }
    }

    /// Puts a record or, without a value, removes it.
    pub(super) fn set(&self, key: Vec<u8>, value: Option<Bytes>) {
        let mut recent = lock(&self.recent);
        if value.is_none() && self.file.is_none() {
            recent.records.remove(&key);
        } else {
            let submission = recent.submission;
            recent.records.insert(key, RecentRecord { submission, value });
        }
    }

    /// # Errors
    ///
    /// If the file cannot be read.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Status> {
        let recent = lock(&self.recent);
        if let Some(record) = recent.records.get(key) {
            return Ok(record.value.clone());
        }
        self.file.as_ref().map_or(Ok(None), |file| file.get(key))
    }

    /// Passes each record in the range to `visit`, until that breaks. It must not use the history.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a record cannot.
    pub(super) fn visit(
        &self,
        range: Range<Vec<u8>>,
        order: Order,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let mut damaged = false;
        self.visit_all(range, order, |key, found| {
            damaged = found.record.is_none();
            found.record.map_or(ControlFlow::Break(()), |record| visit(key, record))
        })?;
        if damaged { Err(unreadable("a record of the history")) } else { Ok(()) }
    }

    /// As [`visit`](Self::visit), also those that are damaged.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(super) fn visit_all(
        &self,
        range: Range<Vec<u8>>,
        order: Order,
        mut visit: impl FnMut(&[u8], Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        if range.start >= range.end {
            return Ok(());
        }
        // Held, so that nothing moves from here to the file meanwhile.
        let recent = lock(&self.recent);
        let mut records = recent.records.range(range.clone());
        let mut next = || match order {
            Order::OldestFirst => records.next(),
            Order::NewestFirst => records.next_back(),
        };
        let mut peeked = next();
        if let Some(file) = &self.file {
            let flow = file.visit(&range, order, |key, found| {
                // What is recent comes first, and instead of what has the same key in the file.
                while let Some((recent, record)) = peeked {
                    let is_before = match order {
                        Order::OldestFirst => recent.as_slice() <= key,
                        Order::NewestFirst => recent.as_slice() >= key,
                    };
                    if !is_before {
                        break;
                    }
                    peeked = next();
                    if let Some(value) = &record.value {
                        visit(recent, value.into())?;
                    }
                    if recent == key {
                        return ControlFlow::Continue(());
                    }
                }
                visit(key, found)
            })?;
            if flow.is_break() {
                return Ok(());
            }
        }
        while let Some((key, record)) = peeked {
            if record.value.as_ref().is_some_and(|value| visit(key, value.into()).is_break()) {
                break;
            }
            peeked = next();
        }
        Ok(())
    }

    /// The keys in a range, in order, also of what is damaged.
    pub(super) fn keys(&self, range: Range<Vec<u8>>) -> Result<Vec<Vec<u8>>, Status> {
        let mut keys = Vec::new();
        self.visit_all(range, Order::OldestFirst, |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    /// What is changed from now on belongs to the next submission. Returns the number of the one
    /// that ends.
    #[cfg(feature = "store")]
    pub(super) fn submitted(&self) -> u64 {
        let mut recent = lock(&self.recent);
        recent.submission += 1;
        recent.submission - 1
    }

    /// Forgets changes of these keys up to this submission, which are in the file now.
    #[cfg(feature = "store")]
    pub(super) fn committed<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, through: u64) {
        let mut recent = lock(&self.recent);
        for key in keys {
            if recent.records.get(key).is_some_and(|it| it.submission <= through) {
                recent.records.remove(key);
            }
        }
    }

    /// Forgets all changes that are not in the file.
    #[cfg(feature = "store")]
    pub(super) fn roll_back(&self) {
        lock(&self.recent).records.clear();
    }
}

/// All keys that begin with this one.
pub(super) fn beginning_with(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    // The first byte is the kind of the record, and none is 255.
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    prefix..end
}

/// A run with its key, as it is stored: the fields of the key have other numbers than those of the
/// API's message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredRun {
    #[prost(bytes = "vec", tag = "1001")]
    key: Vec<u8>,
}

impl StoredRun {
    pub(super) fn encode(run: &proto::Run, key: Option<RunKey>) -> Vec<u8> {
        let mut record = Vec::with_capacity(run.encoded_len() + 40);
        // A vector has room for everything.
        let _ = run.encode(&mut record);
        if let Some(key) = key {
            let _ = Self { key: key.bytes().to_vec() }.encode(&mut record);
        }
        record
    }

    pub(super) fn decode(record: &[u8]) -> Option<(proto::Run, Option<RunKey>)> {
        let Self { key } = Self::decode_key(record)?;
        Some((proto::Run::decode(record).ok()?, RunKey::restore(&key)))
    }

    fn decode_key(record: &[u8]) -> Option<Self> {
        prost::Message::decode(record).ok()
    }
}

/// An error for a record that cannot be read.
pub(super) fn unreadable(what: &str) -> Status {
    Status::data_loss(format!(
        "{what} cannot be read: the store is damaged; restore it from a backup, with its key"
    ))
}
