//! Which extensions there are in this process, and what is being done to each.
//!
//! Changes of one name exclude each other: who makes one takes a [`Claim`], and
//! what supervised the extension until then does so no longer. A supervisor
//! that has not noticed yet changes nothing: it holds the number of the claim
//! that it was begun under.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::Running;
use crate::contact::lock;
use crate::launcher::Progress;
use crate::state::{ExtensionState, ExtensionStatus};
use gofer_net::Clock;

pub(super) struct Slots {
    clock: Clock,
    table: Mutex<Table>,
    /// Wakes those who wait for a change.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    slots: HashMap<String, Slot>,
    claims: u64,
    /// The core is being stopped: nothing comes up any more.
    closed: bool,
}

struct Slot {
    state: ExtensionState,
    /// Who answers; during an update, the old one.
    running: Option<Arc<Running>>,
    supervisor: Option<AbortOnDropHandle<()>>,
    /// Of the last claim.
    claim: u64,
    restarts: u32,
    /// What went wrong last.
    problem: String,
    progress: Progress,
    since: i64,
}

/// A supervisor's right to tell how its extension fares.
#[derive(Clone)]
pub(super) struct Charge {
    pub(super) name: String,
    claim: u64,
}

/// Somebody else is in charge by now.
pub(super) struct Dismissed;

impl Slots {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, table: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Takes a free name.
    pub(super) fn claim_free(&self, name: &str) -> Result<Claim<'_>, Status> {
        let table = lock(&self.table);
        if table.slots.contains_key(name) {
            return Err(Status::already_exists(format!(
                "an extension named `{name}` is already installed"
            )));
        }
        let slot = self.slot(ExtensionState::Starting);
        Ok(self.begin(table, name, slot, true))
    }

    /// Takes the name of an extension that was stored, when the core starts.
    pub(super) fn claim_stored(&self, name: &str) -> Claim<'_> {
        let slot = self.slot(ExtensionState::Starting);
        self.begin(lock(&self.table), name, slot, false)
    }

    /// Takes the name of an installed extension for a change that takes time.
    /// Who answers goes on answering only during an update.
    pub(super) fn claim(&self, name: &str, state: ExtensionState) -> Result<Claim<'_>, Status> {
        use ExtensionState::{Restarting, Running, Stopped, Updating};
        let mut table = lock(&self.table);
        let slot = table.slots.get(name).ok_or_else(|| not_installed(name))?;
        if !matches!(slot.state, Running | Restarting | Stopped) {
            let doing = slot.state.doing();
            return Err(Status::aborted(format!("the extension `{name}` is {doing}; try again")));
        }
        let mut slot = self.slot(state);
        let mut dismissed = None;
        let mut before = None;
        if let Some(old) = table.slots.remove(name) {
            if state == Updating {
                slot.running.clone_from(&old.running);
            }
            (before, dismissed) = (old.running, old.supervisor);
        }
        let mut claim = self.begin(table, name, slot, false);
        claim.before = before;
        // Not while the table is locked, which it may be about to lock itself.
        drop(dismissed);
        Ok(claim)
    }

    fn begin(
        &self,
        mut table: MutexGuard<'_, Table>,
        name: &str,
        mut slot: Slot,
        fresh: bool,
    ) -> Claim<'_> {
        table.claims += 1;
        slot.claim = table.claims;
        let charge = Charge { name: name.to_owned(), claim: slot.claim };
        let progress = slot.progress.clone();
        table.slots.insert(name.to_owned(), slot);
        drop(table);
        self.changed.send_replace(());
        Claim { slots: self, charge, before: None, progress, fresh, concluded: false }
    }

    fn slot(&self, state: ExtensionState) -> Slot {
        Slot {
            state,
            running: None,
            supervisor: None,
            claim: 0,
            restarts: 0,
            problem: String::new(),
            progress: Progress::default(),
            since: self.clock.unix_millis(),
        }
    }

    /// Who answers for a name.
    pub(super) fn running(&self, name: &str) -> Result<Arc<Running>, Status> {
        let table = lock(&self.table);
        let slot = table.slots.get(name).ok_or_else(|| not_installed(name))?;
        if let Some(running) = &slot.running {
            return Ok(Arc::clone(running));
        }
        if slot.state == ExtensionState::Stopped {
            return Err(Status::failed_precondition(format!("the extension `{name}` is disabled")));
        }
        let (doing, why) = (slot.state.doing(), slot.reason());
        let because = if why.is_empty() { String::new() } else { format!(" ({why})") };
        Err(Status::unavailable(format!("the extension `{name}` is {doing}{because}; try again")))
    }

    /// Whether it is this one that answers for a name.
    pub(super) fn is_answered_by(&self, name: &str, running: &Arc<Running>) -> bool {
        let table = lock(&self.table);
        let answers = table.slots.get(name).and_then(|slot| slot.running.as_ref());
        answers.is_some_and(|it| Arc::ptr_eq(it, running))
    }

    pub(super) fn status(&self, name: &str) -> Option<ExtensionStatus> {
        lock(&self.table).slots.get(name).map(Slot::status)
    }

    /// Of all, by their names.
    pub(super) fn statuses(&self) -> Vec<(String, ExtensionStatus)> {
        let table = lock(&self.table);
        let mut all: Vec<_> =
            table.slots.iter().map(|(name, slot)| (name.clone(), slot.status())).collect();
        drop(table);
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Woken at each change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Lets nothing come up any more, and gives all that runs.
    pub(super) fn close(&self) -> Vec<Arc<Running>> {
        let slots = {
            let mut table = lock(&self.table);
            table.closed = true;
            std::mem::take(&mut table.slots)
        };
        slots.into_values().filter_map(|slot| slot.running).collect()
    }

    /// It does not answer any more, or did not come up, and is going to be started
    /// again.
    pub(super) fn fell(&self, charge: &Charge, problem: &str) -> Result<(), Dismissed> {
        self.supervised(charge, |slot| {
            slot.running = None;
            slot.state = ExtensionState::Restarting;
            slot.restarts = slot.restarts.saturating_add(1);
            slot.since = self.clock.unix_millis();
            problem.clone_into(&mut slot.problem);
        })
    }

    /// It answers again.
    pub(super) fn rose(&self, charge: &Charge, running: &Arc<Running>) -> Result<(), Dismissed> {
        self.supervised(charge, |slot| {
            slot.running = Some(Arc::clone(running));
            slot.state = ExtensionState::Running;
            slot.since = self.clock.unix_millis();
        })
    }

    /// Where whoever is in charge tells what is being done.
    pub(super) fn progress(&self, charge: &Charge) -> Result<Progress, Dismissed> {
        let mut progress = Progress::default();
        self.supervised(charge, |slot| progress = slot.progress.clone())?;
        Ok(progress)
    }

    fn supervised(&self, charge: &Charge, tell: impl FnOnce(&mut Slot)) -> Result<(), Dismissed> {
        let mut table = lock(&self.table);
        let slot = table.slots.get_mut(&charge.name).ok_or(Dismissed)?;
        if slot.claim != charge.claim {
            return Err(Dismissed);
        }
        tell(slot);
        drop(table);
        self.changed.send_replace(());
        Ok(())
    }
}

impl Slot {
    fn reason(&self) -> String {
        let told = self.progress.told();
        match self.state {
            ExtensionState::Starting | ExtensionState::Updating if !told.is_empty() => told,
            _ => self.problem.clone(),
        }
    }

    fn status(&self) -> ExtensionStatus {
        ExtensionStatus {
            state: self.state,
            reason: self.reason(),
            restarts: self.restarts,
            since_unix_millis: self.since,
        }
    }
}

pub(super) fn not_installed(name: &str) -> Status {
    Status::not_found(format!("no extension named `{name}` is installed"))
}

/// A name that is being worked on. Dropped without a conclusion, because the
/// one who worked on it is gone, it leaves what can be left: an installation
/// that did not finish is gone, everything else is stopped.
pub(super) struct Claim<'a> {
    slots: &'a Slots,
    charge: Charge,
    /// Who answered until now.
    pub(super) before: Option<Arc<Running>>,
    pub(super) progress: Progress,
    /// The name was free before.
    fresh: bool,
    concluded: bool,
}

impl Claim<'_> {
    /// Stops who answered until now.
    pub(super) async fn stop(&self) {
        if let Some(running) = &self.before {
            running.contact.stop().await;
        }
    }

    /// Somebody answers from now on, but is not supervised yet.
    pub(super) fn take_over(&self, running: &Arc<Running>) {
        self.change(|slot| slot.running = Some(Arc::clone(running)));
    }

    /// In the charge of a supervisor: running, or on its way up. Nothing comes
    /// up in a core that is being stopped.
    pub(super) fn supervised(
        mut self,
        running: Option<&Arc<Running>>,
        problem: &str,
        supervise: impl FnOnce(Charge) -> AbortOnDropHandle<()>,
    ) {
        use ExtensionState::{Restarting, Running, Starting};
        if lock(&self.slots.table).closed {
            return;
        }
        self.concluded = true;
        let supervisor = supervise(self.charge.clone());
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

    pub(super) fn stopped(mut self) {
        self.concluded = true;
        self.set_stopped();
    }

    pub(super) fn gone(mut self) {
        self.concluded = true;
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
        // It may be another's by now: a stored one's, when the core starts.
        if table.slots.get(&self.charge.name).is_some_and(|it| it.claim == self.charge.claim) {
            table.slots.remove(&self.charge.name);
        }
        drop(table);
        self.slots.changed.send_replace(());
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        // Only gone where the core is being stopped.
        let _ = self.slots.supervised(&self.charge, change);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        match (self.concluded, self.fresh) {
            (true, _) => {}
            (false, true) => self.remove(),
            (false, false) => self.set_stopped(),
        }
    }
}
