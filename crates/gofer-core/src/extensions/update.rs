//! Another image or configuration in the place of an installed extension's.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::Status;

use super::slots::Claim;
use super::{Extensions, Running};
use crate::launcher::check_image;
use crate::state::ExtensionState;
use gofer_proto::ExtensionRegistration;
use gofer_proto::embedded::UpdateExtensionRequest;
use gofer_proto::extension_registration::ExtensionStatus as Registered;

impl Extensions {
    /// Starts another one beside the one that serves, and lets it take over once
    /// it is ready. Where it does not come up, everything stays as it was.
    ///
    /// A disabled extension is changed and not started. Gives how many
    /// subscriptions the new one refused.
    pub(crate) async fn update(&self, request: UpdateExtensionRequest) -> Result<usize, Status> {
        let name = request.name.clone();
        let claim = self.slots.claim(&name, ExtensionState::Updating)?;
        // Nobody else changes it from here on.
        match self.replace(&claim, request).await {
            Ok(None) => {
                claim.stopped();
                Ok(0)
            }
            Ok(Some(new)) => {
                claim.supervised(Some(&new), "", |charge| self.supervise(charge, Some(&new)));
                Ok(self.restore_subscriptions(&name, &new).await)
            }
            Err(status) => {
                let enabled = self.registration(&name)?.status() == Registered::Enabled;
                if enabled {
                    let old = claim.before.clone();
                    let problem = format!("the update failed: {}", status.message());
                    claim.supervised(old.as_ref(), &problem, |charge| {
                        self.supervise(charge, old.as_ref())
                    });
                } else {
                    claim.stopped();
                }
                Err(status)
            }
        }
    }

    /// Who answers from now on; nobody where the extension is disabled.
    async fn replace(
        &self,
        claim: &Claim<'_>,
        request: UpdateExtensionRequest,
    ) -> Result<Option<Arc<Running>>, Status> {
        let after = changed(self.registration(&request.name)?, request)?;
        if after.status() != Registered::Enabled {
            self.store.replace_registration(after)?;
            return Ok(None);
        }
        let new = self.start(&after, &claim.progress).await?;
        self.store.replace_registration(after)?;
        // Whoever begins or ends a subscription waits from here on until the old
        // one has let go of all of them, so that none is ever held by both.
        new.in_charge.send_replace(false);
        claim.take_over(&new);
        claim.progress.tell("waiting for the old one to stop");
        claim.stop().await;
        new.in_charge.send_replace(true);
        Ok(Some(new))
    }
}

/// The registration as it is to be.
fn changed(
    mut registration: ExtensionRegistration,
    request: UpdateExtensionRequest,
) -> Result<ExtensionRegistration, Status> {
    let UpdateExtensionRequest { name: _, image, user, pass, variables, removed } = request;
    if !image.is_empty() {
        check_image(&image)?;
        registration.image = image;
    }
    if !user.is_empty() || !pass.is_empty() {
        (registration.user, registration.pass) = (user, pass);
    }
    for key in removed {
        if !remove(&mut registration.variables, &key) {
            return Err(Status::invalid_argument(format!(
                "`{key}` cannot be removed: the extension's configuration does not have it"
            )));
        }
    }
    for (key, value) in variables {
        // Extensions match keys without regard to case: `Every` takes the place
        // of `every`.
        remove(&mut registration.variables, &key);
        registration.variables.insert(key, value);
    }
    Ok(registration)
}

/// Without regard to case: whether there was one.
fn remove(variables: &mut HashMap<String, String>, key: &str) -> bool {
    let before = variables.len();
    variables.retain(|other, _| !other.eq_ignore_ascii_case(key));
    variables.len() < before
}
