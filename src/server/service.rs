//! The eight methods of `proto.ExtensionService`: from protobuf to plain Rust and back, and nothing
//! else. Generated types go no further than this.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::catch_panic::{catch_panic, catch_panic_in};
use super::conversation::{ResponseStream, converse_with, start_conversation};
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
    /// Conversations with administrators and with owners of pipelines, limited separately so that
    /// neither can use up the other's.
    installers: Arc<Semaphore>,
    configurators: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(name: String, lifecycle: Arc<Lifecycle>, conversations: usize) -> Self {
        let limit = || Arc::new(Semaphore::new(conversations));
        Self { name, lifecycle, installers: limit(), configurators: limit() }
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

/// The most that a status message may take once it is encoded for its header. Peers accept at least
/// 8 KiB of headers; the rest is for the others.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// The message, cut to what fits into a header.
fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut encoded = 0;
    let end = text.char_indices().find_map(|(at, character)| {
        // All but printable ASCII is percent-encoded, three bytes for one.
        let plain = (' '..='~').contains(&character) && character != '%';
        encoded += if plain { 1 } else { 3 * character.len_utf8() };
        (encoded > MAX_MESSAGE_BYTES).then_some(at)
    });
    if let Some(end) = end {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What a caller may see. A failure of the extension itself is logged in full and reported to the
/// caller as a generic sentence.
pub(crate) fn to_status(error: &Error) -> Status {
    match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidConfiguration => {
            Status::invalid_argument(message(error))
        }
        ErrorKind::Unavailable => Status::unavailable(message(error)),
        ErrorKind::FailedPrecondition => Status::failed_precondition(message(error)),
        ErrorKind::ResourceExhausted => Status::resource_exhausted(message(error)),
        ErrorKind::Unimplemented => Status::unimplemented(message(error)),
        ErrorKind::Cancelled => Status::cancelled(message(error)),
        ErrorKind::NotFound => Status::not_found(message(error)),
        ErrorKind::AlreadyExists => Status::already_exists(message(error)),
        ErrorKind::PermissionDenied => Status::permission_denied(message(error)),
        ErrorKind::Unauthenticated => Status::unauthenticated(message(error)),
        ErrorKind::DeadlineExceeded => Status::deadline_exceeded(message(error)),
        _ => {
            tracing::error!(?error, "a call failed");
            Status::internal("the extension failed; its log says why")
        }
    }
}

fn respond<T>(outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| to_status(&error))
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
        match self.lifecycle.init(config).await {
            Ok(()) => Ok(Response::new(ExtensionInitResponse {})),
            Err(error) => Err(to_status(&error)),
        }
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
        // All of it, because parameters may panic when they are dropped.
        respond(catch_panic(outcome).await.map(|()| ExtensionSubscribeResponse {}))
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
        respond(outcome.await.map(|()| ExtensionUnsubscribeResponse {}))
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
            catch_panic(instance.external_event(event)).await
        };
        respond(outcome.await.map(|()| ExtensionExternalEventResponse {}))
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
            self.lifecycle.draining().clone(),
            |dialogue| {
                converse_with(definition, dialogue, |definition, dialogue| {
                    definition.install(dialogue)
                })
            },
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
            self.lifecycle.draining().clone(),
            |dialogue| {
                converse_with(definition, dialogue, |definition, dialogue| {
                    definition.configure(dialogue)
                })
            },
        )))
    }
}
