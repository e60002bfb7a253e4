//! Adds the token, the origin and a deadline to each call to Gofer, and reports its outcome.
//!
//! A [`tower_service::Service`] between the generated clients and the [`Channel`], so that all 71
//! methods behave the same, including those that the SDK does not wrap.

use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tonic::body::Body;

use crate::bounded::bounded;
use crate::channel::{Channel, NotSent, SentOn};
use crate::framed::{Answer, Framed, check_grpc};
use crate::outage::{Call, Outages};
use crate::{BoxError, BoxFuture};

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
    /// Those of each call of [`unary`](Self::unary).
    headers: Arc<HeaderMap>,
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
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_TIMEOUT, timeout.clone());
        if let Some(authorization) = &authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let headers = Arc::new(headers);
        Self { channel, authorization, authority, deadline, timeout, headers, outages: None }
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

    /// Calls a method whose request and response are one message each, and which has the deadline of
    /// all calls. `sent_on` learns on which connection it is sent.
    ///
    /// For the call that each tick makes: it allocates less than a generated client.
    pub async fn unary(
        &self,
        method: &'static str,
        request: &Framed,
        sent_on: Option<&SentOn>,
    ) -> Result<Bytes, Status> {
        let uri = self.uri(PathAndQuery::from_static(method));
        let attempt = || {
            let mut attempt = Request::new(request.body());
            *attempt.method_mut() = Method::POST;
            *attempt.version_mut() = Version::HTTP_2;
            *attempt.uri_mut() = uri.clone();
            *attempt.headers_mut() = HeaderMap::clone(&self.headers);
            attempt
        };
        let call = self.outages.as_ref().map(Outages::call);
        let answer = async { Answer::read(self.channel.send_whole(attempt, sent_on).await?).await };
        let outcome = within(Some(self.deadline), answer).await;
        report(call, &self.channel, outcome.as_ref());
        outcome.map_err(|error| Status::from_error(unavailable(error)))?.message()
    }

    fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        // It has all parts.
        Uri::from_parts(parts).unwrap_or_default()
    }

    fn address(&self, request: &mut Request<Body>) {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = self.uri(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
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
        Box::pin(async move {
            let answer = async {
                let response = if streams_request {
                    channel.send(request, None).await?
                } else {
                    // One message: it can be sent again.
                    let (head, sent) = request.into_parts();
                    let sent = Framed(sent.collect().await?.to_bytes());
                    let attempt = || Request::from_parts(head.clone(), sent.body());
                    channel.send_whole(attempt, None).await?
                };
                if streaming {
                    let (head, body) = bounded(response).into_parts();
                    check_grpc(&head)?;
                    return Ok((Answer { head, data: Bytes::new(), trailers: None }, Some(body)));
                }
                Ok((Answer::read(response).await?, None))
            };
            let outcome = within(deadline, answer).await;
            report(call, &channel, outcome.as_ref().map(|(answer, _)| answer));
            let (Answer { head, data, trailers }, stream) = outcome.map_err(unavailable)?;
            let body = match stream {
                Some(stream) => Body::new(stream),
                None => Body::new(Full::new(data).with_trailers(ready(trailers.map(Ok)))),
            };
            Ok(Response::from_parts(head, body))
        })
    }
}

/// The answer, or an error at the deadline.
async fn within<T>(
    deadline: Option<Duration>,
    answer: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let Some(deadline) = deadline else { return answer.await };
    tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no answer within {deadline:?}")).into())
    })
}

/// Reports the outcome to the outages, if they are watched.
fn report(call: Option<Call>, channel: &Channel, outcome: Result<&Answer, &BoxError>) {
    let Some(call) = call else { return };
    match outcome {
        _ if channel.is_closed() => call.ignore(),
        Ok(answer) => call.answered(&answer.head.headers, answer.trailers.as_ref()),
        Err(error) => call.unanswered(error),
    }
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
