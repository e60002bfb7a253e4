//! What is needed to start each installed extension again.

use tonic::Status;

use super::{EventKind, Options, Store, Tables};
use gofer_proto::ExtensionRegistration;
use gofer_proto::embedded::ExtensionOptions;
use gofer_proto::extension_registration::ExtensionStatus as Registered;

impl Store {
    /// Stores an extension that was installed under a free name.
    pub(crate) fn put_registration(
        &self,
        registration: ExtensionRegistration,
        options: Options,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        let Tables { registrations, journal, .. } = &mut *tables;
        let name = registration.name.clone();
        if registrations.contains_key(&name) {
            let why = format!("an extension named `{name}` is already installed");
            return Err(Status::already_exists(why));
        }
        journal.put_registration(&registration)?;
        tables.publish_extension(now, EventKind::ExtensionInstalled, &registration);
        tables.registrations.insert(name.clone(), registration);
        tables.set_options(name, options);
        Ok(())
    }

    /// Replaces the registration of an installed extension.
    pub(crate) fn replace_registration(
        &self,
        registration: ExtensionRegistration,
        options: Options,
    ) -> Result<(), Status> {
        let mut tables = self.change()?;
        let Tables { registrations, journal, .. } = &mut *tables;
        let name = registration.name.clone();
        let place = registrations
            .get_mut(&registration.name)
            .ok_or_else(|| not_installed(&registration.name))?;
        journal.put_registration(&registration)?;
        *place = registration;
        tables.set_options(name, options);
        Ok(())
    }

    pub(crate) fn registration(&self, name: &str) -> Option<ExtensionRegistration> {
        self.tables().registrations.get(name).cloned()
    }

    /// By their names.
    pub(crate) fn registrations(&self) -> Vec<ExtensionRegistration> {
        self.tables().registrations.values().cloned().collect()
    }

    /// Removes an extension and ends the subscriptions to it.
    pub(crate) fn remove_registration(&self, name: &str) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        let removed = tables.registrations.remove(name).ok_or_else(|| not_installed(name))?;
        tables.journal.remove_registration(name);
        tables.set_options(name.to_owned(), Options::default());
        tables.end_subscriptions(now, name);
        tables.publish_extension(now, EventKind::ExtensionUninstalled, &removed);
        Ok(())
    }

    /// Enables or disables an extension.
    pub(crate) fn set_registration_status(
        &self,
        name: &str,
        status: Registered,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        let Tables { registrations, journal, .. } = &mut *tables;
        let registration = registrations.get_mut(name).ok_or_else(|| not_installed(name))?;
        let mut changed = registration.clone();
        changed.set_status(status);
        journal.put_registration(&changed)?;
        registration.clone_from(&changed);
        let kind = match status {
            Registered::Disabled => EventKind::ExtensionDisabled,
            Registered::Enabled | Registered::UnknownStatus => EventKind::ExtensionEnabled,
        };
        tables.publish_extension(now, kind, &changed);
        Ok(())
    }
}

impl Tables {
    /// The default ones are not stored.
    pub(super) fn set_options(&mut self, name: String, options: Options) {
        if options.message != ExtensionOptions::default() {
            self.journal.put_options(&name, &options.message);
            self.options.insert(name, options);
        } else if self.options.remove(&name).is_some() {
            self.journal.remove_options(&name);
        }
    }
}

pub(crate) fn not_installed(name: &str) -> Status {
    Status::not_found(format!("no extension named `{name}` is installed"))
}
