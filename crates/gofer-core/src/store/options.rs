//! How extensions were installed, beyond what Gofer's contract has.

use std::collections::BTreeSet;

use tonic::Status;

use super::Store;
use super::patterns::Patterns;
use crate::grants::Grant;
use gofer_proto::embedded::ExtensionOptions;

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

    /// Checks that a pipeline of this namespace may subscribe.
    pub(crate) fn check_namespace(&self, extension: &str, namespace: &str) -> Result<(), Status> {
        if self.message.namespaces.is_empty() || self.namespaces.matches(namespace) {
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
}

#[cfg(test)]
mod tests;
