//! A core on a machine: its disk, its network, and how it ends: killed, without power, or stopped.
//!
//! The tasks of a core that has crashed cannot be taken from the runtime. So they are cut off from
//! everything at once, the disk, the network and the users, and then stopped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use gofer_core::Core;
use gofer_core::internal::Backing;
use gofer_sdk::{Error, ErrorKind};
use redb::{BackendError, StorageBackend};
use tokio_util::sync::CancellationToken;

use crate::disk::{Disk, Opened};
use crate::facts::{Key, facts, violated};
use crate::history::{draw, duration, one_in, record};
use crate::network::Net;
use crate::world::{HOUR, MILLI, MINUTE};

/// What ends a core at once. Clones end the same one.
#[derive(Clone)]
pub struct Fate {
    pub net: Arc<Net>,
    disk: Disk,
    pub over: CancellationToken,
}

impl Fate {
    /// Of a core that is about to start.
    pub fn new(net: Arc<Net>, disk: Disk) -> Self {
        disk.kill();
        Self { net, disk, over: CancellationToken::new() }
    }

    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Kills the core, or takes its power.
    pub fn crash(&self, with_power: bool) {
        if self.is_over() {
            return;
        }
        record(format!(
            "fault: the core {}",
            if with_power { "is killed" } else { "has no power" }
        ));
        if with_power {
            self.disk.kill();
        } else {
            self.disk.lose_power();
        }
        self.end();
    }

    /// Nothing that it does matters any more.
    pub fn end(&self) {
        self.over.cancel();
        self.net.end();
    }

    /// Crashes if the disk has lost its power.
    fn notice_power(&self) {
        if !self.is_over() && !self.disk.has_power() {
            record("fault: the core has lost its power as it wrote");
            self.end();
        }
    }
}

impl Backing for Fate {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        if self.is_over() {
            return Err(io::Error::other("the core has crashed"));
        }
        Ok(Box::new(Observed { opened: self.disk.open(), fate: self.clone() }))
    }
}

/// The disk, opened by a core that ends with the power.
struct Observed {
    opened: Opened,
    fate: Fate,
}

impl Observed {
    fn observe<T>(&self, outcome: T) -> T {
        self.fate.notice_power();
        outcome
    }
}

impl StorageBackend for Observed {
    fn len(&self) -> io::Result<u64> {
        self.opened.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.opened.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.observe(self.opened.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.observe(self.opened.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.observe(self.opened.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.opened.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.opened.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.opened.unlock_range(start, end)
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opened.fmt(f)
    }
}

/// A core that runs, until its fate.
pub struct Host {
    pub core: Core,
    pub fate: Fate,
    /// It is being stopped.
    is_stopping: Cell<bool>,
}

/// How a change was answered.
#[derive(Debug)]
pub enum Answer<T = ()> {
    Done(T),
    /// It could not be stored, and so has not happened.
    NotMade,
    Failed(ErrorKind),
    /// Whoever asked does not know whether it has happened.
    Lost,
}

impl Host {
    pub fn new(core: Core, fate: Fate) -> Self {
        Self { core, fate, is_stopping: Cell::default() }
    }

    /// `None` if the core was over before there was an answer.
    pub async fn ask<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.fate.over.cancelled() => None,
            answer = question => Some(answer).filter(|_| !self.fate.is_over()),
        }
    }

    /// Makes a change.
    pub async fn change<T>(
        &self,
        what: impl fmt::Display,
        change: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        let answer = match self.ask(change).await {
            Some(Ok(done)) => {
                record(format!("{what}: ok"));
                return Answer::Done(done);
            }
            None => {
                record(format!("{what}: lost"));
                Answer::Lost
            }
            Some(Err(error)) => {
                record(format!("{what}: {error}"));
                if error.to_string().contains("the change was not made") {
                    if error.kind() != ErrorKind::Unavailable {
                        violated(format!("{what}: is not refused as unavailable: {error}"));
                    }
                    Answer::NotMade
                } else {
                    Answer::Failed(error.kind())
                }
            }
        };
        if self.is_stopping.get() {
            self.fate.over.cancelled().await;
            return Answer::Lost;
        }
        answer
    }

    /// Makes a change, perhaps as users do that give up, or ask twice.
    pub async fn change_as_users_do<T, F: Future<Output = Result<T, Error>>>(
        &self,
        what: &str,
        has_faults: bool,
        change: impl Fn() -> F,
    ) -> Answer<T> {
        match draw(|random| random.u32(..if has_faults { 10 } else { 1 })) {
            1 => {
                let patience = duration(MILLI, MINUTE);
                let answer = tokio::time::timeout(patience, self.change(what, change()));
                if let Ok(answer) = answer.await {
                    return answer;
                }
                record(format!("{what}: given up after {patience:?}"));
                // Until it has been made or not, without anybody who waits.
                let _ = self.ask(tokio::time::sleep(HOUR)).await;
                Answer::Lost
            }
            2 => {
                let (first, second) = (format!("{what} (first)"), format!("{what} (second)"));
                let both =
                    tokio::join!(self.change(first, change()), self.change(second, change()));
                match both {
                    (Answer::Done(done), _) | (_, Answer::Done(done)) => Answer::Done(done),
                    (Answer::Lost, _) | (_, Answer::Lost) => Answer::Lost,
                    (Answer::Failed(kind), _) | (_, Answer::Failed(kind)) => Answer::Failed(kind),
                    (Answer::NotMade, Answer::NotMade) => Answer::NotMade,
                }
            }
            _ => self.change(what, change()).await,
        }
    }

    /// Stops it properly.
    pub async fn stop(&self) {
        self.is_stopping.set(true);
        self.core.stop().await;
        self.fate.end();
    }
}

thread_local! {
    /// What ends the core in the middle of a change.
    static AMBUSH: RefCell<Option<Fate>> = const { RefCell::new(None) };
}

pub fn set_ambush(fate: Option<Fate>) {
    AMBUSH.set(fate);
}

/// A `serve` has ended: perhaps the core crashes before the next one of a change begins.
pub fn perhaps_crash(key: &Key) {
    let Some(fate) = AMBUSH.with_borrow(Clone::clone).filter(|fate| !fate.is_over()) else {
        return;
    };
    if facts(|facts| facts.changing.contains(key)) && one_in(12) {
        record(format!("{key}: in the middle of a change"));
        fate.crash(one_in(2));
    }
}
