//! The extensions of a core: installed, updated, enabled, disabled, uninstalled,
//! and called.
//!
//! How one is started is the [`launcher`](super::launcher)'s business; what is
//! remembered of them, the store's; who watches them and starts them again, the
//! [`supervisor`]'s. Which there are in this process, and who may change one, is
//! in [`slots`].

mod slots;
mod start;
mod supervisor;
mod update;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::contact::{Contact, Token, Tokens, lock};
use super::launcher::{Containers, InProcess, check_image, end_left_behind};
use super::state::{ExtensionState, ExtensionStatus};
use super::store::{EventKind, Store};
use gofer_net::Clock;
use gofer_net::{Effect, Transport, effect};
use gofer_proto as proto;
use gofer_proto::extension_registration::ExtensionStatus as Registered;
use gofer_proto::extension_service_client::ExtensionServiceClient;
use slots::{Claim, Slots, not_installed};
pub(super) use start::Installer;

/// How long what runs extensions may take to end once all were asked to stop,
/// those included that were on their way up.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// What all extensions of a core have in common.
pub(super) struct Common {
    /// Where child processes find the core's API.
    pub(super) gofer_host: String,
    pub(super) log_level: String,
    /// Between two health checks of an extension.
    pub(super) health_check_period: Duration,
}

pub(super) struct Extensions {
    /// For the tasks that it starts, which must not keep it.
    this: Weak<Self>,
    store: Arc<Store>,
    clock: Clock,
    pub(super) in_process: InProcess,
    containers: Containers,
    common: Common,
    slots: Slots,
    tokens: Tokens,
    /// What runs extensions, until it has ended.
    lives: TaskTracker,
    /// Cancelled when the core stops: nothing comes up from then on, and
    /// conversations with installers end.
    pub(super) stopping: CancellationToken,
    /// When a subscription was last begun.
    subscribed: Mutex<Instant>,
}

/// An extension that has answered Init and Info.
struct Running {
    contact: Contact,
    documentation: String,
    started: i64,
    /// Whether subscriptions are its business: during an update, not before the
    /// one that it replaces has let go of them.
    in_charge: watch::Sender<bool>,
}

impl Running {
    async fn in_charge(&self) {
        // The sender is this very value's.
        let _ = self.in_charge.subscribe().wait_for(|in_charge| *in_charge).await;
    }
}

/// An extension that was stored, and is neither started nor stopped so far.
pub(super) struct Stored<'a> {
    claim: Claim<'a>,
    registration: proto::ExtensionRegistration,
}

impl Extensions {
    pub(super) fn new(
        store: Arc<Store>,
        clock: Clock,
        in_process: InProcess,
        containers: Containers,
        common: Common,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            store,
            clock,
            in_process,
            containers,
            common,
            slots: Slots::new(clock),
            tokens: Tokens::default(),
            lives: TaskTracker::new(),
            stopping: CancellationToken::new(),
            subscribed: Mutex::new(Instant::now()),
        })
    }

    /// Lets a token do everything, for as long as what comes back lives.
    pub(super) fn let_in(&self, token: &str) -> Token {
        self.tokens.let_in(token)
    }

    pub(super) fn knows_token(&self, digest: &[u8; 32]) -> bool {
        self.tokens.contains(digest)
    }

    /// Starts an extension under a free name, and remembers it once it runs.
    pub(super) async fn install(
        &self,
        request: proto::InstallExtensionRequest,
    ) -> Result<(), Status> {
        let proto::InstallExtensionRequest { name, image, user, pass, variables } = request;
        if name.is_empty() || image.is_empty() {
            return Err(Status::invalid_argument("`name` and `image` must not be empty"));
        }
        check_image(&image)?;
        let claim = self.slots.claim_free(&name)?;
        let registration = proto::ExtensionRegistration {
            name,
            image,
            user,
            pass,
            variables,
            created: self.clock.unix_millis(),
            status: Registered::Enabled.into(),
        };
        let running = self.start(&registration, &claim.progress).await?;
        self.store.put_registration(registration.clone())?;
        claim.supervised(Some(&running), "", |charge| self.supervise(charge, Some(&running)));
        self.publish(EventKind::ExtensionInstalled, &registration.name);
        Ok(())
    }

    /// Stops an extension and forgets it and its subscriptions.
    pub(super) async fn uninstall(&self, name: &str) -> Result<(), Status> {
        let claim = self.slots.claim(name, ExtensionState::Stopping)?;
        claim.stop().await;
        self.store.remove_subscriptions_of_extension(name);
        self.store.remove_registration(name)?;
        claim.gone();
        self.publish(EventKind::ExtensionUninstalled, name);
        Ok(())
    }

    pub(super) async fn enable(&self, name: &str) -> Result<(), Status> {
        let runs = self.status(name).is_some_and(|status| status.state == ExtensionState::Running);
        if runs && self.registration(name)?.status() == Registered::Enabled {
            return Ok(());
        }
        self.start_afresh(name, true).await
    }

    pub(super) async fn disable(&self, name: &str) -> Result<(), Status> {
        let claim = self.slots.claim(name, ExtensionState::Stopping)?;
        claim.stop().await;
        self.store.set_registration_status(name, Registered::Disabled)?;
        claim.stopped();
        self.publish(EventKind::ExtensionDisabled, name);
        Ok(())
    }

    /// Stops an extension, starts it afresh and restores its subscriptions.
    pub(super) async fn restart(&self, name: &str) -> Result<(), Status> {
        self.start_afresh(name, false).await
    }

    async fn start_afresh(&self, name: &str, enable: bool) -> Result<(), Status> {
        let claim = self.slots.claim(name, ExtensionState::Starting)?;
        // Looked up now that nobody else changes it.
        let registration = self.registration(name)?;
        claim.stop().await;
        match self.start(&registration, &claim.progress).await {
            Ok(running) => {
                // Before the name is let go: who disables it after that has the
                // last word.
                if enable && registration.status() != Registered::Enabled {
                    self.store.set_registration_status(name, Registered::Enabled)?;
                    self.publish(EventKind::ExtensionEnabled, name);
                }
                claim.supervised(Some(&running), "", |charge| {
                    self.supervise(charge, Some(&running))
                });
                self.restore_subscriptions(name, &running).await;
                Ok(())
            }
            Err(status) => {
                if registration.status() == Registered::Enabled {
                    // It goes on being tried.
                    let problem = status.message();
                    claim.supervised(None, problem, |charge| self.supervise(charge, None));
                } else {
                    claim.stopped();
                }
                Err(status)
            }
        }
    }

    /// Ends what an earlier core, which was killed, left behind of what it had
    /// started.
    pub(super) async fn end_left_behind(&self) {
        let starts = self.store.launches();
        if starts.is_empty() {
            return;
        }
        end_left_behind(starts.clone()).await;
        for digest in &starts {
            self.store.end_launch(digest);
        }
        let Some(this) = self.this.upgrade() else { return };
        // In the background: there may be no engine, or a slow one.
        self.lives.spawn(async move { this.containers.remove_left_behind(starts).await });
    }

    /// Takes the names of all extensions that are stored, before anybody can ask
    /// for them.
    pub(super) fn claim_stored(&self) -> Vec<Stored<'_>> {
        let registrations = self.store.registrations().into_iter();
        registrations
            .map(|it| Stored { claim: self.slots.claim_stored(&it.name), registration: it })
            .collect()
    }

    /// Starts those that are enabled, side by side, and restores their
    /// subscriptions, in the background. One that does not come up delays no
    /// other.
    pub(super) fn restore_all(&self, stored: Vec<Stored<'_>>) {
        for Stored { claim, registration } in stored {
            if registration.status() == Registered::Enabled {
                claim.supervised(None, "", |charge| self.supervise(charge, None));
            } else {
                claim.stopped();
            }
        }
    }

    /// Stops all extensions, side by side, those on their way up included.
    pub(super) async fn stop_all(&self) {
        self.containers.close();
        self.stopping.cancel();
        let mut stops = JoinSet::new();
        for running in self.slots.close() {
            stops.spawn(async move { running.contact.stop().await });
        }
        while stops.join_next().await.is_some() {}
        self.lives.close();
        if tokio::time::timeout(END_TIMEOUT, self.lives.wait()).await.is_err() {
            tracing::warn!("what runs an extension has not ended");
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<proto::Extension> {
        let registration = self.store.registration(name)?;
        Some(self.describe(registration))
    }

    pub(super) fn list(&self) -> Vec<proto::Extension> {
        self.store.registrations().into_iter().map(|it| self.describe(it)).collect()
    }

    pub(super) fn status(&self, name: &str) -> Option<ExtensionStatus> {
        self.slots.status(name)
    }

    /// Of all, by their names.
    pub(super) fn statuses(&self) -> Vec<(String, ExtensionStatus)> {
        self.slots.statuses()
    }

    /// Woken at each change of any extension's status.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.slots.changes()
    }

    /// The number of the process that an extension runs in, where it has one.
    pub(super) fn process_id(&self, name: &str) -> Option<u32> {
        self.slots.running(name).ok()?.contact.process.id()
    }

    fn describe(&self, registration: proto::ExtensionRegistration) -> proto::Extension {
        use proto::extension::{ExtensionState as State, ExtensionStatus};
        let status = match registration.status() {
            Registered::Enabled => ExtensionStatus::Enabled,
            Registered::Disabled => ExtensionStatus::Disabled,
            Registered::UnknownStatus => ExtensionStatus::UnknownStatus,
        };
        let state = match self.status(&registration.name).map(|status| status.state) {
            Some(ExtensionState::Running | ExtensionState::Updating) => State::Running,
            Some(ExtensionState::Stopped) | None => State::Exited,
            Some(_) => State::Processing,
        };
        let running = self.slots.running(&registration.name).ok();
        proto::Extension {
            name: registration.name,
            image: registration.image,
            url: String::new(),
            started: running.as_ref().map_or(0, |running| running.started),
            state: state.into(),
            status: status.into(),
            documentation: running
                .map_or_else(String::new, |running| running.documentation.clone()),
        }
    }

    /// Subscribes a pipeline; the extension's refusal comes back as it is.
    pub(super) async fn subscribe(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<Agreed, Status> {
        let running = self.slots.running(&subscription.name)?;
        running.in_charge().await;
        answered(&subscription.name, self.subscribe_to(&running, subscription).await)?;
        Ok(Agreed(running))
    }

    /// Sees to it that a subscription that has just been stored is in effect:
    /// another one may have taken the place of who agreed to it, and have been
    /// told what was stored before it was.
    pub(super) async fn confirm(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
        Agreed(running): Agreed,
    ) {
        if !self.slots.is_answered_by(&subscription.name, &running) {
            // Where nobody answers now, whoever comes up is told of it.
            let _ = self.subscribe(subscription).await;
        }
    }

    async fn subscribe_to(
        &self,
        running: &Running,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<(), Status> {
        let config = self.store.resolved(subscription)?;
        let request = proto::ExtensionSubscribeRequest {
            namespace_id: subscription.namespace.clone(),
            pipeline_id: subscription.pipeline.clone(),
            pipeline_extension_label: subscription.label.clone(),
            config,
        };
        running.contact.client.clone().subscribe(request).await?;
        *lock(&self.subscribed) = Instant::now();
        Ok(())
    }

    /// When a subscription was last begun: by then, its time was running.
    pub(super) fn last_subscribed(&self) -> Instant {
        *lock(&self.subscribed)
    }

    /// Ends a subscription; returns once it has ended.
    pub(super) async fn unsubscribe(
        &self,
        namespace: &str,
        pipeline: &str,
        extension: &str,
        label: &str,
    ) -> Result<(), Status> {
        let running = self.slots.running(extension)?;
        running.in_charge().await;
        let answer = running
            .contact
            .client
            .clone()
            .unsubscribe(proto::ExtensionUnsubscribeRequest {
                namespace_id: namespace.to_owned(),
                pipeline_id: pipeline.to_owned(),
                pipeline_extension_label: label.to_owned(),
            })
            .await;
        answered(extension, answer)?;
        Ok(())
    }

    /// Hands a raw HTTP request to an extension.
    pub(super) async fn external_event(
        &self,
        name: &str,
        payload: bytes::Bytes,
    ) -> Result<(), Status> {
        let mut client = self.running_client(name)?;
        let request = proto::ExtensionExternalEventRequest { payload };
        answered(name, client.external_event(request).await)?;
        Ok(())
    }

    pub(super) fn running_client(
        &self,
        name: &str,
    ) -> Result<ExtensionServiceClient<Transport>, Status> {
        Ok(self.slots.running(name)?.contact.client.clone())
    }

    fn registration(&self, name: &str) -> Result<proto::ExtensionRegistration, Status> {
        self.store.registration(name).ok_or_else(|| not_installed(name))
    }

    fn publish(&self, kind: EventKind, name: &str) {
        self.store.publish(kind, serde_json::json!({ "name": name }));
    }
}

/// Who agreed to a subscription.
pub(super) struct Agreed(Arc<Running>);

/// What an extension answered. That it cannot be reached is told in words that
/// say who.
fn answered<T>(name: &str, answer: Result<T, Status>) -> Result<T, Status> {
    answer.map_err(|status| match effect(&status) {
        Effect::None => Status::unavailable(format!(
            "the extension `{name}` cannot be reached: {}",
            status.message()
        )),
        _ => status,
    })
}
