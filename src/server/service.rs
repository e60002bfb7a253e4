//! The eight methods of `proto.ExtensionService`: from protobuf to plain Rust and back, and nothing
//! else. Beyond this, only `conversation`, `info` and `router` use generated types.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use gofer_net::Throttle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::conversation::{ResponseStream, start_conversation};
use super::error::to_status;
use super::external_events::ExternalEvents;
use super::info::Info;
use super::lifecycle::Lifecycle;
use super::limits::Limits;
use crate::catch_panic::{catch_panic, catch_panic_in};
use crate::error::{Error, ErrorKind};
use crate::extension::{Beginning, Cancelled, Check, ExternalEvent, Key, Settings};
use gofer_proto::server::extension_service_server::ExtensionService;
use gofer_proto::{
    ExtensionExternalEventRequest, ExtensionExternalEventResponse, ExtensionInfoRequest,
    ExtensionInfoResponse, ExtensionInitRequest, ExtensionInitResponse,
    ExtensionRunExtensionInstallerClientMessage, ExtensionRunExtensionInstallerExtensionMessage,
    ExtensionRunPipelineConfiguratorClientMessage,
    ExtensionRunPipelineConfiguratorExtensionMessage, ExtensionShutdownRequest,
    ExtensionShutdownResponse, ExtensionSubscribeRequest, ExtensionSubscribeResponse,
    ExtensionUnsubscribeRequest, ExtensionUnsubscribeResponse,
};

/// A header of Subscribe, by which an embedded core says when the subscription was made, also when
/// it restores it: the number of the pipeline's newest run then, or 0.
pub const SUBSCRIBED_AFTER: &str = "gofer-subscribed-after-run";

/// The same, in milliseconds since then.
pub const SUBSCRIPTION_AGE: &str = "gofer-subscription-age";

/// Another: since when it has had its parameters, in Unix milliseconds by Gofer's clock, which the
/// times of runs are by too.
pub const SUBSCRIPTION_SINCE: &str = "gofer-subscription-since";

/// A header of Unsubscribe, by which an embedded core says that the subscription is made anew with
/// other parameters right away.
pub const SUBSCRIPTION_REPLACED: &str = "gofer-subscription-replaced";

/// Failures of calls that are logged in a minute, and external events that are refused.
const FAILURES: u32 = 60;

pub(crate) struct Service {
    name: String,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Conversations with administrators and with owners of pipelines, limited separately so that
    /// neither can use up the other's.
    installers: Arc<Semaphore>,
    configurators: Arc<Semaphore>,
    external_events: ExternalEvents,
    /// Of calls, as they are logged.
    failures: Arc<Throttle>,
    /// Of external events, by the author. Gofer passes no reason on to their senders.
    refusals: Throttle,
}

impl Service {
    pub(crate) fn new(name: String, lifecycle: Arc<Lifecycle>, limits: &Limits) -> Self {
        let limit = || Arc::new(Semaphore::new(limits.conversations()));
        let failures = Arc::new(Throttle::lines(FAILURES));
        Self {
            name,
            lifecycle,
            installers: limit(),
            configurators: limit(),
            external_events: ExternalEvents::new(limits.external_events()),
            failures,
            refusals: Throttle::lines(FAILURES),
        }
    }

    pub(super) fn respond<T>(
        &self,
        method: &'static str,
        outcome: Result<T, impl Borrow<Error>>,
    ) -> Result<Response<T>, Status> {
        outcome
            .map(Response::new)
            .map_err(|error| to_status(method, error.borrow(), &self.failures))
    }

    pub(super) fn info(&self) -> Info {
        Info::of(&self.name, &self.lifecycle)
    }
}

fn permit(limit: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(limit).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted("too many conversations are under way; try again later")
    })
}

fn beginning<T>(request: &Request<T>) -> Option<Beginning> {
    let number = |header| request.metadata().get(header)?.to_str().ok()?.parse::<u64>().ok();
    let after_run = i64::try_from(number(SUBSCRIBED_AFTER)?).ok()?;
    let age = number(SUBSCRIPTION_AGE)?;
    let since = number(SUBSCRIPTION_SINCE).and_then(|since| i64::try_from(since).ok());
    Some(Beginning { after_run, age: Duration::from_millis(age), since: since.unwrap_or(0) })
}

#[async_trait]
impl ExtensionService for Service {
    type RunExtensionInstallerStream =
        ResponseStream<ExtensionRunExtensionInstallerExtensionMessage>;
    type RunPipelineConfiguratorStream =
        ResponseStream<ExtensionRunPipelineConfiguratorExtensionMessage>;

    async fn init(
        &self,
        request: Request<ExtensionInitRequest>,
    ) -> Result<Response<ExtensionInitResponse>, Status> {
        let config = Settings::new(request.into_inner().config);
        let outcome = self.lifecycle.init(config).await.map(|()| ExtensionInitResponse {});
        self.respond("Init", outcome)
    }

    async fn info(
        &self,
        _: Request<ExtensionInfoRequest>,
    ) -> Result<Response<ExtensionInfoResponse>, Status> {
        // Not used by callers: the router answers Info without these strings.
        Ok(Response::new(self.info().into()))
    }

    async fn subscribe(
        &self,
        request: Request<ExtensionSubscribeRequest>,
    ) -> Result<Response<ExtensionSubscribeResponse>, Status> {
        let beginning = beginning(&request);
        let request = request.into_inner();
        let outcome = async {
            let instance = self.lifecycle.instance()?;
            let key = Key::new(
                &request.namespace_id,
                &request.pipeline_id,
                &request.pipeline_extension_label,
            )?;
            let settings = Settings::new(request.config);
            self.lifecycle.registry.subscribe(instance, key, settings, beginning).await
        };
        // All of it, because parameters may panic when they are dropped.
        self.respond(
            "Subscribe",
            catch_panic(outcome).await.map(|()| ExtensionSubscribeResponse {}),
        )
    }

    async fn unsubscribe(
        &self,
        request: Request<ExtensionUnsubscribeRequest>,
    ) -> Result<Response<ExtensionUnsubscribeResponse>, Status> {
        let why = match request.metadata().get(SUBSCRIPTION_REPLACED) {
            Some(_) => Cancelled::Replaced,
            None => Cancelled::Unsubscribed,
        };
        let request = request.into_inner();
        let outcome = async {
            self.lifecycle.instance()?;
            let key = Key::new(
                &request.namespace_id,
                &request.pipeline_id,
                &request.pipeline_extension_label,
            )?;
            self.lifecycle.registry.unsubscribe(key, why).await
        };
        self.respond("Unsubscribe", outcome.await.map(|()| ExtensionUnsubscribeResponse {}))
    }

    async fn shutdown(
        &self,
        _: Request<ExtensionShutdownRequest>,
    ) -> Result<Response<ExtensionShutdownResponse>, Status> {
        self.lifecycle.shutdown().await;
        Ok(Response::new(ExtensionShutdownResponse {}))
    }

    async fn external_event(
        &self,
        request: Request<ExtensionExternalEventRequest>,
    ) -> Result<Response<ExtensionExternalEventResponse>, Status> {
        let payload = request.into_inner().payload;
        let outcome = async {
            let event = ExternalEvent::new(payload)?;
            self.external_events.handle(&self.lifecycle, event).await
        };
        let outcome = outcome.await;
        self.lifecycle.context().metrics.external_event(&outcome);
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::Internal
            && let Some(refusals) = self.refusals.record()
        {
            // With the causes, which the sender does not see.
            tracing::info!(?error, refusals, "an external event was refused");
        }
        self.respond("ExternalEvent", outcome.map(|()| ExtensionExternalEventResponse {}))
    }

    async fn run_extension_installer(
        &self,
        request: Request<Streaming<ExtensionRunExtensionInstallerClientMessage>>,
    ) -> Result<Response<Self::RunExtensionInstallerStream>, Status> {
        let definition = Arc::clone(&self.lifecycle.definition);
        Ok(Response::new(start_conversation(
            request.into_inner(),
            None,
            permit(&self.installers)?,
            self.lifecycle.tasks(),
            Arc::clone(&self.failures),
            self.lifecycle.draining().clone(),
            |mut dialogue| async move { catch_panic(definition.install(&mut dialogue)).await },
        )))
    }

    async fn run_pipeline_configurator(
        &self,
        request: Request<Streaming<ExtensionRunPipelineConfiguratorClientMessage>>,
    ) -> Result<Response<Self::RunPipelineConfiguratorStream>, Status> {
        let definition = Arc::clone(&self.lifecycle.definition);
        // If the extension is initialized, what Subscribe would refuse is reported here already.
        let check = self.lifecycle.instance().ok().map(|instance| -> Check {
            Box::new(move |settings| catch_panic_in(|| instance.check(settings)))
        });
        Ok(Response::new(start_conversation(
            request.into_inner(),
            check,
            permit(&self.configurators)?,
            self.lifecycle.tasks(),
            Arc::clone(&self.failures),
            self.lifecycle.draining().clone(),
            |mut dialogue| async move { catch_panic(definition.configure(&mut dialogue)).await },
        )))
    }
}
