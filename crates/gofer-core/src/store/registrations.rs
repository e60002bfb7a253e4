//! What is needed to start each installed extension again. The events about it are published by the
//! callers.

use std::collections::btree_map::Entry;

use tonic::Status;

use super::{Store, Tables};
use gofer_proto::ExtensionRegistration;
use gofer_proto::extension_registration::ExtensionStatus;

impl Store {
    pub(crate) fn put_registration(
        &self,
        registration: ExtensionRegistration,
    ) -> Result<(), Status> {
        let mut tables = self.tables();
        let Tables { registrations, journal, .. } = &mut *tables;
        match registrations.entry(registration.name.clone()) {
            Entry::Vacant(free) => {
                journal.put_registration(&registration)?;
                free.insert(registration);
                Ok(())
            }
            Entry::Occupied(taken) => Err(Status::already_exists(format!(
                "an extension named `{}` is already installed",
                taken.key()
            ))),
        }
    }

    /// Replaces the registration of an installed extension.
    pub(crate) fn replace_registration(
        &self,
        registration: ExtensionRegistration,
    ) -> Result<(), Status> {
        let mut tables = self.tables();
        let Tables { registrations, journal, .. } = &mut *tables;
        let place = registrations
            .get_mut(&registration.name)
            .ok_or_else(|| no_registration(&registration.name))?;
        journal.put_registration(&registration)?;
        *place = registration;
        Ok(())
    }

    pub(crate) fn registration(&self, name: &str) -> Option<ExtensionRegistration> {
        self.tables().registrations.get(name).cloned()
    }

    /// By their names.
    pub(crate) fn registrations(&self) -> Vec<ExtensionRegistration> {
        self.tables().registrations.values().cloned().collect()
    }

    /// Removes and returns a registration, and ends the subscriptions to it.
    pub(crate) fn remove_registration(&self, name: &str) -> Result<ExtensionRegistration, Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        let removed = tables.registrations.remove(name).ok_or_else(|| no_registration(name))?;
        tables.journal.remove_registration(name);
        tables.end_subscriptions(now, name);
        Ok(removed)
    }

    pub(crate) fn set_registration_status(
        &self,
        name: &str,
        status: ExtensionStatus,
    ) -> Result<(), Status> {
        let mut tables = self.tables();
        let Tables { registrations, journal, .. } = &mut *tables;
        let registration = registrations.get_mut(name).ok_or_else(|| no_registration(name))?;
        let mut changed = registration.clone();
        changed.set_status(status);
        journal.put_registration(&changed)?;
        *registration = changed;
        Ok(())
    }
}

pub(super) fn no_registration(name: &str) -> Status {
    Status::not_found(format!("no extension named `{name}` is installed"))
}
