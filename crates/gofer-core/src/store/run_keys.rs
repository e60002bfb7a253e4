//! The keys of runs. An extension gives a run a key in a variable, so that a start that it repeats,
//! because it does not know what became of the first, is answered with the run that exists.
//!
//! A key counts for one pipeline and one initiator, which is the extension and its label, for as
//! long as its run is kept. From anybody else the variables have no meaning.

use std::collections::HashMap;

use tonic::Status;

#[cfg(feature = "store")]
use super::Tables;
#[cfg(feature = "store")]
use super::initiator::split;
use gofer_net::auth::sha256;
use gofer_proto::Variable;
#[cfg(feature = "store")]
use gofer_proto::initiator::Type;
use gofer_sdk::internal::{RUN_KEY, SCHEDULED_AT};

/// The variables that an extension's run is identified by: its key, and the time it was scheduled
/// for.
pub(super) const IDENTITY: [&str; 2] = [RUN_KEY, SCHEDULED_AT];

/// The digest of an extension, its label and its key: as small for a long key as for a short one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RunKey([u8; 32]);

impl RunKey {
    /// Of a run that an extension starts, if it has one.
    pub(super) fn of(extension: &str, label: &str, variables: &[Variable]) -> Option<Self> {
        let key = &variables.iter().find(|it| it.key == RUN_KEY)?.value;
        let parts = [extension, label, key].map(|part| sha256(part.as_bytes()));
        Some(Self(sha256(parts.as_flattened())))
    }
}

/// Refuses a key that is there and empty, which can only be a mistake.
pub(super) fn check(variables: &[Variable]) -> Result<(), Status> {
    let is_empty = |it: &Variable| it.key == RUN_KEY && it.value.is_empty();
    if variables.iter().any(is_empty) {
        return Err(Status::invalid_argument(format!(
            "the variable `{RUN_KEY}` must not be empty; leave it out for a run without a key"
        )));
    }
    Ok(())
}

/// The runs of a pipeline that have a key.
#[derive(Default)]
pub(super) struct RunKeys {
    runs: HashMap<RunKey, i64>,
    /// The other way round.
    keys: HashMap<i64, RunKey>,
}

impl RunKeys {
    pub(super) fn find(&self, key: RunKey) -> Option<i64> {
        self.runs.get(&key).copied()
    }

    pub(super) fn insert(&mut self, key: RunKey, run: i64) {
        self.runs.insert(key, run);
        self.keys.insert(run, key);
    }

    /// Called when a run is removed.
    pub(super) fn remove(&mut self, run: i64) {
        if let Some(key) = self.keys.remove(&run)
            && self.find(key) == Some(run)
        {
            self.runs.remove(&key);
        }
    }
}

#[cfg(feature = "store")]
impl Tables {
    /// Reads the keys of the stored runs, once it is known which extensions are installed.
    pub(super) fn restore_run_keys(&mut self) {
        let pipelines = self.namespaces.values_mut().flat_map(|it| it.pipelines.values_mut());
        for pipeline in pipelines {
            for run in &pipeline.runs {
                let initiator = run.initiator.as_ref().filter(|it| it.r#type() == Type::Extension);
                let of = initiator.and_then(|it| split(&it.name, &self.registrations));
                let key = of.and_then(|(name, label)| RunKey::of(name, label, &run.variables));
                if let Some(key) = key {
                    pipeline.run_keys.insert(key, run.id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
