//! The keys of runs. An extension gives a run a key in a variable, so that a start that it repeats,
//! because it does not know what became of the first, is answered with the run that exists.
//!
//! A key counts for one pipeline and one initiator, which is the extension and its label, for as
//! long as its run is kept. From anybody else the variables have no meaning.

use std::collections::HashMap;

use tonic::Status;

use gofer_net::auth::sha256;
use gofer_proto::initiator::Type;
use gofer_proto::{Initiator, Run, Variable};

/// The variable with the key.
const RUN_KEY: &str = "GOFER_EXTENSION_RUN_KEY";

/// The variables that an extension's run is identified by: its key, and the time it was scheduled
/// for.
pub(super) const IDENTITY: [&str; 2] = [RUN_KEY, "GOFER_EXTENSION_SCHEDULED_AT"];

/// The digest of an initiator and its key: as small for a long key as for a short one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RunKey([u8; 32]);

impl RunKey {
    /// Of a run that an extension starts, if it has one.
    pub(super) fn of(initiator: &Initiator, variables: &[Variable]) -> Option<Self> {
        if initiator.r#type() != Type::Extension {
            return None;
        }
        let key = &variables.iter().find(|it| it.key == RUN_KEY)?.value;
        let name = sha256(initiator.name.as_bytes());
        Some(Self(sha256(&[&name, key.as_bytes()].concat())))
    }
}

/// Refuses a key that is there and empty, which can only be a mistake.
pub(super) fn check(initiator: &Initiator, variables: &[Variable]) -> Result<(), Status> {
    let is_empty = |it: &Variable| it.key == RUN_KEY && it.value.is_empty();
    if initiator.r#type() == Type::Extension && variables.iter().any(is_empty) {
        return Err(Status::invalid_argument(format!(
            "the variable `{RUN_KEY}` must not be empty; leave it out for a run without a key"
        )));
    }
    Ok(())
}

/// The runs of a pipeline that have a key.
#[derive(Default)]
pub(super) struct RunKeys(HashMap<RunKey, i64>);

impl RunKeys {
    pub(super) fn find(&self, key: RunKey) -> Option<i64> {
        self.0.get(&key).copied()
    }

    pub(super) fn insert(&mut self, run: &Run) {
        if let Some(key) = of(run) {
            self.0.insert(key, run.id);
        }
    }

    /// Called when a run is removed.
    pub(super) fn remove(&mut self, run: &Run) {
        if !self.0.is_empty()
            && let Some(key) = of(run)
            && self.find(key) == Some(run.id)
        {
            self.0.remove(&key);
        }
    }
}

fn of(run: &Run) -> Option<RunKey> {
    RunKey::of(run.initiator.as_ref()?, &run.variables)
}

#[cfg(test)]
mod tests;
