//! Who starts a run, and how much a start may bring along.
//!
//! The initiator of an extension's run is `<name> (<label>)`. The name of an extension contains no
//! ` (`, so its end is found. In the store of an earlier version there may be one that does: it then
//! is that of the installed extension with the longest name.

use std::collections::BTreeMap;

use tonic::Status;

use super::{By, check_name};
use gofer_proto::initiator::Type;
use gofer_proto::{ExtensionRegistration, Initiator, Variable};

/// Bounds on what every run carries, and its events repeat. A name has room for that of an extension
/// and a label.
const MAX_NAME_BYTES: usize = 512;
const MAX_REASON_BYTES: usize = 4096;
const MAX_VARIABLES_BYTES: usize = 256 * 1024;

/// The initiator of a start, which has a name. Gofer refuses a start without one too; that of an
/// extension is checked with everything else in it.
pub(super) fn of_start(initiator: Option<Initiator>, by: &By) -> Result<Initiator, Status> {
    let initiator = initiator.unwrap_or_default();
    if initiator.name.is_empty() && by.extension().is_none() {
        return Err(Status::invalid_argument(
            "`initiator.name` is required: it says who starts the run",
        ));
    }
    Ok(initiator)
}

/// Checks the length of the texts in an initiator.
pub(super) fn check_length(initiator: &Initiator) -> Result<(), Status> {
    check_bytes("`initiator.name` has", initiator.name.len(), MAX_NAME_BYTES)?;
    check_bytes("`initiator.reason` has", initiator.reason.len(), MAX_REASON_BYTES)
}

/// Checks the length of all variables together.
pub(super) fn check_variables(variables: &[Variable]) -> Result<(), Status> {
    let bytes = variables.iter().map(|it| it.key.len() + it.value.len()).sum();
    check_bytes("`variables` together have", bytes, MAX_VARIABLES_BYTES)
}

fn check_bytes(what: &str, bytes: usize, most: usize) -> Result<(), Status> {
    if bytes <= most {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{what} {bytes} bytes; at most {most} are accepted")))
}

/// An extension starts runs in its own name, and nobody else does. Returns its label.
pub(super) fn check<'a>(
    initiator: &'a Initiator,
    by: &By,
    installed: &BTreeMap<String, ExtensionRegistration>,
) -> Result<Option<&'a str>, Status> {
    let is_extension = initiator.r#type() == Type::Extension;
    let Some(by) = by.extension() else {
        if is_extension {
            return Err(Status::permission_denied(
                "`initiator.type` is EXTENSION, which only an extension may send, with its own key; \
                 use BOT or HUMAN",
            ));
        }
        return Ok(None);
    };
    let label = label(&by.name, &initiator.name).filter(|_| is_extension);
    let Some(label) = label else {
        return Err(Status::permission_denied(format!(
            "the extension `{0}` starts runs as itself: `initiator.type` must be EXTENSION and \
             `initiator.name` must be `{0} (<label>)`",
            by.name
        )));
    };
    let longest = split(&initiator.name, |it| installed.contains_key(it));
    if longest.is_some_and(|(name, _)| name.len() > by.name.len()) {
        return Err(Status::permission_denied(format!(
            "the `initiator.name` of the extension `{}` is that of another extension; use another \
             label",
            by.name
        )));
    }
    check_name("label in `initiator.name`", label)?;
    Ok(Some(label))
}

/// The extension that an initiator's name is of, and its label.
pub(super) fn split(initiator: &str, is_installed: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let mut splits = initiator.match_indices(" (").filter_map(|(end, _)| {
        let extension = initiator.get(..end)?;
        Some((extension, label(extension, initiator)?))
    });
    let first = splits.next()?;
    let splits = std::iter::once(first).chain(splits);
    Some(splits.filter(|(name, _)| is_installed(name)).last().unwrap_or(first))
}

fn label<'a>(extension: &str, initiator: &'a str) -> Option<&'a str> {
    let label = initiator.strip_prefix(extension)?.strip_prefix(" (")?.strip_suffix(')')?;
    (!label.is_empty()).then_some(label)
}
