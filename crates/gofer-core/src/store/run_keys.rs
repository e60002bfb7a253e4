//! The keys of runs. An extension gives a run a key in a variable, so that a start that it repeats,
//! because it does not know what became of the first, is answered with the run that exists.
//!
//! A key counts for one pipeline and one initiator, which is the extension and its label, for as
//! long as its run is kept. From anybody else the variables have no meaning.

use tonic::Status;

use super::journal::RecordKind;
use gofer_net::auth::sha256;
use gofer_proto::{PipelineMetadata, Variable};
use gofer_sdk::internal::{RUN_KEY, SCHEDULED_AT};

/// The variables that an extension's run is identified by: its key, and the time it was scheduled
/// for.
pub(super) const IDENTITY: [&str; 2] = [RUN_KEY, SCHEDULED_AT];

/// The digest of an extension, its label and its key: as small for a long key as for a short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunKey([u8; 32]);

impl RunKey {
    /// Of a run that an extension starts, if it has one.
    pub(super) fn of(extension: &str, label: &str, variables: &[Variable]) -> Option<Self> {
        let key = &variables.iter().find(|it| it.key == RUN_KEY)?.value;
        let parts = [extension, label, key].map(|part| sha256(part.as_bytes()));
        Some(Self(sha256(parts.as_flattened())))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn restore(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
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

/// The record of which run has a key.
pub(super) fn record_key(of: &PipelineMetadata, key: RunKey) -> Vec<u8> {
    let mut record = RecordKind::RunKey.key(&[&of.namespace, &of.id], None);
    record.extend(key.0);
    record
}

#[cfg(test)]
mod tests;
