//! The extensions in this process and what is being done to each.
//!
//! Changes of one name exclude each other: a change of an extension holds a [`SlotGuard`], and the
//! previous supervisor is aborted. A supervisor that has not noticed yet can change nothing:
//! its [`Lease`] has the generation of the guard that it was started under.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::Running;
use crate::launcher::LaunchProgress;
use crate::state::{ExtensionState, ExtensionStatus};
use crate::store::not_installed;
use crate::sync::lock;
use gofer_net::{Clock, from_unix_millis};

pub(super) struct Slots {
    clock: Clock,
    table: Mutex<Table>,
    /// Notified at each change.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    slots: BTreeMap<String, Slot>,
    /// Of the newest guard.
    generation: u64,
    /// The core is stopping: nothing comes up any more.
    closed: bool,
}

struct Slot {
    state: ExtensionState,
    /// The one that takes calls; during an update, the old one.
    running: Option<Arc<Running>>,
    supervisor: Option<AbortOnDropHandle<()>>,
    /// Of the last guard.
    generation: u64,
    restarts: u32,
    /// The most recent problem.
    problem: String,
    progress: LaunchProgress,
    since: i64,
}

/// A supervisor's right to change the status of its extension.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) name: String,
    generation: u64,
}

/// The lease is no longer valid: the extension is being changed, or is gone.
pub(super) struct Superseded;

impl Slots {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, table: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Reserves a free name for an installation.
    pub(super) fn reserve(&self, name: &str) -> Result<SlotGuard<'_>, Status> {
        let table = lock(&self.table);
        if table.slots.contains_key(name) {
            let why =
                format!("an extension named `{name}` is already installed or being installed");
            return Err(Status::already_exists(why));
        }
        let slot = self.slot(ExtensionState::Starting);
        Ok(self.insert(table, name, slot, true))
    }

    /// Reserves the name of a stored extension when the core starts.
    pub(super) fn reserve_stored(&self, name: &str) -> SlotGuard<'_> {
        let slot = self.slot(ExtensionState::Starting);
        self.insert(lock(&self.table), name, slot, false)
    }

    /// Acquires an installed extension for a change. Only during an update does it go on taking
    /// calls.
    pub(super) fn acquire(
        &self,
        name: &str,
        state: ExtensionState,
    ) -> Result<SlotGuard<'_>, Status> {
        use ExtensionState::{Restarting, Running, Stopped, Updating};
        let mut table = lock(&self.table);
        let slot = table.slots.get(name).ok_or_else(|| not_installed(name))?;
        if !matches!(slot.state, Running | Restarting | Stopped) {
            let doing = slot.state.doing();
            return Err(Status::aborted(format!("the extension `{name}` is {doing}; try again")));
        }
        let mut slot = self.slot(state);
        let mut supervisor = None;
        let mut before = None;
        if let Some(old) = table.slots.remove(name) {
            if state == Updating {
                slot.running.clone_from(&old.running);
            }
            (before, supervisor) = (old.running, old.supervisor);
        }
        let mut guard = self.insert(table, name, slot, false);
        guard.before = before;
        // After the table has been unlocked: the supervisor may hold the last reference to
        // something that locks it.
        drop(supervisor);
        Ok(guard)
    }

    fn insert(
        &self,
        mut table: MutexGuard<'_, Table>,
        name: &str,
        mut slot: Slot,
        is_new: bool,
    ) -> SlotGuard<'_> {
        table.generation += 1;
        slot.generation = table.generation;
        let lease = Lease { name: name.to_owned(), generation: slot.generation };
        let progress = slot.progress.clone();
        table.slots.insert(name.to_owned(), slot);
        drop(table);
        self.changed.send_replace(());
        SlotGuard { slots: self, lease, before: None, progress, is_new, finished: false }
    }

    fn slot(&self, state: ExtensionState) -> Slot {
        Slot {
            state,
            running: None,
            supervisor: None,
            generation: 0,
            restarts: 0,
            problem: String::new(),
            progress: LaunchProgress::default(),
            since: self.clock.unix_millis(),
        }
    }

    /// The extension that takes calls under a name.
    pub(super) fn running(&self, name: &str) -> Result<Arc<Running>, Status> {
        let table = lock(&self.table);
        let slot = table.slots.get(name).ok_or_else(|| not_installed(name))?;
        if let Some(running) = &slot.running {
            return Ok(Arc::clone(running));
        }
        if slot.state == ExtensionState::Stopped {
            let why = format!("the extension `{name}` is disabled; enable it first");
            return Err(Status::failed_precondition(why));
        }
        // Not the most recent problem: callers who are no managers get this error too.
        let (doing, progress) = (slot.state.doing(), slot.progress());
        let because = progress.map(|it| format!(" ({it})")).unwrap_or_default();
        Err(Status::unavailable(format!("the extension `{name}` is {doing}{because}; try again")))
    }

    /// Whether calls to a name still go to this one.
    pub(super) fn is_current(&self, name: &str, running: &Arc<Running>) -> bool {
        let table = lock(&self.table);
        let current = table.slots.get(name).and_then(|slot| slot.running.as_ref());
        current.is_some_and(|it| Arc::ptr_eq(it, running))
    }

    pub(super) fn status(&self, name: &str) -> Option<ExtensionStatus> {
        lock(&self.table).slots.get(name).map(Slot::status)
    }

    /// Of all extensions, sorted by name.
    pub(super) fn statuses(&self) -> Vec<(String, ExtensionStatus)> {
        let table = lock(&self.table);
        let mut all: Vec<_> =
            table.slots.iter().map(|(name, slot)| (name.clone(), slot.status())).collect();
        drop(table);
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Notified at each change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Refuses further launches, and returns all extensions that are running.
    pub(super) fn close(&self) -> Vec<Arc<Running>> {
        let slots = {
            let mut table = lock(&self.table);
            table.closed = true;
            std::mem::take(&mut table.slots)
        };
        slots.into_values().filter_map(|slot| slot.running).collect()
    }

    /// The extension has ended, hangs or did not come up, and is going to be restarted.
    pub(super) fn mark_failed(&self, lease: &Lease, problem: &str) -> Result<(), Superseded> {
        self.update(lease, |slot| {
            slot.running = None;
            slot.state = ExtensionState::Restarting;
            slot.restarts = slot.restarts.saturating_add(1);
            slot.since = self.clock.unix_millis();
            problem.clone_into(&mut slot.problem);
        })
    }

    pub(super) fn mark_running(
        &self,
        lease: &Lease,
        running: &Arc<Running>,
    ) -> Result<(), Superseded> {
        self.update(lease, |slot| {
            slot.running = Some(Arc::clone(running));
            slot.state = ExtensionState::Running;
            slot.since = self.clock.unix_millis();
        })
    }

    /// Where the holder of the lease reports its progress.
    pub(super) fn progress(&self, lease: &Lease) -> Result<LaunchProgress, Superseded> {
        let mut progress = LaunchProgress::default();
        self.update(lease, |slot| progress = slot.progress.clone())?;
        Ok(progress)
    }

    fn update(&self, lease: &Lease, change: impl FnOnce(&mut Slot)) -> Result<(), Superseded> {
        let mut table = lock(&self.table);
        let slot = table.slots.get_mut(&lease.name).ok_or(Superseded)?;
        if slot.generation != lease.generation {
            return Err(Superseded);
        }
        change(slot);
        drop(table);
        self.changed.send_replace(());
        Ok(())
    }
}

impl Slot {
    fn reason(&self) -> String {
        self.progress().unwrap_or_else(|| self.problem.clone())
    }

    fn progress(&self) -> Option<String> {
        use ExtensionState::{Starting, Updating};
        let progress = self.progress.message();
        (matches!(self.state, Starting | Updating) && !progress.is_empty()).then_some(progress)
    }

    fn status(&self) -> ExtensionStatus {
        ExtensionStatus {
            state: self.state,
            reason: self.reason(),
            restarts: self.restarts,
            since: from_unix_millis(self.since),
        }
    }
}

/// Exclusive access to an extension while it is being changed. If it is dropped before one of the
/// `finish` methods was called, because the caller is gone, an unfinished installation is removed
/// and any other extension is stopped.
pub(super) struct SlotGuard<'a> {
    slots: &'a Slots,
    lease: Lease,
    /// The one that took calls until now.
    pub(super) before: Option<Arc<Running>>,
    pub(super) progress: LaunchProgress,
    /// The name was free before.
    is_new: bool,
    finished: bool,
}

impl SlotGuard<'_> {
    /// Stops the one that took calls until now.
    pub(super) async fn stop(&self) {
        if let Some(running) = &self.before {
            running.handle.stop().await;
        }
    }

    /// From now on calls go to this one, which is not supervised yet.
    pub(super) fn take_over(&self, running: &Arc<Running>) {
        self.change(|slot| slot.running = Some(Arc::clone(running)));
    }

    /// Hands the extension to a supervisor, running or to be brought up. In a core that is stopping
    /// nothing comes up.
    pub(super) fn finish_supervised(
        mut self,
        running: Option<&Arc<Running>>,
        problem: &str,
        supervise: impl FnOnce(Lease) -> AbortOnDropHandle<()>,
    ) {
        use ExtensionState::{Restarting, Running, Starting};
        if lock(&self.slots.table).closed {
            return;
        }
        self.finished = true;
        let supervisor = supervise(self.lease.clone());
        let now = self.slots.clock.unix_millis();
        self.change(|slot| {
            slot.state = match running {
                Some(_) => Running,
                None if problem.is_empty() => Starting,
                None => Restarting,
            };
            slot.running = running.map(Arc::clone);
            slot.supervisor = Some(supervisor);
            slot.restarts = 0;
            problem.clone_into(&mut slot.problem);
            slot.since = now;
        });
    }

    pub(super) fn finish_stopped(mut self) {
        self.finished = true;
        self.set_stopped();
    }

    pub(super) fn finish_removed(mut self) {
        self.finished = true;
        self.remove();
    }

    fn set_stopped(&self) {
        let now = self.slots.clock.unix_millis();
        self.change(|slot| {
            slot.running = None;
            slot.state = ExtensionState::Stopped;
            slot.problem.clear();
            slot.restarts = 0;
            slot.since = now;
        });
    }

    fn remove(&self) {
        let mut table = lock(&self.slots.table);
        // The name may belong to another guard by now: that of a stored extension, when the core
        // starts.
        let slot = table.slots.get(&self.lease.name);
        if slot.is_some_and(|slot| slot.generation == self.lease.generation) {
            table.slots.remove(&self.lease.name);
        }
        drop(table);
        self.slots.changed.send_replace(());
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        // The slot is gone only if the core is stopping.
        let _ = self.slots.update(&self.lease, change);
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        match (self.finished, self.is_new) {
            (true, _) => {}
            (false, true) => self.remove(),
            (false, false) => self.set_stopped(),
        }
    }
}
