//! What every call to Gofer carries: the token, the origin and a deadline.
//!
//! A [`tower_service::Service`] between the generated clients and the
//! [`Channel`], so that all 71 methods behave alike, named by the SDK or not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use tonic::Status;
use tonic::body::Body;

use super::channel::{Channel, NotSent};

/// The largest answer of a call that is not a stream; the limit that gRPC
/// implementations share by default is 4 MiB, objects may be larger.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Methods whose answer is a stream: a deadline for the whole call would cut
/// it, so they have one only where the caller sets it.
const STREAMING: [&str; 7] = [
    "/proto.Gofer/ListEvents",
    "/proto.Gofer/GetTaskRunLogs",
    "/proto.Gofer/AttachToTaskRun",
    "/proto.Gofer/RunExtensionInstaller",
    "/proto.Gofer/RunPipelineConfigurator",
    "/proto.ExtensionService/RunExtensionInstaller",
    "/proto.ExtensionService/RunPipelineConfigurator",
];

/// Carries the calls of the generated clients to Gofer. See
/// [`Gofer::api`](crate::Gofer::api).
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

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower_service::Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.address(&mut request);
        let channel = self.channel.clone();
        let streaming = STREAMING.contains(&request.uri().path());
        let asked = request.headers().get(GRPC_TIMEOUT).and_then(crate::deadline::parse);
        let deadline = match asked {
            Some(asked) => asked,
            None if streaming => {
                return Box::pin(async move {
                    let response = channel.send(request).await.map_err(unavailable)?;
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
                let response = channel.send(request).await.map_err(unavailable)?;
                if streaming {
                    return Ok(response.map(Body::new));
                }
                // The deadline covers the whole answer, so the whole answer is
                // read here; it is one message, decoded at once anyway.
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

/// What was not sent is told as `UNAVAILABLE`, with the reason as its source,
/// by which the SDK's own calls know that they may be made again.
fn unavailable(error: BoxError) -> BoxError {
    match error.downcast::<NotSent>() {
        Ok(not_sent) => {
            let mut status = Status::unavailable(not_sent.to_string());
            status.set_source(Arc::new(*not_sent));
            status.into()
        }
        Err(error) => error,
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("authority", &self.authority).finish_non_exhaustive()
    }
}
