//! Routes each call to the service that its path names.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use gofer_net::auth::OPEN;
#[cfg(feature = "reflection")]
use gofer_net::server::Handler;
use gofer_net::server::ResponseFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::info::{Info, InfoCodec};
use super::service::Service;
use gofer_proto::ExtensionInfoRequest;
use gofer_proto::embedded::extension_status_server::ExtensionStatusServer;
use gofer_proto::server::extension_service_server::ExtensionServiceServer;

#[derive(Clone)]
pub(crate) struct Router {
    info: InfoMethod,
    max_message_bytes: usize,
    extension: ExtensionServiceServer<Service>,
    status: ExtensionStatusServer<Service>,
    health: HealthServer<HealthService>,
    #[cfg(feature = "reflection")]
    reflection: Option<Arc<dyn Handler>>,
}

impl Router {
    pub(crate) fn new(
        service: Service,
        max_message_bytes: usize,
        health: HealthServer<HealthService>,
    ) -> Self {
        let service = Arc::new(service);
        Self {
            info: InfoMethod(Arc::clone(&service)),
            max_message_bytes,
            status: ExtensionStatusServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(max_message_bytes),
            extension: ExtensionServiceServer::from_arc(service)
                .max_decoding_message_size(max_message_bytes),
            health,
            #[cfg(feature = "reflection")]
            reflection: reflection(),
        }
    }
}

impl tower_service::Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let path = request.uri().path();
        if path == "/proto.ExtensionService/Info" {
            let method = self.info.clone();
            let mut grpc = Grpc::new(InfoCodec)
                .apply_max_message_size_config(Some(self.max_message_bytes), None);
            return Box::pin(async move { Ok(grpc.unary(method, request).await) });
        }
        if path.starts_with("/proto.ExtensionService/") {
            return self.extension.call(request);
        }
        if path.starts_with("/gofer_sdk.embedded.ExtensionStatus/") {
            return self.status.call(request);
        }
        if path.starts_with(OPEN) {
            return self.health.call(request);
        }
        #[cfg(feature = "reflection")]
        if path.starts_with("/grpc.reflection.v1.ServerReflection/")
            && let Some(reflection) = &self.reflection
        {
            return reflection.handle(request);
        }
        Box::pin(async {
            let message = "unknown service; this server offers proto.ExtensionService, \
                           gofer_sdk.embedded.ExtensionStatus and grpc.health.v1.Health";
            Ok(Status::unimplemented(message).into_http())
        })
    }
}

/// Answered here instead of by the generated service, whose codec needs a `String` for each
/// subscription.
#[derive(Clone)]
struct InfoMethod(Arc<Service>);

impl UnaryService<ExtensionInfoRequest> for InfoMethod {
    type Response = Info;
    type Future = Ready<Result<tonic::Response<Info>, Status>>;

    fn call(&mut self, _: tonic::Request<ExtensionInfoRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.info())))
    }
}

#[cfg(feature = "reflection")]
fn reflection() -> Option<Arc<dyn Handler>> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(gofer_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(gofer_proto::EXTENSION_STATUS_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .inspect_err(|error| tracing::error!(%error, "reflection is not available"))
        .ok()
        .map(|service| -> Arc<dyn Handler> { Arc::new(service) })
}
