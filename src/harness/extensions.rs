//! The extensions of a core: started, initialized, subscribed to, stopped.
//!
//! How one is started is the [`launcher`](super::launcher)'s business; what is
//! remembered of them, the store's. This module holds what runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;

use super::certificates::{Identity, secret};
use super::contact::{Contact, Token, Tokens, lock};
use super::launcher::{ChildProcess, IN_PROCESS, InProcess, Launcher, PROGRAM, Start};
use super::store::{EventKind, Store};
use crate::client::{Effect, Transport, effect};
use crate::clock::Clock;
use crate::proto;
use crate::proto::extension_service_client::ExtensionServiceClient;

pub(super) struct Extensions {
    store: Arc<Store>,
    clock: Clock,
    pub(super) in_process: InProcess,
    /// Where child processes find the core's API.
    gofer_host: String,
    log_level: String,
    slots: Mutex<HashMap<String, Slot>>,
    tokens: Tokens,
    /// When a subscription was last begun.
    subscribed: Mutex<Instant>,
}

enum Slot {
    /// Being started or stopped.
    Busy,
    Running(Arc<Running>),
    Stopped,
}

/// An extension that has answered Init and Info.
pub(super) struct Running {
    contact: Contact,
    documentation: String,
    started: i64,
}

impl Extensions {
    pub(super) fn new(
        store: Arc<Store>,
        clock: Clock,
        in_process: InProcess,
        gofer_host: String,
        log_level: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            in_process,
            gofer_host,
            log_level,
            slots: Mutex::default(),
            tokens: Tokens::default(),
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
        name: &str,
        image: &str,
        user: &str,
        pass: &str,
        variables: HashMap<String, String>,
    ) -> Result<(), Status> {
        if name.is_empty() || image.is_empty() {
            return Err(Status::invalid_argument("`name` and `image` must not be empty"));
        }
        let claim = {
            let mut slots = lock(&self.slots);
            if slots.contains_key(name) {
                return Err(Status::already_exists(format!(
                    "an extension named `{name}` is already installed"
                )));
            }
            slots.insert(name.to_owned(), Slot::Busy);
            Claim { extensions: self, name, before: None }
        };
        let running = self.start(name, image, &variables).await?;
        self.store.put_registration(proto::ExtensionRegistration {
            name: name.to_owned(),
            image: image.to_owned(),
            user: user.to_owned(),
            pass: pass.to_owned(),
            variables,
            created: self.clock.unix_millis(),
            status: proto::extension_registration::ExtensionStatus::Enabled.into(),
        })?;
        claim.conclude(Some(Slot::Running(Arc::new(running))));
        self.publish(EventKind::ExtensionInstalled, name);
        Ok(())
    }

    /// Stops an extension and forgets it and its subscriptions.
    pub(super) async fn uninstall(&self, name: &str) -> Result<(), Status> {
        let claim = self.claim(name)?;
        claim.stop().await;
        self.store.remove_subscriptions_of_extension(name);
        self.store.remove_registration(name)?;
        claim.conclude(None);
        self.publish(EventKind::ExtensionUninstalled, name);
        Ok(())
    }

    pub(super) async fn enable(&self, name: &str) -> Result<(), Status> {
        use proto::extension_registration::ExtensionStatus::Enabled;
        if self.running(name).is_ok() {
            return Ok(());
        }
        self.restart(name).await?;
        self.store.set_registration_status(name, Enabled)?;
        self.publish(EventKind::ExtensionEnabled, name);
        Ok(())
    }

    pub(super) async fn disable(&self, name: &str) -> Result<(), Status> {
        use proto::extension_registration::ExtensionStatus::Disabled;
        let claim = self.claim(name)?;
        claim.stop().await;
        self.store.set_registration_status(name, Disabled)?;
        claim.conclude(Some(Slot::Stopped));
        self.publish(EventKind::ExtensionDisabled, name);
        Ok(())
    }

    /// Stops an extension, starts it afresh and restores its subscriptions. One
    /// that cannot be restored is marked and does not stop the others.
    pub(super) async fn restart(&self, name: &str) -> Result<(), Status> {
        let registration = self.store.registration(name).ok_or_else(|| not_installed(name))?;
        let claim = self.claim(name)?;
        claim.stop().await;
        let running = self.start(name, &registration.image, &registration.variables).await?;
        claim.conclude(Some(Slot::Running(Arc::new(running))));
        for subscription in self.store.subscriptions_of_extension(name) {
            self.restore(&subscription).await;
        }
        Ok(())
    }

    /// Subscribes what was stored, where it is still there and neither disabled
    /// nor refused before.
    async fn restore(&self, stored: &proto::PipelineExtensionSubscription) {
        use proto::pipeline_extension_subscription::Status as State;
        let _turn = self.store.turn(stored).await;
        let proto::PipelineExtensionSubscription { namespace, pipeline, name, label, .. } = stored;
        let Ok(current) = self.store.subscription(namespace, pipeline, name, label) else { return };
        if current.status() != State::Active {
            return;
        }
        if let Err(refusal) = self.subscribe(&current).await {
            let (state, reason) = (State::Error, refusal.message());
            // Gone where its pipeline was deleted meanwhile, and then there is
            // nothing to mark.
            let _ =
                self.store.set_subscription_status(namespace, pipeline, name, label, state, reason);
        }
    }

    /// Starts all extensions that are stored as enabled, side by side, and
    /// restores their subscriptions. One that does not come up delays no other.
    pub(super) fn restore_enabled(this: &Arc<Self>) -> JoinSet<()> {
        use proto::extension_registration::ExtensionStatus::Enabled;
        let mut restoring = JoinSet::new();
        for registration in this.store.registrations() {
            let (name, enabled) = (registration.name.clone(), registration.status() == Enabled);
            lock(&this.slots).insert(registration.name, Slot::Stopped);
            if enabled {
                let this = Arc::clone(this);
                restoring.spawn(async move {
                    if let Err(status) = this.restart(&name).await {
                        tracing::error!(extension = name, %status, "cannot be started");
                    }
                });
            }
        }
        restoring
    }

    /// Stops all extensions, side by side.
    pub(super) async fn stop_all(&self) {
        let slots: Vec<Slot> = lock(&self.slots).drain().map(|(_, slot)| slot).collect();
        let mut stops = JoinSet::new();
        for slot in slots {
            if let Slot::Running(running) = slot {
                stops.spawn(async move { running.contact.stop().await });
            }
        }
        while stops.join_next().await.is_some() {}
    }

    pub(super) fn get(&self, name: &str) -> Option<proto::Extension> {
        let registration = self.store.registration(name)?;
        Some(self.describe(registration))
    }

    pub(super) fn list(&self) -> Vec<proto::Extension> {
        self.store.registrations().into_iter().map(|it| self.describe(it)).collect()
    }

    /// The number of the process that an extension runs in, where it has one.
    pub(super) fn process_id(&self, name: &str) -> Option<u32> {
        self.running(name).ok()?.contact.id
    }

    /// How an extension's process ended; `None` while it runs.
    pub(super) async fn ended(&self, name: &str) -> Option<String> {
        let running = self.running(name).ok()?;
        running.contact.process.lock().await.ended()
    }

    fn describe(&self, registration: proto::ExtensionRegistration) -> proto::Extension {
        use proto::extension::{ExtensionState, ExtensionStatus};
        use proto::extension_registration::ExtensionStatus as Registered;
        let status = match registration.status() {
            Registered::Enabled => ExtensionStatus::Enabled,
            Registered::Disabled => ExtensionStatus::Disabled,
            Registered::UnknownStatus => ExtensionStatus::UnknownStatus,
        };
        let (state, running) = match lock(&self.slots).get(&registration.name) {
            Some(Slot::Running(running)) => (ExtensionState::Running, Some(Arc::clone(running))),
            Some(Slot::Busy) => (ExtensionState::Processing, None),
            Some(Slot::Stopped) | None => (ExtensionState::Exited, None),
        };
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
    ) -> Result<(), Status> {
        let config = self.store.resolved(subscription)?;
        let mut client = self.running(&subscription.name)?.contact.client.clone();
        let answer = client
            .subscribe(proto::ExtensionSubscribeRequest {
                namespace_id: subscription.namespace.clone(),
                pipeline_id: subscription.pipeline.clone(),
                pipeline_extension_label: subscription.label.clone(),
                config,
            })
            .await;
        answered(&subscription.name, answer)?;
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
        let mut client = self.running(extension)?.contact.client.clone();
        let answer = client
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
        let mut client = self.running(name)?.contact.client.clone();
        let request = proto::ExtensionExternalEventRequest { payload };
        answered(name, client.external_event(request).await)?;
        Ok(())
    }

    pub(super) fn running_client(
        &self,
        name: &str,
    ) -> Result<ExtensionServiceClient<Transport>, Status> {
        Ok(self.running(name)?.contact.client.clone())
    }

    /// Starts an extension for one installer conversation, without Init.
    pub(super) async fn start_for_installer(&self, image: &str) -> Result<Installer, Status> {
        let contact = self.launch("installer", image).await?;
        match contact
            .reach(|mut client| async move { client.info(proto::ExtensionInfoRequest {}).await })
            .await
        {
            Ok(_info) => Ok(Installer(contact)),
            Err(status) => {
                contact.stop().await;
                Err(status)
            }
        }
    }

    fn running(&self, name: &str) -> Result<Arc<Running>, Status> {
        match lock(&self.slots).get(name) {
            Some(Slot::Running(running)) => Ok(Arc::clone(running)),
            Some(Slot::Busy) => Err(Status::unavailable(format!(
                "the extension `{name}` is being started or stopped; try again"
            ))),
            Some(Slot::Stopped) => {
                Err(Status::failed_precondition(format!("the extension `{name}` is disabled")))
            }
            None => Err(not_installed(name)),
        }
    }

    async fn launch(&self, name: &str, image: &str) -> Result<Contact, Status> {
        let launcher: &dyn Launcher = if image.starts_with(IN_PROCESS) {
            &self.in_process
        } else if image.starts_with(PROGRAM) {
            &ChildProcess
        } else {
            return Err(Status::unimplemented(
                "this core does not start container images yet; give a program as `exec:<path>`",
            ));
        };
        let start = Start {
            name: name.to_owned(),
            key: secret()?,
            identity: Identity::new()?,
            log_level: self.log_level.clone(),
            gofer_host: self.gofer_host.clone(),
        };
        let token = self.tokens.let_in(&start.key);
        let started = launcher.launch(image, &start).await?;
        Contact::new(started, &start, self.clock, token)
    }

    /// Launches, initializes and asks for its documentation.
    async fn start(
        &self,
        name: &str,
        image: &str,
        variables: &HashMap<String, String>,
    ) -> Result<Running, Status> {
        let contact = self.launch(name, image).await?;
        let started = self.clock.unix_millis();
        let ready = async {
            contact
                .reach(|mut client| {
                    let request = proto::ExtensionInitRequest { config: variables.clone() };
                    async move { client.init(request).await }
                })
                .await?;
            Ok(contact.client.clone().info(proto::ExtensionInfoRequest {}).await?.into_inner())
        };
        match ready.await {
            Ok(info) => Ok(Running { contact, documentation: info.documentation, started }),
            Err(status) => {
                contact.stop().await;
                Err(status)
            }
        }
    }

    /// Takes a name for a change that takes time.
    fn claim<'a>(&'a self, name: &'a str) -> Result<Claim<'a>, Status> {
        let mut slots = lock(&self.slots);
        let slot = slots.get_mut(name).ok_or_else(|| not_installed(name))?;
        match std::mem::replace(slot, Slot::Busy) {
            Slot::Busy => Err(Status::aborted(format!(
                "the extension `{name}` is already being started or stopped"
            ))),
            before => Ok(Claim { extensions: self, name, before: Some(before) }),
        }
    }

    fn publish(&self, kind: EventKind, name: &str) {
        self.store.publish(kind, serde_json::json!({ "name": name }));
    }
}

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

fn not_installed(name: &str) -> Status {
    Status::not_found(format!("no extension named `{name}` is installed"))
}

/// An extension that was started to hold one conversation.
pub(super) struct Installer(Contact);

impl Installer {
    pub(super) fn client(&self) -> ExtensionServiceClient<Transport> {
        self.0.client.clone()
    }

    pub(super) async fn stop(self) {
        self.0.stop().await;
    }
}

/// A name that is being worked on. Dropped without a conclusion, because the
/// caller went away in between, it leaves what can be left: an installation
/// that did not finish is gone, an extension that was stopped is stopped.
struct Claim<'a> {
    extensions: &'a Extensions,
    name: &'a str,
    before: Option<Slot>,
}

impl Claim<'_> {
    async fn stop(&self) {
        if let Some(Slot::Running(running)) = &self.before {
            running.contact.stop().await;
        }
    }

    fn conclude(mut self, slot: Option<Slot>) {
        self.before = None;
        self.set(slot);
    }

    fn set(&self, slot: Option<Slot>) {
        let mut slots = lock(&self.extensions.slots);
        match slot {
            Some(slot) => {
                slots.insert(self.name.to_owned(), slot);
            }
            None => {
                slots.remove(self.name);
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut slots = lock(&self.extensions.slots);
        if matches!(slots.get(self.name), Some(Slot::Busy)) {
            match self.before {
                Some(_) => {
                    slots.insert(self.name.to_owned(), Slot::Stopped);
                }
                None => {
                    slots.remove(self.name);
                }
            }
        }
    }
}
