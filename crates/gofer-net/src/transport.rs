//! Adds the token, the origin and a deadline to each call to Gofer, and reports its outcome.
//!
//! A [`tower_service::Service`] between the generated clients and the [`Channel`], so that all 71
//! methods behave the same, including those that the SDK does not wrap.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::LocalKey;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::response::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::BoxError;
use crate::bounded::bounded;
use crate::channel::{Channel, NotSent};
use crate::outage::{Call, Outages};
use crate::reused::{AtRest, Job, Reused};

/// The largest response of a call that is not a stream. The common default of gRPC implementations
/// is 4 MiB; objects may be larger.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Methods that respond with a stream. A deadline would cut it off, so they have one only if the
/// caller sets it.
pub const STREAMING: [&str; 9] = [
    "/proto.Gofer/ListEvents",
    "/proto.Gofer/GetTaskRunLogs",
    "/proto.Gofer/AttachToTaskRun",
    "/proto.Gofer/RunExtensionInstaller",
    "/proto.Gofer/RunPipelineConfigurator",
    "/proto.ExtensionService/RunExtensionInstaller",
    "/proto.ExtensionService/RunPipelineConfigurator",
    "/gofer_sdk.embedded.EmbeddedCore/Backup",
    "/gofer_sdk.embedded.EmbeddedCore/FollowEvents",
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
    /// The deadline as a header.
    timeout: HeaderValue,
    outages: Option<Arc<Outages>>,
}

impl Transport {
    pub fn new(
        channel: Channel,
        authorization: Option<HeaderValue>,
        authority: Authority,
        deadline: Duration,
    ) -> Self {
        let timeout = crate::deadline::format(deadline);
        Self { channel, authorization, authority, deadline, timeout, outages: None }
    }

    /// Reports the outcome of each call.
    #[must_use]
    pub fn with_outages(self, outages: Arc<Outages>) -> Self {
        Self { outages: Some(outages), ..self }
    }

    /// The outages of the server, if they are watched.
    pub fn outages(&self) -> Option<&Arc<Outages>> {
        self.outages.as_ref()
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The number of the connection that calls use now, see [`Channel::connected`].
    pub async fn connected(&self) -> Result<u64, Status> {
        let call = self.outages.as_ref().map(Outages::call);
        let outcome = self.channel.connected().await;
        match (call, &outcome) {
            (Some(call), Err(why)) if !self.channel.is_closed() => {
                call.unanswered(&why.clone().into());
            }
            (Some(call), _) => call.ignore(),
            (None, _) => {}
        }
        outcome.map_err(NotSent::into_status)
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
    type Future = Reused<Sent>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.address(&mut request);
        let path = request.uri().path();
        let (streaming, streams_request) =
            (STREAMING.contains(&path), STREAMS_REQUESTS.contains(&path));
        let requested = request.headers().get(GRPC_TIMEOUT).and_then(crate::deadline::parse);
        let deadline = requested.or_else(|| {
            (!streaming).then(|| {
                request.headers_mut().insert(GRPC_TIMEOUT, self.timeout.clone());
                self.deadline
            })
        });
        let (channel, outages) = (self.channel.clone(), self.outages.as_ref());
        let call = outages.map(Outages::call);
        Reused::new(Sent { channel, request, streaming, streams_request, deadline, call })
    }
}

thread_local! {
    static AT_REST: AtRest<Result<Response<Body>, BoxError>> = const { AtRest::new() };
}

/// A call that is to be sent.
pub struct Sent {
    channel: Channel,
    request: Request<Body>,
    streaming: bool,
    streams_request: bool,
    deadline: Option<Duration>,
    call: Option<Call>,
}

impl Job for Sent {
    type Output = Result<Response<Body>, BoxError>;

    async fn run(job: Option<Self>) -> Self::Output {
        let Some(Self { channel, request, streaming, streams_request, deadline, call }) = job
        else {
            return std::future::pending().await;
        };
        let answer = async {
            let response = if streams_request {
                channel.send(request).await?
            } else {
                // One message: it can be sent again.
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                channel.send_whole(Request::from_parts(head, body)).await?
            };
            let (head, body) = bounded(response).into_parts();
            check_grpc(&head)?;
            if streaming {
                return Ok((head, None, Body::new(body)));
            }
            // The deadline covers the whole response, so all of it is read here. It is one
            // message, which would be decoded at once anyway.
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await?;
            Ok((head, body.trailers().cloned(), Body::new(body)))
        };
        let outcome = match deadline {
            None => answer.await,
            Some(deadline) => tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| {
                let message = format!("no answer within {deadline:?}");
                Err(BoxError::from(Status::deadline_exceeded(message)))
            }),
        };
        if let Some(call) = call {
            match &outcome {
                _ if channel.is_closed() => call.ignore(),
                Ok((head, trailers, _)) => {
                    call.answered(&head.headers, trailers.as_ref());
                }
                Err(error) => call.unanswered(error),
            }
        }
        let (head, _, body) = outcome.map_err(unavailable)?;
        Ok(Response::from_parts(head, body))
    }

    fn at_rest() -> &'static LocalKey<AtRest<Self::Output>> {
        &AT_REST
    }
}

/// Refuses a response that is not gRPC: it comes from a proxy that cannot reach Gofer, or from
/// another server. Tonic would decode its page as a message.
fn check_grpc(head: &Parts) -> Result<(), Status> {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    let kind = head.headers.get(CONTENT_TYPE);
    if head.status == StatusCode::OK && kind.is_none_or(is_grpc) {
        return Ok(());
    }
    let code = match head.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        _ => Code::Unavailable,
    };
    Err(Status::new(code, format!("the answer is no gRPC, but HTTP status {}", head.status)))
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
