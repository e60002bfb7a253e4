//! The eight methods of `proto.ExtensionService`: from protobuf to plain Rust
//! and back, and nothing else. Generated types stop here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::contain::{contain, contain_call};
use super::conversation::{Speech, hold, talk_to};
use super::info::Info;
use super::lifecycle::Lifecycle;
use crate::error::{Error, ErrorKind};
use crate::extension::{Check, ExternalEvent, Key, Settings};
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

pub(crate) struct Service {
    name: String,
    lifecycle: Arc<Lifecycle>,
    /// With administrators and with owners of pipelines, each by themselves: one
    /// side cannot take the other's places.
    installers: Arc<Semaphore>,
    configurators: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(name: String, lifecycle: Arc<Lifecycle>, conversations: usize) -> Self {
        let places = || Arc::new(Semaphore::new(conversations));
        Self { name, lifecycle, installers: places(), configurators: places() }
    }

    pub(super) fn info(&self) -> Info {
        Info::of(&self.name, &self.lifecycle)
    }
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted("too many conversations are under way; try again later")
    })
}

/// What a status message may take once it is encoded for its header. Peers accept
/// headers of 8 KiB at least; the rest is for the others.
const MOST_MESSAGE_BYTES: usize = 4 * 1024;

/// The message, cut where it would not fit into a header.
fn told(error: &Error) -> String {
    let mut message = error.to_string();
    let mut encoded = 0;
    let end = message.char_indices().find_map(|(at, character)| {
        // All but printable ASCII is percent-encoded, three bytes for one.
        let plain = (' '..='~').contains(&character) && character != '%';
        encoded += if plain { 1 } else { 3 * character.len_utf8() };
        (encoded > MOST_MESSAGE_BYTES).then_some(at)
    });
    if let Some(end) = end {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// What a caller may be told. A failure of the extension itself goes to the
/// log in full and to the caller as a generic sentence.
pub(crate) fn to_status(error: &Error) -> Status {
    match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidConfiguration => {
            Status::invalid_argument(told(error))
        }
        ErrorKind::Unavailable => Status::unavailable(told(error)),
        ErrorKind::FailedPrecondition => Status::failed_precondition(told(error)),
        ErrorKind::ResourceExhausted => Status::resource_exhausted(told(error)),
        ErrorKind::Unimplemented => Status::unimplemented(told(error)),
        ErrorKind::Cancelled => Status::cancelled(told(error)),
        ErrorKind::NotFound => Status::not_found(told(error)),
        ErrorKind::AlreadyExists => Status::already_exists(told(error)),
        ErrorKind::PermissionDenied => Status::permission_denied(told(error)),
        ErrorKind::Unauthenticated => Status::unauthenticated(told(error)),
        ErrorKind::DeadlineExceeded => Status::deadline_exceeded(told(error)),
        _ => {
            tracing::error!(?error, "a call failed");
            Status::internal("the extension failed; its log says why")
        }
    }
}

fn answer<T>(outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| to_status(&error))
}

#[async_trait]
impl ExtensionService for Service {
    type RunExtensionInstallerStream = Speech<ExtensionRunExtensionInstallerExtensionMessage>;
    type RunPipelineConfiguratorStream = Speech<ExtensionRunPipelineConfiguratorExtensionMessage>;

    async fn init(
        &self,
        request: Request<ExtensionInitRequest>,
    ) -> Result<Response<ExtensionInitResponse>, Status> {
        let config = Settings::new(request.into_inner().config);
        match self.lifecycle.init(config).await {
            Ok(()) => Ok(Response::new(ExtensionInitResponse {})),
            Err(error) => Err(to_status(&error)),
        }
    }

    async fn info(
        &self,
        _: Request<ExtensionInfoRequest>,
    ) -> Result<Response<ExtensionInfoResponse>, Status> {
        // The router answers it without making these texts.
        Ok(Response::new(self.info().into()))
    }

    async fn subscribe(
        &self,
        request: Request<ExtensionSubscribeRequest>,
    ) -> Result<Response<ExtensionSubscribeResponse>, Status> {
        let request = request.into_inner();
        let outcome = async {
            let instance = self.lifecycle.instance()?;
            let key = Key::new(
                &request.namespace_id,
                &request.pipeline_id,
                &request.pipeline_extension_label,
            )?;
            let settings = Settings::new(request.config);
            self.lifecycle.registry.subscribe(instance, key, settings).await
        };
        // Contained as a whole: parameters may panic when they are dropped.
        answer(contain(outcome).await.map(|()| ExtensionSubscribeResponse {}))
    }

    async fn unsubscribe(
        &self,
        request: Request<ExtensionUnsubscribeRequest>,
    ) -> Result<Response<ExtensionUnsubscribeResponse>, Status> {
        let request = request.into_inner();
        let outcome = async {
            self.lifecycle.instance()?;
            let key = Key::new(
                &request.namespace_id,
                &request.pipeline_id,
                &request.pipeline_extension_label,
            )?;
            self.lifecycle.registry.unsubscribe(key).await
        };
        answer(outcome.await.map(|()| ExtensionUnsubscribeResponse {}))
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
            let instance = self.lifecycle.instance()?;
            let event = ExternalEvent::new(payload)?;
            contain(instance.external_event(event)).await
        };
        answer(outcome.await.map(|()| ExtensionExternalEventResponse {}))
    }

    async fn run_extension_installer(
        &self,
        request: Request<Streaming<ExtensionRunExtensionInstallerClientMessage>>,
    ) -> Result<Response<Self::RunExtensionInstallerStream>, Status> {
        let definition = Arc::clone(&self.lifecycle.definition);
        Ok(Response::new(hold(
            request.into_inner(),
            None,
            place(&self.installers)?,
            self.lifecycle.tasks(),
            self.lifecycle.draining().clone(),
            |dialogue| {
                talk_to(definition, dialogue, |definition, dialogue| definition.install(dialogue))
            },
        )))
    }

    async fn run_pipeline_configurator(
        &self,
        request: Request<Streaming<ExtensionRunPipelineConfiguratorClientMessage>>,
    ) -> Result<Response<Self::RunPipelineConfiguratorStream>, Status> {
        let definition = Arc::clone(&self.lifecycle.definition);
        // Where the extension is initialized, what Subscribe would refuse is
        // already said here.
        let check = self.lifecycle.instance().ok().map(|instance| -> Check {
            Box::new(move |settings| contain_call(|| instance.check(settings)))
        });
        Ok(Response::new(hold(
            request.into_inner(),
            check,
            place(&self.configurators)?,
            self.lifecycle.tasks(),
            self.lifecycle.draining().clone(),
            |dialogue| {
                talk_to(definition, dialogue, |definition, dialogue| definition.configure(dialogue))
            },
        )))
    }
}
