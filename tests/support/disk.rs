//! A disk in memory: it can be full, fail, and lose its power at any write. Whatever was not synced
//! is then lost, kept, or torn, at random.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, of which each needs a part"
)]

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{BackendError, StorageBackend};

/// What a disk writes at once: a write is torn between these.
const SECTOR: u64 = 512;

/// What a file system allocates at once.
const BLOCK: u64 = 4096;

/// Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    content: Vec<u8>,
    /// What undoes each change that was not synced.
    unsynced: Vec<Change>,
    /// The blocks that have been written.
    allocated: HashSet<u64>,
    /// Bytes that may be allocated.
    capacity: u64,
    /// Whether writes fail.
    fails: bool,
    /// Reads until they fail.
    reads: u64,
    /// Writes until one fails.
    fails_after: Option<u64>,
    /// Writes until the power is lost.
    power: Option<u64>,
    /// Writes that have failed.
    refused: u64,
    /// How often it was opened or lost its power: whoever opened it earlier has lost it.
    generation: u64,
    is_locked: bool,
    random: fastrand::Rng,
}

enum Change {
    Write { offset: u64, before: Vec<u8>, after: Vec<u8> },
    Length { before: Vec<u8>, length: u64 },
}

/// The disk, opened.
pub struct Opened {
    disk: Disk,
    generation: u64,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            content: Vec::new(),
            unsynced: Vec::new(),
            allocated: HashSet::new(),
            capacity: u64::MAX,
            fails: false,
            reads: u64::MAX,
            fails_after: None,
            power: None,
            refused: 0,
            generation: 0,
            is_locked: false,
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    /// With a copy of a file, of which blocks that are empty are not allocated.
    pub fn holding(content: Vec<u8>, seed: u64) -> Self {
        let disk = Self::new(seed);
        let size = usize::try_from(BLOCK).unwrap();
        let blocks = content.chunks(size).zip(0..);
        let allocated = blocks.filter(|(block, _)| block.iter().any(|byte| *byte != 0));
        disk.state().allocated = allocated.map(|(_, number)| number).collect();
        disk.set_content(content);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Opens it as a program does.
    pub fn open(&self) -> Opened {
        Opened { disk: self.clone(), generation: self.state().generation }
    }

    /// Has no room beyond what is allocated and this many bytes more.
    pub fn set_room(&self, room: u64) {
        let mut state = self.state();
        state.capacity = (state.allocated.len() as u64 * BLOCK).saturating_add(room);
    }

    /// Fails every write, or no longer.
    pub fn set_failing(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// Fails one write or sync, after this many more.
    pub fn fail_once_after(&self, writes: u64) {
        self.state().fails_after = Some(writes);
    }

    /// Whether a write has failed, for whatever reason.
    pub fn has_refused(&self) -> bool {
        self.state().refused > 0
    }

    /// Fails every read, or no longer.
    pub fn set_unreadable(&self, is_unreadable: bool) {
        self.set_reads(if is_unreadable { 0 } else { u64::MAX });
    }

    /// Fails every read after this many more.
    pub fn set_reads(&self, reads: u64) {
        self.state().reads = reads;
    }

    /// Loses the power after this many more writes and syncs.
    pub fn lose_power_after(&self, writes: u64) {
        self.state().power = Some(writes);
    }

    /// Loses the power now: what is open fails from now on. Afterwards, it can be opened again.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// As if the program had been killed: what it has written stays.
    pub fn kill(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.is_locked = false;
        state.power = None;
    }

    pub fn has_power(&self) -> bool {
        self.state().power != Some(0)
    }

    pub fn content(&self) -> Vec<u8> {
        self.state().content.clone()
    }

    /// Replaces what it holds, as somebody else might.
    pub fn set_content(&self, content: Vec<u8>) {
        self.state().content = content;
    }
}

impl State {
    fn lose_power(&mut self) {
        self.generation += 1;
        self.is_locked = false;
        self.power = Some(0);
        let changes = std::mem::take(&mut self.unsynced);
        for change in changes.iter().rev() {
            match change {
                Change::Write { offset, before, .. } => self.put(*offset, before),
                Change::Length { before, length } => {
                    self.content.resize(usize::try_from(*length).unwrap(), 0);
                    let kept = self.content.len() - before.len();
                    self.content[kept..].copy_from_slice(before);
                }
            }
        }
        // Any part of what was not synced may have reached the disk, in any order.
        let kind = self.random.u8(..4);
        for change in changes {
            match change {
                Change::Write { offset, after, .. } => {
                    let mut at = 0;
                    let keeps = self.random.bool();
                    while at < after.len() {
                        // Up to the end of a sector.
                        let sector = SECTOR - (offset + at as u64) % SECTOR;
                        let end = (at + usize::try_from(sector).unwrap()).min(after.len());
                        let kept = match kind {
                            0 => false,
                            1 => true,
                            2 => keeps,
                            _ => self.random.bool(),
                        };
                        if kept {
                            self.put(offset + at as u64, &after[at..end]);
                        }
                        at = end;
                    }
                }
                Change::Length { .. } => {}
            }
        }
    }

    /// Writes, beyond the end too.
    fn put(&mut self, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        let end = offset + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(data);
    }

    /// Whether this can be done now.
    fn check(&mut self, generation: u64) -> io::Result<()> {
        let checked = self.check_write(generation);
        self.refused += u64::from(checked.is_err());
        checked
    }

    fn check_write(&mut self, generation: u64) -> io::Result<()> {
        if self.generation != generation {
            return Err(io::Error::other("the power was lost"));
        }
        if let Some(left) = &mut self.power {
            if *left == 0 {
                return Err(io::Error::other("there is no power"));
            }
            *left -= 1;
            if *left == 0 {
                self.lose_power();
                return Err(io::Error::other("the power has just been lost"));
            }
        }
        let fails_once = self.fails_after == Some(0);
        self.fails_after = self.fails_after.and_then(|left| left.checked_sub(1));
        if self.fails || fails_once {
            return Err(io::Error::other("the disk fails"));
        }
        Ok(())
    }

    fn allocate(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let blocks = offset / BLOCK..(offset + length).div_ceil(BLOCK);
        let new: Vec<_> = blocks.filter(|block| !self.allocated.contains(block)).collect();
        if (self.allocated.len() + new.len()) as u64 * BLOCK > self.capacity {
            self.refused += 1;
            return Err(ErrorKind::StorageFull.into());
        }
        self.allocated.extend(new);
        Ok(())
    }
}

impl Opened {
    fn state(&self) -> MutexGuard<'_, State> {
        self.disk.state()
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.generation != self.generation {
            return Err(io::Error::other("the power was lost"));
        }
        let Some(left) = state.reads.checked_sub(1) else {
            return Err(io::Error::other("the disk cannot be read"));
        };
        state.reads = left;
        let offset = usize::try_from(offset).unwrap();
        let content = state.content.get(offset..offset + out.len());
        out.copy_from_slice(content.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.check(self.generation)?;
        let (now, new) = (state.content.len(), usize::try_from(length).unwrap());
        let before = state.content.get(new..).unwrap_or_default().to_vec();
        state.content.resize(new, 0);
        state.allocated.retain(|block| *block < length.div_ceil(BLOCK));
        state.unsynced.push(Change::Length { before, length: now as u64 });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.check(self.generation)?;
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.check(self.generation)?;
        state.allocate(offset, data.len() as u64)?;
        let from = usize::try_from(offset).unwrap();
        let until = (from + data.len()).min(state.content.len());
        let before = state.content.get(from..until).unwrap_or_default().to_vec();
        state.put(offset, data);
        let after = data.to_vec();
        state.unsynced.push(Change::Write { offset, before, after });
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.generation == self.generation {
            state.is_locked = false;
        }
        Ok(())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if !matches!((start, end), (Bound::Unbounded | Bound::Included(0), Bound::Unbounded)) {
            return Err(BackendError::Unsupported);
        }
        let mut state = self.state();
        Ok(!std::mem::replace(&mut state.is_locked, true))
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        let mut state = self.state();
        // Otherwise the lock is that of whoever opened it since.
        if state.generation == self.generation {
            state.is_locked = false;
        }
        Ok(())
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}
