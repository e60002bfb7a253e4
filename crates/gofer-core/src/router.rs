//! Routes each call to the core's API, or refuses an unknown service.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::api::Api;
use super::health::Health;
use super::store::{Mark, Store};
use gofer_net::auth::OPEN;
use gofer_net::server::ResponseFuture;
use gofer_proto::embedded::embedded_core_server::EmbeddedCoreServer;
use gofer_proto::server::gofer_server::GoferServer;

#[derive(Clone)]
pub(super) struct Router {
    api: GoferServer<Api>,
    embedded: EmbeddedCoreServer<Api>,
    health: HealthServer<HealthService>,
    store: Arc<Store>,
}

impl Router {
    pub(super) fn new(api: Api, health: &Health, store: Arc<Store>) -> Self {
        let embedded = EmbeddedCoreServer::new(api.clone());
        Self { api: GoferServer::new(api), embedded, health: health.service(), store }
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
        let answer = if path.starts_with("/proto.Gofer/") {
            self.api.call(request)
        } else if path.starts_with("/gofer_sdk.embedded.EmbeddedCore/") {
            self.embedded.call(request)
        } else if path.starts_with(OPEN) {
            return self.health.call(request);
        } else {
            let known = "`proto.Gofer`, `gofer_sdk.embedded.EmbeddedCore` and \
                         `grpc.health.v1.Health`";
            let unknown = format!("unknown service; this server offers {known}");
            return Box::pin(async move { Ok(Status::unimplemented(unknown).into_http()) });
        };
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            // What a call changes before it waits for something else, it waits for itself.
            let mut mark = Mark::default();
            let (mut answer, store) = (pin!(answer), &*store);
            let response = poll_fn(|context| {
                mark = store.mark();
                answer.as_mut().poll(context)
            });
            let response = response.await?;
            // Whatever it reports, changed by this call or another, is on disk before it is sent.
            match store.durable(mark).await {
                Ok(()) => Ok(response),
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
