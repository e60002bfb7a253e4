//! How extensions were installed, beyond what Gofer's contract has.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;

use super::namespaces::NamespaceTable;
use super::patterns::Patterns;
use super::{Store, Tables};
use crate::grants::Grant;
use gofer_proto::embedded::ExtensionOptions;

/// A pattern for no namespace: their names do not contain it. No patterns are for all namespaces.
const NO_NAMESPACE: &str = "/";

/// The options of an extension. By default it has no grants, and all namespaces may use it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// As they are stored and shown.
    pub(crate) message: ExtensionOptions,
    pub(crate) grants: BTreeSet<Grant>,
    namespaces: Patterns,
}

impl Default for Options {
    fn default() -> Self {
        Self::with(ExtensionOptions::default(), BTreeSet::new(), Patterns::none())
    }
}

impl Options {
    /// # Errors
    ///
    /// If a grant is not known or a pattern cannot be used.
    pub(crate) fn new(message: ExtensionOptions) -> Result<Self, Status> {
        let grants = message.grants.iter().map(|name| name.parse());
        let grants = grants
            .collect::<Result<_, _>>()
            .map_err(|error: gofer_sdk::Error| Status::invalid_argument(error.to_string()))?;
        let namespaces = Patterns::new(&message.namespaces)?;
        Ok(Self::with(message, grants, namespaces))
    }

    /// Options that were accepted when they were stored, perhaps by another version. A grant that is
    /// not known grants nothing.
    #[cfg(feature = "store")]
    pub(super) fn restore(message: ExtensionOptions) -> Self {
        let grants = message.grants.iter().filter_map(|name| name.parse().ok()).collect();
        let namespaces = Patterns::restore(&message.namespaces);
        Self::with(message, grants, namespaces)
    }

    /// Each grant once, in a fixed order.
    fn with(message: ExtensionOptions, grants: BTreeSet<Grant>, namespaces: Patterns) -> Self {
        let names = grants.iter().map(ToString::to_string).collect();
        Self { message: ExtensionOptions { grants: names, ..message }, grants, namespaces }
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
        let message = ExtensionOptions { namespaces, ..ExtensionOptions::default() };
        Self::with(message, Grant::common(&self.grants, &other.grants), patterns)
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
            "the extension `{extension}` is not for the namespace `{namespace}`; its options say \
             which namespaces may use it"
        )))
    }
}

impl Store {
    /// The default ones if there is no such extension.
    pub(crate) fn options(&self, extension: &str) -> Options {
        self.tables().options.get(extension).cloned().unwrap_or_default()
    }

    /// Takes back what new options do not allow an extension any more, also from its keys. What they
    /// allow in addition is not given yet.
    pub(crate) fn narrow_options(&self, extension: &str, to: &Options) {
        let mut tables = self.tables();
        let Tables { options, access, namespaces, .. } = &mut *tables;
        let now = options.get(extension).cloned().unwrap_or_default();
        let narrowed = now.common(to, namespaces);
        access.narrow(extension, &narrowed);
        tables.set_options(extension.to_owned(), narrowed);
        drop(tables);
        self.tokens_changed.send_replace(());
    }
}

#[cfg(test)]
mod tests;
