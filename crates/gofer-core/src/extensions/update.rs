//! Replacing the image, configuration or options of an installed extension.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::Status;

use super::slots::SlotGuard;
use super::{Extensions, Running};
use crate::launcher::check_image;
use crate::limits::ContainerLimits;
use crate::state::ExtensionState;
use crate::store::Store;
use gofer_proto::ExtensionRegistration;
use gofer_proto::embedded::UpdateExtensionRequest;
use gofer_proto::extension_registration::ExtensionStatus as Registered;

impl Extensions {
    /// Launches the changed extension beside the old one, which it replaces once it is up. If it
    /// does not come up, nothing changes, except that what other options take back stays taken back:
    /// that is not up to the extension.
    ///
    /// A disabled extension is changed but not launched. Returns how many subscriptions the new one
    /// refused.
    pub(crate) async fn update(&self, request: UpdateExtensionRequest) -> Result<usize, Status> {
        let name = request.name.clone();
        let guard = self.slots.acquire(&name, ExtensionState::Updating)?;
        // Nothing else can change it from here on.
        match self.replace(&guard, request).await {
            Ok(None) => {
                guard.finish_stopped();
                Ok(0)
            }
            Ok(Some(new)) => {
                guard.finish_supervised(Some(&new), "", |lease| self.supervise(lease, Some(&new)));
                Ok(self.restore_subscriptions(&name, &new).await)
            }
            Err(status) => {
                let old = guard.before.clone();
                let problem = format!("the update failed: {}", status.message());
                self.go_on(&name, guard, old.as_ref(), &problem);
                Err(status)
            }
        }
    }

    /// Returns the extension that takes calls from now on; `None` if it is disabled.
    async fn replace(
        &self,
        guard: &SlotGuard<'_>,
        mut request: UpdateExtensionRequest,
    ) -> Result<Option<Arc<Running>>, Status> {
        let set = request.options.take().unwrap_or_default();
        let options = self.store.options(&request.name).updated(set, &request.reset_options)?;
        let after = changed(self.registration(&request.name)?, request)?;
        ContainerLimits::check_image(&options.message, &after.image)?;
        if after.status() != Registered::Enabled {
            self.store.resolved_configuration(&after)?;
            let update = |store: &Store| store.replace_registration(after, options);
            return self.store.committed(update).await.map(|()| None);
        }
        self.store.committed(|store| store.narrow_options(&after.name, &options)).await?;
        self.store.narrow_access(&after.name);
        let new = self.bring_up(&after, &options, &guard.progress).await?;
        let update = |store: &Store| store.replace_registration(after, options);
        if let Err(status) = self.store.committed(update).await {
            new.handle.stop().await;
            return Err(status);
        }
        // From here on, calls that begin or end a subscription wait until the old extension has
        // stopped, so that no subscription is ever held by both.
        new.owns_subscriptions.send_replace(false);
        guard.take_over(&new);
        guard.progress.report("waiting for the old one to stop");
        guard.stop().await;
        new.owns_subscriptions.send_replace(true);
        Ok(Some(new))
    }
}

/// The registration after the update.
fn changed(
    mut registration: ExtensionRegistration,
    request: UpdateExtensionRequest,
) -> Result<ExtensionRegistration, Status> {
    let UpdateExtensionRequest { image, user, pass, variables, removed, .. } = request;
    if !image.is_empty() {
        check_image(&image)?;
        registration.image = image;
    }
    if !user.is_empty() || !pass.is_empty() {
        (registration.user, registration.pass) = (user, pass);
    }
    for key in removed {
        if !remove_key(&mut registration.variables, &key) {
            return Err(Status::invalid_argument(format!(
                "`{key}` cannot be removed: the extension's configuration does not have it"
            )));
        }
    }
    for (key, value) in variables {
        // Extensions ignore the case of keys: `Every` replaces `every`.
        remove_key(&mut registration.variables, &key);
        registration.variables.insert(key, value);
    }
    Ok(registration)
}

/// Ignores case; returns whether the key was there.
fn remove_key(variables: &mut HashMap<String, String>, key: &str) -> bool {
    let before = variables.len();
    variables.retain(|other, _| !other.eq_ignore_ascii_case(key));
    variables.len() < before
}
