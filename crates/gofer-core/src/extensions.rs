//! The extensions of a core: installed, updated, enabled, disabled, uninstalled, and called.
//!
//! The [`launcher`](super::launcher) starts what they run in, the store keeps their registrations,
//! [`supervisor`] restarts them, [`restore`] gives them their stored subscriptions, and [`slots`] has
//! their status and decides who may change one. What a killed core has left, [`orphans`] ends.

mod held;
mod launch;
mod orphans;
mod restore;
mod slots;
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

use super::essential::EssentialTasks;
use super::handle::ExtensionHandle;
use super::launcher::{Containers, InProcess, check_image};
use super::limits::ContainerLimits;
use super::state::{ExtensionState, ExtensionStatus};
use super::store::{Beginning, Options, Store, not_installed};
use super::sync::lock;
use gofer_net::{Clock, Effect, Transport, effect};
use gofer_proto as proto;
use gofer_proto::embedded::{
    ExtensionOptions, GetSubscriptionStatesRequest, SubscriptionKey, SubscriptionState,
};
use gofer_proto::extension_registration::ExtensionStatus as Registered;
use gofer_proto::extension_service_client::ExtensionServiceClient;
use gofer_sdk::internal::{
    SUBSCRIBED_AFTER, SUBSCRIPTION_AGE, SUBSCRIPTION_REPLACED, SUBSCRIPTION_SINCE,
};
use held::{Held, Holds, digest};
pub(super) use launch::Installer;
use restore::{Replaced, Restored, Unrestored};
use slots::{SlotGuard, Slots};

/// How long all processes may take to end once every extension was stopped, including those that
/// were still being brought up.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// The same for all extensions of a core.
pub(super) struct Common {
    /// Where child processes find the core's API.
    pub(super) gofer_host: String,
    pub(super) log_level: String,
    /// Between two health checks of an extension.
    pub(super) health_check_period: Duration,
    pub(super) essential: EssentialTasks,
}

pub(super) struct Extensions {
    /// For the tasks that it spawns, which must not keep it alive.
    this: Weak<Self>,
    store: Arc<Store>,
    clock: Clock,
    pub(super) in_process: InProcess,
    containers: Containers,
    common: Common,
    slots: Slots,
    /// What extensions run in, until it has ended.
    processes: TaskTracker,
    /// Cancelled when the core stops: from then on nothing comes up, and conversations end.
    pub(super) stopping: CancellationToken,
    /// When an extension last accepted a subscription.
    subscribed: Mutex<Instant>,
}

/// How long somebody who asks for an extension waits for what it has to say.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// An extension that has answered Init and Info.
struct Running {
    handle: ExtensionHandle,
    documentation: String,
    started: i64,
    held: Held,
    unrestored: Unrestored,
    /// False during an update, until the extension that it replaces has stopped and so ended its
    /// subscriptions.
    owns_subscriptions: watch::Sender<bool>,
}

impl Running {
    async fn subscriptions_owned(&self) {
        // Never closed: `self` has the sender.
        let _ = self.owns_subscriptions.subscribe().wait_for(|owned| *owned).await;
    }

    /// Ends a subscription in the extension, whatever it holds.
    async fn unsubscribe(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<(), Status> {
        self.end_subscription(subscription, false).await
    }

    /// The same; `is_replaced` if it begins anew with other settings right away.
    async fn end_subscription(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
        is_replaced: bool,
    ) -> Result<(), Status> {
        let mut request = tonic::Request::new(proto::ExtensionUnsubscribeRequest {
            namespace_id: subscription.namespace.clone(),
            pipeline_id: subscription.pipeline.clone(),
            pipeline_extension_label: subscription.label.clone(),
        });
        if is_replaced {
            request.metadata_mut().insert(SUBSCRIPTION_REPLACED, 1.into());
        }
        match self.handle.client.clone().unsubscribe(request).await {
            Ok(_) => {
                self.held.remove(subscription);
                Ok(())
            }
            Err(status) => {
                if effect(&status) == Effect::Unknown {
                    self.held.set_unknown(subscription);
                }
                Err(status)
            }
        }
    }
}

/// A stored extension that is not launched yet.
pub(super) struct Stored<'a> {
    guard: SlotGuard<'a>,
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
            processes: TaskTracker::new(),
            stopping: CancellationToken::new(),
            subscribed: Mutex::new(Instant::now()),
        })
    }

    /// Launches an extension under a free name, and stores it once it is running.
    pub(super) async fn install(
        &self,
        request: proto::InstallExtensionRequest,
        options: Options,
    ) -> Result<(), Status> {
        let proto::InstallExtensionRequest { name, image, user, pass, variables } = request;
        if name.is_empty() || image.is_empty() {
            return Err(Status::invalid_argument("`name` and `image` must not be empty"));
        }
        check_image(&image)?;
        ContainerLimits::check_image(&options.message, &image)?;
        let guard = self.slots.reserve(&name)?;
        let registration = proto::ExtensionRegistration {
            name,
            image,
            user,
            pass,
            variables,
            created: self.clock.unix_millis(),
            status: Registered::Enabled.into(),
        };
        let running = self.bring_up(&registration, &options, &guard.progress).await?;
        let install = |store: &Store| store.put_registration(registration, options);
        if let Err(status) = self.store.committed(install).await {
            running.handle.stop().await;
            return Err(status);
        }
        running.unrestored.set_begun();
        guard.finish_supervised(Some(&running), "", |lease| self.supervise(lease, Some(&running)));
        Ok(())
    }

    /// Stops an extension and removes it and its subscriptions.
    pub(super) async fn uninstall(&self, name: &str) -> Result<(), Status> {
        let remove = |store: &Store| store.remove_registration(name).map(drop);
        self.take_down(name, "uninstalled", remove).await.map(SlotGuard::finish_removed)
    }

    pub(super) async fn enable(&self, name: &str) -> Result<(), Status> {
        let runs = self.status(name).is_some_and(|status| status.state == ExtensionState::Running);
        if runs && self.registration(name)?.status() == Registered::Enabled {
            return Ok(());
        }
        self.relaunch(name, true).await
    }

    pub(super) async fn disable(&self, name: &str) -> Result<(), Status> {
        let disable = |store: &Store| store.set_registration_status(name, Registered::Disabled);
        self.take_down(name, "disabled", disable).await.map(SlotGuard::finish_stopped)
    }

    /// Stops an extension and makes a change after which it is to stay stopped. If that fails, it goes
    /// on as it was.
    async fn take_down(
        &self,
        name: &str,
        done: &str,
        change: impl FnOnce(&Store) -> Result<(), Status>,
    ) -> Result<SlotGuard<'_>, Status> {
        let guard = self.slots.acquire(name, ExtensionState::Stopping)?;
        guard.stop().await;
        if let Err(status) = self.store.committed(change).await {
            let problem = format!("it was not {done}: {}", status.message());
            self.go_on(name, guard, None, &problem);
            return Err(status);
        }
        Ok(guard)
    }

    /// Stops an extension, launches it anew and restores its subscriptions.
    pub(super) async fn restart(&self, name: &str) -> Result<(), Status> {
        self.relaunch(name, false).await
    }

    async fn relaunch(&self, name: &str, enable: bool) -> Result<(), Status> {
        let guard = self.slots.acquire(name, ExtensionState::Starting)?;
        // Looked up only now that nothing else can change it.
        let (registration, options) = (self.registration(name)?, self.store.options(name));
        guard.stop().await;
        let relaunched = async {
            let running = self.bring_up(&registration, &options, &guard.progress).await?;
            // Before the guard is released, so that a later `disable` wins.
            if enable && registration.status() != Registered::Enabled {
                let enable =
                    |store: &Store| store.set_registration_status(name, Registered::Enabled);
                if let Err(status) = self.store.committed(enable).await {
                    running.handle.stop().await;
                    return Err(status);
                }
            }
            Ok(running)
        };
        match relaunched.await {
            Ok(running) => {
                guard.finish_supervised(Some(&running), "", |lease| {
                    self.supervise(lease, Some(&running))
                });
                self.restore_subscriptions(name, &running).await;
                Ok(())
            }
            Err(status) => {
                self.go_on(name, guard, None, status.message());
                Err(status)
            }
        }
    }

    /// After a change that failed: an extension that is stored as enabled goes on, or is brought up
    /// again; any other one stays stopped.
    fn go_on(
        &self,
        name: &str,
        guard: SlotGuard<'_>,
        running: Option<&Arc<Running>>,
        problem: &str,
    ) {
        let registration = self.store.registration(name);
        if registration.is_some_and(|it| it.status() == Registered::Enabled) {
            guard.finish_supervised(running, problem, |lease| self.supervise(lease, running));
        } else {
            guard.finish_stopped();
        }
    }

    /// Reserves the names of all stored extensions, before any caller can use them.
    pub(super) fn reserve_stored(&self) -> Vec<Stored<'_>> {
        let registrations = self.store.registrations().into_iter();
        registrations
            .map(|it| Stored { guard: self.slots.reserve_stored(&it.name), registration: it })
            .collect()
    }

    /// Launches the enabled ones concurrently in the background, and restores their subscriptions.
    /// One that does not come up does not delay the others.
    pub(super) fn restore_all(&self, stored: Vec<Stored<'_>>) {
        for Stored { guard, registration } in stored {
            if registration.status() == Registered::Enabled {
                guard.finish_supervised(None, "", |lease| self.supervise(lease, None));
            } else {
                guard.finish_stopped();
            }
        }
    }

    /// Stops all extensions concurrently, including those that are being brought up.
    pub(super) async fn stop_all(&self) {
        self.containers.close();
        self.stopping.cancel();
        let mut stops = JoinSet::new();
        for running in self.slots.close() {
            stops.spawn(async move { running.handle.stop().await });
        }
        while stops.join_next().await.is_some() {}
        self.processes.close();
        if tokio::time::timeout(END_TIMEOUT, self.processes.wait()).await.is_err() {
            tracing::warn!("an extension's process or container has not ended");
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<proto::Extension, Status> {
        self.registration(name).map(|it| self.describe(it))
    }

    /// With its documentation of now, which says what it is failing at; if it does not answer, with
    /// that of its start.
    pub(super) async fn inspect(&self, name: &str) -> Result<proto::Extension, Status> {
        let mut extension = self.get(name)?;
        if let Ok(mut client) = self.running_client(name) {
            let info = client.info(proto::ExtensionInfoRequest {});
            if let Ok(Ok(info)) = tokio::time::timeout(INFO_TIMEOUT, info).await {
                extension.documentation = info.into_inner().documentation;
            }
        }
        Ok(extension)
    }

    /// How the subscriptions with these keys are doing; `None` if the extension does not say. It is
    /// not trusted.
    pub(super) async fn subscription_states(
        &self,
        name: &str,
        keys: Vec<SubscriptionKey>,
    ) -> Option<Vec<SubscriptionState>> {
        let mut client = self.slots.running(name).ok()?.handle.status.clone();
        let count = keys.len();
        let call = client.get_subscription_states(GetSubscriptionStatesRequest { keys });
        let answer = tokio::time::timeout(INFO_TIMEOUT, call).await.ok()?.ok()?;
        Some(answer.into_inner().states).filter(|states| states.len() == count)
    }

    pub(super) fn list(&self) -> Vec<proto::Extension> {
        self.store.registrations().into_iter().map(|it| self.describe(it)).collect()
    }

    pub(super) fn status(&self, name: &str) -> Option<ExtensionStatus> {
        self.slots.status(name)
    }

    /// Of all extensions, sorted by name.
    pub(super) fn statuses(&self) -> Vec<(String, ExtensionStatus)> {
        self.slots.statuses()
    }

    /// Notified at each change of any extension's status.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.slots.changes()
    }

    /// The ID of the process that an extension runs in, if it has its own.
    pub(super) fn process_id(&self, name: &str) -> Option<u32> {
        self.slots.running(name).ok()?.handle.process.id()
    }

    fn describe(&self, registration: proto::ExtensionRegistration) -> proto::Extension {
        use proto::extension::{ExtensionState as State, ExtensionStatus as ProtoStatus};
        let status = match registration.status() {
            Registered::Enabled => ProtoStatus::Enabled,
            Registered::Disabled => ProtoStatus::Disabled,
            Registered::UnknownStatus => ProtoStatus::UnknownStatus,
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
            url: running.as_ref().map_or_else(String::new, |running| running.handle.address()),
            started: running.as_ref().map_or(0, |running| running.started),
            state: state.into(),
            status: status.into(),
            documentation: running
                .map_or_else(String::new, |running| running.documentation.clone()),
        }
    }

    /// Subscribes a pipeline; an error of the extension is returned unchanged.
    pub(super) async fn subscribe(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<Accepted, Status> {
        let running = self.slots.running(&subscription.name)?;
        running.subscriptions_owned().await;
        named(&subscription.name, self.subscribe_to(&running, subscription).await)?;
        Ok(Accepted(running))
    }

    /// Makes sure that a subscription that has just been stored is active: the extension that
    /// accepted it may have been replaced, and its successor been given the stored subscriptions
    /// before this one was stored.
    pub(super) async fn confirm(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
        Accepted(running): Accepted,
    ) {
        if !self.slots.is_current(&subscription.name, &running) {
            // One that is not running is given it when it comes up.
            let Ok(running) = self.slots.running(&subscription.name) else { return };
            running.subscriptions_owned().await;
            self.restore_stored(&running, subscription).await;
        }
    }

    /// Subscribes a pipeline, unless the extension holds just this subscription already. If it holds
    /// it with other settings, that is ended first.
    ///
    /// The extension has access to the pipeline from before it is called; if it refuses, no longer
    /// than before.
    async fn subscribe_to(
        &self,
        running: &Running,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<(), Status> {
        let options = self.store.options(&subscription.name);
        options.check_namespace(&subscription.name, &subscription.namespace)?;
        let access = running.handle.key.begin_access(subscription);
        let config = self.store.resolved(subscription)?;
        let digest = digest(&config);
        // No external event is taken in between.
        let mut replaced = None;
        match running.held.compare(subscription, digest) {
            Holds::Nothing => {}
            Holds::These => {
                access.keep();
                return Ok(());
            }
            Holds::Others => {
                replaced = Some(running.unrestored.replace());
                running.end_subscription(subscription, true).await?;
            }
        }
        let mut request = tonic::Request::new(proto::ExtensionSubscribeRequest {
            namespace_id: subscription.namespace.clone(),
            pipeline_id: subscription.pipeline.clone(),
            pipeline_extension_label: subscription.label.clone(),
            config,
        });
        if let Some(Beginning { after_run, at, changed }) = self.store.beginning(subscription) {
            // If the clock was ahead then, it is not known; and one tick too many is better than none
            // for as long as it was ahead.
            let now = self.clock.unix_millis();
            let unchanged = now.abs_diff(changed.max(at));
            let metadata = request.metadata_mut();
            metadata.insert(SUBSCRIBED_AFTER, after_run.into());
            metadata.insert(SUBSCRIPTION_AGE, now.abs_diff(at).into());
            metadata.insert(SUBSCRIPTION_SINCE, now.saturating_sub_unsigned(unchanged).into());
        }
        running.held.set_unknown(subscription);
        if let Err(status) = running.handle.client.clone().subscribe(request).await {
            if effect(&status) != Effect::Unknown {
                running.held.remove(subscription);
            }
            return Err(status);
        }
        running.held.set(subscription, digest);
        running.unrestored.set_why(subscription, "");
        drop(replaced);
        access.keep();
        *lock(&self.subscribed) = Instant::now();
        Ok(())
    }

    /// Refuses external events for an extension that runs until what is returned is dropped: one of
    /// its subscriptions is replaced, and what becomes of that is not known before.
    pub(super) fn refuse_events(&self, name: &str) -> Option<Replaced> {
        self.slots.running(name).ok().map(|running| running.unrestored.replace())
    }

    /// After a change that was refused: makes an extension hold again what is stored, `before`, or
    /// nothing. The lock of the subscription is held. Returns what has become of `before` if the
    /// extension does not hold it.
    pub(super) async fn put_back(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
        before: Option<&proto::PipelineExtensionSubscription>,
    ) -> Result<(), String> {
        // One that is not running is given what is stored when it comes up.
        let Ok(running) = self.slots.running(&subscription.name) else { return Ok(()) };
        running.subscriptions_owned().await;
        if let Some(before) = before {
            return match self.restore_stored(&running, before).await {
                Restored::Done => Ok(()),
                Restored::Refused(why) => Err(format!("is refused now, too: {why}")),
                Restored::Later(why) => {
                    Err(format!("is not in effect at the moment, and is tried again: {why}"))
                }
            };
        }
        if !running.held.holds_nothing(subscription) {
            // If it fails, nobody can tell what the extension holds. It has no access.
            let _ = running.unsubscribe(subscription).await;
        }
        Ok(())
    }

    /// When an extension last accepted a subscription, and its timers were started.
    pub(super) fn last_subscribed(&self) -> Instant {
        *lock(&self.subscribed)
    }

    /// Ends a subscription; returns once it has ended.
    pub(super) async fn unsubscribe(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> Result<(), Status> {
        let running = self.slots.running(&subscription.name)?;
        running.subscriptions_owned().await;
        named(&subscription.name, running.unsubscribe(subscription).await)
    }

    /// Passes a raw HTTP request to an extension.
    pub(super) async fn external_event(
        &self,
        name: &str,
        payload: bytes::Bytes,
    ) -> Result<(), Status> {
        named(name, self.event_receiver(name)?.send(payload).await)
    }

    /// What receives an external event, once the extension has all of its subscriptions and while
    /// it may start runs.
    pub(super) fn event_receiver(&self, name: &str) -> Result<EventReceiver, Status> {
        let running = self.slots.running(name)?;
        let switched = self.store.starts_runs()?;
        let replacements = running.unrestored.replacements();
        if !running.unrestored.is_empty() {
            return Err(Status::unavailable(format!(
                "the extension `{name}` does not have all of its subscriptions yet; try again"
            )));
        }
        let store = Arc::clone(&self.store);
        Ok(EventReceiver { running, replacements, store, switched })
    }

    pub(super) fn running_client(
        &self,
        name: &str,
    ) -> Result<ExtensionServiceClient<Transport>, Status> {
        Ok(self.slots.running(name)?.handle.client.clone())
    }

    /// The options in effect.
    pub(super) fn options(&self, name: &str) -> ExtensionOptions {
        let image = self.store.registration(name).map(|it| it.image).unwrap_or_default();
        self.store.options(name).in_effect(&image)
    }

    fn registration(&self, name: &str) -> Result<proto::ExtensionRegistration, Status> {
        self.store.registration(name).ok_or_else(|| not_installed(name))
    }
}

/// An extension that has all of its subscriptions: an external event that it accepts must reach each
/// of them.
pub(super) struct EventReceiver {
    running: Arc<Running>,
    /// How many replacements of its subscriptions had begun.
    replacements: usize,
    store: Arc<Store>,
    /// How often starting runs had been turned off or on.
    switched: u64,
}

impl EventReceiver {
    pub(super) async fn send(self, payload: bytes::Bytes) -> Result<(), Status> {
        let request = proto::ExtensionExternalEventRequest { payload };
        self.running.handle.client.clone().external_event(request).await?;
        // One that has been replaced since may have been missing when the event arrived.
        if self.running.unrestored.replacements() != self.replacements {
            let why = "a subscription was replaced meanwhile; send the event again";
            return Err(Status::unavailable(why));
        }
        if self.store.starts_runs()? != self.switched {
            let why = "starting runs was turned off meanwhile; send the event again";
            return Err(Status::unavailable(why));
        }
        Ok(())
    }
}

/// The extension that accepted a subscription.
pub(super) struct Accepted(Arc<Running>);

/// Adds the extension's name to the error if it cannot be reached.
fn named<T>(name: &str, outcome: Result<T, Status>) -> Result<T, Status> {
    outcome.map_err(|status| match effect(&status) {
        Effect::None => Status::unavailable(format!(
            "the extension `{name}` cannot be reached: {}",
            status.message()
        )),
        _ => status,
    })
}

#[cfg(all(test, feature = "store"))]
mod tests;
