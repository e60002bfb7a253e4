//! How extensions were installed, beyond what Gofer's contract has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::Status;

use super::namespaces::NamespaceTable;
use super::patterns::Patterns;
use super::{Store, Tables};
use crate::grants::Grant;
use crate::launcher::is_container;
use crate::limits::{ContainerLimits, Timeouts};
use gofer_proto::embedded::ExtensionOptions;

/// A pattern for no namespace: their names do not contain it. No patterns are for all namespaces.
const NO_NAMESPACE: &str = "/";

/// The options of an extension. By default it has no grants, and all namespaces may use it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// As they are stored: without those that were not given.
    pub(crate) message: ExtensionOptions,
    pub(crate) grants: BTreeSet<Grant>,
    pub(crate) limits: ContainerLimits,
    pub(crate) timeouts: Timeouts,
    namespaces: Patterns,
}

impl Default for Options {
    fn default() -> Self {
        let none = ExtensionOptions::default();
        let (limits, timeouts) = (ContainerLimits::restore(&none), Timeouts::restore(&none));
        Self::with(none, BTreeSet::new(), Patterns::none(), limits, timeouts)
    }
}

impl Options {
    /// # Errors
    ///
    /// If a grant is not known, a pattern cannot be used, or a number is out of range.
    pub(crate) fn new(message: ExtensionOptions) -> Result<Self, Status> {
        let grants = message.grants.iter().map(|name| name.parse());
        let grants = grants
            .collect::<Result<_, _>>()
            .map_err(|error: gofer_sdk::Error| Status::invalid_argument(error.to_string()))?;
        let namespaces = Patterns::new(&message.namespaces)?;
        let (limits, timeouts) = (ContainerLimits::new(&message)?, Timeouts::new(&message)?);
        Ok(Self::with(message, grants, namespaces, limits, timeouts))
    }

    /// Options that were accepted when they were stored, perhaps by another version. A grant that is
    /// not known grants nothing.
    #[cfg(feature = "store")]
    pub(super) fn restore(message: ExtensionOptions) -> Self {
        let grants = message.grants.iter().filter_map(|name| name.parse().ok()).collect();
        let namespaces = Patterns::restore(&message.namespaces);
        let (limits, timeouts) = (ContainerLimits::restore(&message), Timeouts::restore(&message));
        Self::with(message, grants, namespaces, limits, timeouts)
    }

    /// Each grant once, in a fixed order.
    fn with(
        message: ExtensionOptions,
        grants: BTreeSet<Grant>,
        namespaces: Patterns,
        limits: ContainerLimits,
        timeouts: Timeouts,
    ) -> Self {
        let names = grants.iter().map(ToString::to_string).collect();
        let message = ExtensionOptions { grants: names, ..message };
        Self { message, grants, limits, timeouts, namespaces }
    }

    /// The options after an update, which keeps what it neither resets nor sets.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and if there is no option of a name to reset.
    pub(crate) fn updated(&self, set: ExtensionOptions, reset: &[String]) -> Result<Self, Status> {
        let mut message = self.message.clone();
        for name in reset {
            RESET
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, reset)| reset(&mut message))
                .ok_or_else(|| {
                    let known = RESET.map(|(name, _)| format!("`{name}`")).join(", ");
                    Status::invalid_argument(format!(
                        "`reset_options` has an unknown option; known are {known}"
                    ))
                })?;
        }
        let kept = message;
        Self::new(ExtensionOptions {
            grants: if set.grants.is_empty() { kept.grants } else { set.grants },
            namespaces: if set.namespaces.is_empty() { kept.namespaces } else { set.namespaces },
            memory: set.memory.or(kept.memory),
            processes: set.processes.or(kept.processes),
            writable_root: set.writable_root.or(kept.writable_root),
            start_timeout: set.start_timeout.or(kept.start_timeout),
            call_timeout: set.call_timeout.or(kept.call_timeout),
            stop_timeout: set.stop_timeout.or(kept.stop_timeout),
        })
    }

    /// As they are shown: with the values in effect for an extension of this image.
    pub(crate) fn in_effect(&self, image: &str) -> ExtensionOptions {
        let ContainerLimits { memory, processes, writable_root } = self.limits;
        let millis =
            |timeout: Duration| Some(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        let limited = is_container(image);
        ExtensionOptions {
            memory: limited.then_some(memory),
            processes: limited.then_some(processes),
            writable_root: limited.then_some(writable_root),
            start_timeout: millis(self.timeouts.start),
            call_timeout: millis(self.timeouts.call),
            stop_timeout: millis(self.timeouts.stop),
            ..self.message.clone()
        }
    }

    /// What both of them allow. If neither has the patterns of the other, their names are listed of
    /// the namespaces that there are.
    fn common(&self, other: &Self, existing: &BTreeMap<String, NamespaceTable>) -> Self {
        let (one, two) = (&self.message.namespaces, &other.message.namespaces);
        let has_all = |some: &[String], all: &[String]| some.iter().all(|it| all.contains(it));
        let namespaces = if two.is_empty() || (!one.is_empty() && has_all(one, two)) {
            one.clone()
        } else if one.is_empty() || has_all(two, one) {
            two.clone()
        } else {
            let both = existing.keys().filter(|it| self.allows(it) && other.allows(it));
            let both: Vec<_> = both.map(|name| regex_lite::escape(name)).collect();
            if both.is_empty() { vec![NO_NAMESPACE.to_owned()] } else { both }
        };
        let patterns = Patterns::restore(&namespaces);
        let message = ExtensionOptions { namespaces, ..self.message.clone() };
        let grants = Grant::common(&self.grants, &other.grants);
        Self::with(message, grants, patterns, self.limits, self.timeouts)
    }

    /// Whether a pipeline of this namespace may subscribe.
    pub(super) fn allows(&self, namespace: &str) -> bool {
        self.message.namespaces.is_empty() || self.namespaces.matches(namespace)
    }

    /// Checks that a pipeline of this namespace may subscribe.
    pub(crate) fn check_namespace(&self, extension: &str, namespace: &str) -> Result<(), Status> {
        if self.allows(namespace) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "the extension `{extension}` is not for the namespace `{namespace}`; its option \
             `namespaces` says which may use it"
        )))
    }
}

/// Gives an option its default.
type Reset = fn(&mut ExtensionOptions);

/// All options, by their names.
pub(crate) const RESET: [(&str, Reset); 8] = [
    ("grants", |it| it.grants.clear()),
    ("namespaces", |it| it.namespaces.clear()),
    ("memory", |it| it.memory = None),
    ("processes", |it| it.processes = None),
    ("writable_root", |it| it.writable_root = None),
    ("start_timeout", |it| it.start_timeout = None),
    ("call_timeout", |it| it.call_timeout = None),
    ("stop_timeout", |it| it.stop_timeout = None),
];

impl Store {
    /// The default ones if there is no such extension.
    pub(crate) fn options(&self, extension: &str) -> Options {
        self.tables().options.get(extension).cloned().unwrap_or_default()
    }

    /// Whether one of these namespaces may use an extension.
    pub(crate) fn may_be_used(&self, extension: &str, readable: impl Fn(&str) -> bool) -> bool {
        let tables = self.tables();
        let options = tables.options.get(extension);
        let allows = |namespace: &str| options.is_none_or(|it| it.allows(namespace));
        tables.namespaces.keys().any(|namespace| allows(namespace) && readable(namespace))
    }

    /// Takes back what new options do not allow an extension any more. What they allow in addition is
    /// not given yet.
    pub(crate) fn narrow_options(&self, extension: &str, to: &Options) -> Result<(), Status> {
        let mut tables = self.change()?;
        let now = tables.options.get(extension).cloned().unwrap_or_default();
        let narrowed = now.common(to, &tables.namespaces);
        tables.set_options(extension.to_owned(), narrowed);
        Ok(())
    }

    /// Takes back what its options do not allow an extension from the keys that it was given.
    pub(crate) fn narrow_access(&self, extension: &str) {
        let mut tables = self.tables();
        let Tables { options, access, .. } = &mut *tables;
        access.narrow(extension, &options.get(extension).cloned().unwrap_or_default());
        drop(tables);
        self.tokens_changed.send_replace(());
    }
}

#[cfg(test)]
mod tests;
