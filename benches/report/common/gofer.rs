//! A Gofer that does the least: it records which runs are asked for and when, starts none, and has
//! no earlier runs. It says that it enforces keys, as an embedded core does. It has a thread and a runtime of its own, so that the measuring process may be
//! busy with other things.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use gofer_proto as proto;
use gofer_proto::embedded::{GetCapabilitiesRequest, GetCapabilitiesResponse};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::Result;
use super::bare::tls_server;
use super::identity::CheckToken;
use super::probe::{due, unix_nanos};

/// One run that was asked for.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) pipeline: String,
    /// When it was due and when it arrived, in Unix nanoseconds.
    pub(crate) due: i64,
    pub(crate) at: i64,
}

/// Is told of each run that is asked for, and when that arrived, in Unix nanoseconds.
type Record = Box<dyn Fn(&proto::StartRunRequest, i64) + Send + Sync>;

/// What the Gofer of a run has seen.
struct Seen {
    record: Record,
    /// How often it was asked for earlier runs.
    asked: AtomicUsize,
    runs: AtomicI64,
}

/// A running Gofer; it runs until the process ends.
pub(crate) struct Gofer {
    pub(crate) port: u16,
    seen: Arc<Seen>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Gofer {
    /// Keeps the runs whose reason has the time when they were due.
    pub(crate) fn start() -> Result<Self> {
        let arrivals = Arc::default();
        let kept: Arc<Mutex<Vec<Arrival>>> = Arc::clone(&arrivals);
        let gofer = Self::recording(move |request, at| {
            let reason = request.initiator.as_ref().map_or("", |it| &it.reason);
            if let Some(due) = due(reason) {
                lock(&kept).push(Arrival { pipeline: request.pipeline_id.clone(), due, at });
            }
        })?;
        Ok(Self { arrivals, ..gofer })
    }

    /// Keeps nothing itself.
    pub(crate) fn recording(
        record: impl Fn(&proto::StartRunRequest, i64) + Send + Sync + 'static,
    ) -> Result<Self> {
        let record = Box::new(record);
        let (asked, runs) = (AtomicUsize::default(), AtomicI64::default());
        let seen = Arc::new(Seen { record, asked, runs });
        let service = Service(Arc::clone(&seen));
        let embedded = InterceptedService::new(Embedded(service.clone()), CheckToken::default());
        let service = InterceptedService::new(service, CheckToken::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let incoming = {
            let _entered = runtime.enter();
            TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.with_nodelay(Some(true))
        };
        let port = incoming.local_addr()?.port();
        let server = tls_server()?.add_service(service).add_service(embedded);
        std::thread::spawn(move || runtime.block_on(server.serve_with_incoming(incoming)));
        Ok(Self { port, seen, arrivals: Arc::default() })
    }

    /// Takes everything that has arrived so far.
    #[must_use]
    pub(crate) fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *lock(&self.arrivals))
    }

    /// How often it was asked for earlier runs.
    #[must_use]
    pub(crate) fn asked(&self) -> usize {
        self.seen.asked.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Service(Arc<Seen>);

impl NamedService for Service {
    const NAME: &'static str = "proto.Gofer";
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

struct StartRun(Arc<Seen>);

impl UnaryService<proto::StartRunRequest> for StartRun {
    type Response = proto::StartRunResponse;
    type Future = Answer<tonic::Response<Self::Response>>;

    fn call(&mut self, request: tonic::Request<proto::StartRunRequest>) -> Self::Future {
        let at = unix_nanos();
        let request = request.into_inner();
        (self.0.record)(&request, at);
        let run = proto::Run {
            namespace: request.namespace_id,
            pipeline: request.pipeline_id,
            id: self.0.runs.fetch_add(1, Ordering::Relaxed) + 1,
            started: at / 1_000_000,
            initiator: request.initiator,
            // With what it was asked for, as every Gofer answers.
            variables: request.variables.into_iter().map(variable).collect(),
            ..proto::Run::default()
        };
        let response = proto::StartRunResponse { run: Some(run) };
        Box::pin(async move { Ok(tonic::Response::new(response)) })
    }
}

fn variable((key, value): (String, String)) -> proto::Variable {
    proto::Variable { key, value, source: "EXTENSION".to_owned() }
}

struct ListRuns(Arc<Seen>);

impl UnaryService<proto::ListRunsRequest> for ListRuns {
    type Response = proto::ListRunsResponse;
    type Future = Answer<tonic::Response<Self::Response>>;

    fn call(&mut self, _: tonic::Request<proto::ListRunsRequest>) -> Self::Future {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let response = proto::ListRunsResponse { runs: Vec::new() };
        Box::pin(async move { Ok(tonic::Response::new(response)) })
    }
}

struct GetCapabilities;

impl UnaryService<GetCapabilitiesRequest> for GetCapabilities {
    type Response = GetCapabilitiesResponse;
    type Future = Answer<tonic::Response<Self::Response>>;

    fn call(&mut self, _: tonic::Request<GetCapabilitiesRequest>) -> Self::Future {
        let response = GetCapabilitiesResponse { run_keys_enforced: true };
        Box::pin(async move { Ok(tonic::Response::new(response)) })
    }
}

/// The same service under the name of the API that only an embedded core has.
#[derive(Clone)]
struct Embedded(Service);

impl NamedService for Embedded {
    const NAME: &'static str = "gofer_sdk.embedded.EmbeddedCore";
}

impl tower_service::Service<Request<Body>> for Embedded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Service as tower_service::Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl tower_service::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/proto.Gofer/StartRun" => {
                    Grpc::new(ProstCodec::default()).unary(StartRun(seen), request).await
                }
                "/proto.Gofer/ListRuns" => {
                    Grpc::new(ProstCodec::default()).unary(ListRuns(seen), request).await
                }
                "/gofer_sdk.embedded.EmbeddedCore/GetCapabilities" => {
                    Grpc::new(ProstCodec::default()).unary(GetCapabilities, request).await
                }
                _ => Status::new(Code::Unimplemented, "not part of the baseline").into_http(),
            })
        })
    }
}
