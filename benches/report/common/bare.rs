//! The baseline for an extension's server: tonic with its defaults, the same TLS, the same check of
//! the token, and a map behind a lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gofer_proto as proto;
use gofer_proto::server::extension_service_server::{ExtensionService, ExtensionServiceServer};
use tonic::codegen::tokio_stream::Empty;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::Result;
use super::identity::{CheckToken, IDENTITY};

/// Gives a child the documentation for Info, so that both answers are equally long.
pub(crate) const DOCUMENTATION: &str = "BENCH_DOCUMENTATION";

type Key = (String, String, String);

struct Bare {
    documentation: String,
    subscriptions: Mutex<HashMap<Key, HashMap<String, String>>>,
}

/// Serves until the process is killed.
pub(crate) async fn serve(host: &str) -> Result<()> {
    let service = Bare {
        documentation: std::env::var(DOCUMENTATION).unwrap_or_default(),
        subscriptions: Mutex::default(),
    };
    tls_server()?
        .add_service(ExtensionServiceServer::with_interceptor(service, CheckToken::default()))
        .serve(host.parse()?)
        .await?;
    Ok(())
}

/// A tonic server as its documentation starts one.
pub(crate) fn tls_server() -> Result<Server> {
    let identity = Identity::from_pem(&IDENTITY.certificate, &IDENTITY.key);
    Ok(Server::builder().tls_config(ServerTlsConfig::new().identity(identity))?)
}

#[tonic::async_trait]
impl ExtensionService for Bare {
    type RunExtensionInstallerStream =
        Empty<Result<proto::ExtensionRunExtensionInstallerExtensionMessage, Status>>;
    type RunPipelineConfiguratorStream =
        Empty<Result<proto::ExtensionRunPipelineConfiguratorExtensionMessage, Status>>;

    async fn init(
        &self,
        _: Request<proto::ExtensionInitRequest>,
    ) -> Result<Response<proto::ExtensionInitResponse>, Status> {
        Ok(Response::new(proto::ExtensionInitResponse {}))
    }

    async fn info(
        &self,
        _: Request<proto::ExtensionInfoRequest>,
    ) -> Result<Response<proto::ExtensionInfoResponse>, Status> {
        let subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = subscriptions
            .keys()
            .map(|(namespace, pipeline, _)| format!("{namespace}/{pipeline}"))
            .collect();
        Ok(Response::new(proto::ExtensionInfoResponse {
            name: "bare".to_owned(),
            documentation: self.documentation.clone(),
            registered,
        }))
    }

    async fn subscribe(
        &self,
        request: Request<proto::ExtensionSubscribeRequest>,
    ) -> Result<Response<proto::ExtensionSubscribeResponse>, Status> {
        let request = request.into_inner();
        let key = (request.namespace_id, request.pipeline_id, request.pipeline_extension_label);
        self.subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, request.config);
        Ok(Response::new(proto::ExtensionSubscribeResponse {}))
    }

    async fn unsubscribe(
        &self,
        _: Request<proto::ExtensionUnsubscribeRequest>,
    ) -> Result<Response<proto::ExtensionUnsubscribeResponse>, Status> {
        Err(Status::unimplemented("not part of the baseline"))
    }

    async fn shutdown(
        &self,
        _: Request<proto::ExtensionShutdownRequest>,
    ) -> Result<Response<proto::ExtensionShutdownResponse>, Status> {
        Err(Status::unimplemented("not part of the baseline"))
    }

    async fn external_event(
        &self,
        _: Request<proto::ExtensionExternalEventRequest>,
    ) -> Result<Response<proto::ExtensionExternalEventResponse>, Status> {
        Err(Status::unimplemented("not part of the baseline"))
    }

    async fn run_extension_installer(
        &self,
        _: Request<Streaming<proto::ExtensionRunExtensionInstallerClientMessage>>,
    ) -> Result<Response<Self::RunExtensionInstallerStream>, Status> {
        Err(Status::unimplemented("not part of the baseline"))
    }

    async fn run_pipeline_configurator(
        &self,
        _: Request<Streaming<proto::ExtensionRunPipelineConfiguratorClientMessage>>,
    ) -> Result<Response<Self::RunPipelineConfiguratorStream>, Status> {
        Err(Status::unimplemented("not part of the baseline"))
    }
}
