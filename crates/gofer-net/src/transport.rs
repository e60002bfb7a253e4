//! Adds the token, the origin and a deadline to each call to Gofer.
//!
//! A [`tower_service::Service`] between the generated clients and the [`Channel`], so that all 71
//! methods behave the same, including those that the SDK does not wrap.

use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use crate::bounded::{Bounded, bounded};
use crate::channel::{Channel, NotSent};
use crate::{BoxError, BoxFuture};

/// The largest response of a call that is not a stream. The common default of gRPC implementations
/// is 4 MiB; objects may be larger.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Methods that respond with a stream. A deadline would cut it off, so they have one only if the
/// caller sets it.
pub const STREAMING: [&str; 7] = [
    "/proto.Gofer/ListEvents",
    "/proto.Gofer/GetTaskRunLogs",
    "/proto.Gofer/AttachToTaskRun",
    "/proto.Gofer/RunExtensionInstaller",
    "/proto.Gofer/RunPipelineConfigurator",
    "/proto.ExtensionService/RunExtensionInstaller",
    "/proto.ExtensionService/RunPipelineConfigurator",
];

/// Methods whose request is a stream: it may pause for as long as a user thinks.
pub const STREAMS_REQUESTS: [&str; 6] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/proto.Gofer/AttachToTaskRun",
    "/proto.Gofer/RunExtensionInstaller",
    "/proto.Gofer/RunPipelineConfigurator",
    "/proto.ExtensionService/RunExtensionInstaller",
    "/proto.ExtensionService/RunPipelineConfigurator",
];

/// The transport of the generated clients. See `gofer_sdk::Gofer::api`.
#[derive(Clone)]
pub struct Transport {
    channel: Channel,
    authorization: Option<HeaderValue>,
    authority: Authority,
    deadline: Duration,
}

impl Transport {
    pub fn new(
        channel: Channel,
        authorization: Option<HeaderValue>,
        authority: Authority,
        deadline: Duration,
    ) -> Self {
        Self { channel, authorization, authority, deadline }
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether calls carry a token.
    pub fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    fn address(&self, request: &mut Request<Body>) {
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
    }
}

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.address(&mut request);
        let channel = self.channel.clone();
        let streaming = STREAMING.contains(&request.uri().path());
        let requested = request.headers().get(GRPC_TIMEOUT).and_then(crate::deadline::parse);
        let deadline = match requested {
            Some(deadline) => deadline,
            None if streaming => {
                return Box::pin(async move {
                    let response = send(&channel, request).await?;
                    Ok(response.map(Body::new))
                });
            }
            None => {
                let value = crate::deadline::format(self.deadline);
                request.headers_mut().insert(GRPC_TIMEOUT, value);
                self.deadline
            }
        };
        Box::pin(async move {
            let call = async {
                let response = send(&channel, request).await?;
                if streaming {
                    return Ok(response.map(Body::new));
                }
                // The deadline covers the whole response, so all of it is read here. It is one
                // message, which would be decoded at once anyway.
                let (head, body) = response.into_parts();
                let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await?;
                Ok(Response::from_parts(head, Body::new(body)))
            };
            tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
                let message = format!("no answer within {deadline:?}");
                Err(BoxError::from(Status::deadline_exceeded(message)))
            })
        })
    }
}

/// Sends a request; the response arrives here, whoever made it.
async fn send(
    channel: &Channel,
    request: Request<Body>,
) -> Result<Response<Bounded<Incoming>>, BoxError> {
    channel.send(request).await.map(bounded).map_err(unavailable)
}

/// Reports a request that was not sent as `UNAVAILABLE`.
fn unavailable(error: BoxError) -> BoxError {
    match error.downcast::<NotSent>() {
        Ok(not_sent) => not_sent.into_status().into(),
        Err(error) => error,
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("authority", &self.authority).finish_non_exhaustive()
    }
}
