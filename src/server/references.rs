//! References to secrets and objects, which Gofer resolves before an extension sees them.
//!
//! A full Gofer 0.6.2 does so for subscriptions alone: in a configuration, a reference arrives as it
//! was typed, and would be a secret that anybody can guess.

use crate::error::{Error, ErrorKind, Problem, Result};
use crate::extension::Settings;

/// How a reference begins.
const REFERENCES: [&str; 3] = ["pipeline_secret{{", "global_secret{{", "pipeline_object{{"];

/// Whether the whole value is a reference.
pub(super) fn is_reference(value: &str) -> bool {
    let value = value.trim();
    value.ends_with("}}") && REFERENCES.iter().any(|kind| value.starts_with(kind))
}

/// # Errors
///
/// Of `kind`, with the first setting that is a reference.
pub(super) fn refuse_unresolved(settings: &Settings, kind: ErrorKind) -> Result<()> {
    let Some((key, _)) = settings.iter().find(|(_, value)| is_reference(value)) else {
        return Ok(());
    };
    let why = "is a reference, which Gofer has not resolved; set the value itself";
    Err(Error::invalid(kind, vec![Problem::new(key, why)]))
}
