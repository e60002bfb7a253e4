//! A small part of Gofer, as much as an extension calls: runs are started and listed, over TLS on
//! loopback or in memory, with the failures that a test asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gofer_proto::{
    Initiator, ListRunsRequest, ListRunsResponse, Run, StartRunRequest, StartRunResponse, Variable,
    initiator,
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::serving::{Port, acceptor, unary};
use super::{IDENTITY, Identity};

/// The outcome of one call to start a run.
pub enum Behavior {
    /// The run is started and the answer sent.
    Answer,
    /// Nothing is started.
    Refuse(Status),
    /// The run is started, and the answer says that it was not, as that of a proxy does if it lost
    /// its connection to Gofer.
    StartAndRefuse(Status),
    /// The run is started; the answer waits for the test.
    Hold,
    /// The run is started, and the connection ends before the answer.
    StartAndDisconnect,
}

/// What Gofer has seen.
#[derive(Default)]
pub struct Recorded {
    /// The runs that were started, oldest first.
    pub runs: Vec<Run>,
    /// Calls to start a run, whatever their outcome.
    pub starts: usize,
    /// Calls to list runs, whatever their outcome.
    pub lists: usize,
    /// Calls to start a run that have not been answered yet.
    pub in_flight: usize,
    /// The `authorization` of each call.
    pub authorizations: Vec<String>,
}

/// Reads a clock.
type Now = Box<dyn Fn() -> i64 + Send + Sync>;
type Script = Box<dyn Fn(&StartRunRequest, usize) -> Behavior + Send + Sync>;

pub struct Gofer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    port: Port,
}

struct Shared {
    recorded: watch::Sender<Recorded>,
    script: Script,
    /// In Unix milliseconds.
    now: Now,
    /// Releases held answers.
    release: Semaphore,
    /// Ends the connections.
    disconnect: Notify,
    /// How many calls to list runs are still to be refused.
    refusals: AtomicUsize,
    tls: TlsAcceptor,
}

impl Gofer {
    /// A Gofer whose address refuses connections. `script` decides on each start of a run, the
    /// first being number 1.
    pub fn unreachable(
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        Self::new(&IDENTITY, now, script)
    }

    /// A Gofer, or another server in its place, that listens with an untrusted certificate.
    pub fn untrusted() -> Self {
        let gofer = Self::new(&Identity::new(), now, |_, _| Behavior::Answer);
        gofer.listen();
        gofer
    }

    /// A Gofer that has only the connections of [`serve`](Self::serve), on the clock of the test.
    pub fn in_memory(
        now: impl Fn() -> i64 + Send + Sync + 'static,
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        Self::new(&IDENTITY, now, script)
    }

    fn new(
        identity: &Identity,
        now: impl Fn() -> i64 + Send + Sync + 'static,
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        let port = Port::reserve();
        Self {
            address: port.address(),
            shared: Arc::new(Shared {
                recorded: watch::Sender::default(),
                script: Box::new(script),
                now: Box::new(now),
                release: Semaphore::new(0),
                disconnect: Notify::new(),
                refusals: AtomicUsize::new(0),
                tls: acceptor(identity),
            }),
            port,
        }
    }

    /// A Gofer that listens.
    pub fn listening(
        script: impl Fn(&StartRunRequest, usize) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        let gofer = Self::unreachable(script);
        gofer.listen();
        gofer
    }

    /// Serves one connection.
    pub fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        tokio::spawn(serve(stream, Arc::clone(&self.shared)));
    }

    /// Listens from now on.
    pub fn listen(&self) {
        tokio::spawn(accept(self.port.listen(), Arc::clone(&self.shared)));
    }

    pub fn recorded(&self) -> watch::Ref<'_, Recorded> {
        self.shared.recorded.borrow()
    }

    /// Waits until what Gofer has seen meets the condition.
    pub async fn until(&self, condition: impl FnMut(&Recorded) -> bool) {
        let mut recorded = self.shared.recorded.subscribe();
        drop(super::within(recorded.wait_for(condition)).await.unwrap());
    }

    /// Releases all held answers, and all that would be held from now on.
    pub fn release(&self) {
        self.shared.release.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Ends all connections, also during calls: held answers are lost.
    pub fn disconnect(&self) {
        self.shared.disconnect.notify_waiters();
    }

    /// Refuses this many calls to list runs.
    pub fn refuse_lists(&self, count: usize) {
        self.shared.refusals.store(count, Ordering::SeqCst);
    }

    /// Adds a run as if it had been started earlier.
    pub fn add_run(&self, run: Run) {
        self.shared.recorded.send_modify(|recorded| recorded.runs.push(run));
    }
}

/// A run of the namespace `default` that starts now.
pub fn run_of(pipeline: &str, id: i64, kind: initiator::Type, initiator: &str) -> Run {
    Run {
        namespace: "default".to_owned(),
        pipeline: pipeline.to_owned(),
        id,
        started: now(),
        initiator: Some(Initiator {
            r#type: kind.into(),
            name: initiator.to_owned(),
            reason: String::new(),
        }),
        ..Run::default()
    }
}

/// In Unix milliseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, shared: Arc<Shared>) {
    let Ok(stream) = shared.tls.accept(stream).await else { return };
    let disconnect = CancellationToken::new();
    let calls = Calls { shared: Arc::clone(&shared), disconnect: disconnect.clone() };
    let service = service_fn(move |request| calls.clone().answer(request));
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ended = connection => {}
        () = disconnect.cancelled() => {}
        () = shared.disconnect.notified() => {}
    }
}

/// The calls of one connection.
#[derive(Clone)]
struct Calls {
    shared: Arc<Shared>,
    disconnect: CancellationToken,
}

impl Calls {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, std::convert::Infallible> {
        let authorization = request.headers().get(http::header::AUTHORIZATION);
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        self.shared.recorded.send_modify(|recorded| recorded.authorizations.extend(authorization));
        Ok(match request.uri().path() {
            "/proto.Gofer/StartRun" => {
                unary(request, |message| async move { self.start(message).await }).await
            }
            "/proto.Gofer/ListRuns" => {
                unary(request, |message| async move { self.list(&message) }).await
            }
            _ => Status::unimplemented("this Gofer can only start and list runs").into_http(),
        })
    }

    async fn start(self, request: StartRunRequest) -> Result<StartRunResponse, Status> {
        let mut number = 0;
        self.shared.recorded.send_modify(|recorded| {
            recorded.starts += 1;
            recorded.in_flight += 1;
            number = recorded.starts;
        });
        let _in_flight = InFlight(Arc::clone(&self.shared));
        let behavior = (self.shared.script)(&request, number);
        if let Behavior::Refuse(status) = behavior {
            return Err(status);
        }
        let run = self.started(request);
        match behavior {
            Behavior::Hold => self.shared.release.acquire().await.unwrap().forget(),
            Behavior::StartAndDisconnect => {
                self.disconnect.cancel();
                std::future::pending::<()>().await;
            }
            Behavior::StartAndRefuse(status) => return Err(status),
            Behavior::Answer | Behavior::Refuse(_) => {}
        }
        Ok(StartRunResponse { run: Some(run) })
    }

    fn started(&self, request: StartRunRequest) -> Run {
        let variables = request.variables.into_iter().map(|(key, value)| Variable {
            key,
            value,
            source: String::new(),
        });
        let mut run = Run {
            namespace: request.namespace_id,
            pipeline: request.pipeline_id,
            started: (self.shared.now)(),
            initiator: request.initiator,
            variables: variables.collect(),
            ..Run::default()
        };
        self.shared.recorded.send_modify(|recorded| {
            let before = recorded.runs.iter().filter(|other| other.pipeline == run.pipeline);
            run.id = 1 + i64::try_from(before.count()).unwrap();
            recorded.runs.push(run.clone());
        });
        run
    }

    fn list(&self, request: &ListRunsRequest) -> Result<ListRunsResponse, Status> {
        self.shared.recorded.send_modify(|recorded| recorded.lists += 1);
        let one_less = |refusals: usize| refusals.checked_sub(1);
        let refusals = &self.shared.refusals;
        if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Status::internal("the database is locked"));
        }
        let recorded = self.shared.recorded.borrow();
        let of_pipeline =
            recorded.runs.iter().rev().filter(|run| run.pipeline == request.pipeline_id);
        let page = of_pipeline
            .skip(usize::try_from(request.offset).unwrap())
            .take(usize::try_from(request.limit).unwrap());
        Ok(ListRunsResponse { runs: page.cloned().collect() })
    }
}

/// Counts a call while it is being answered, also if it is dropped.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.recorded.send_modify(|recorded| recorded.in_flight -= 1);
    }
}
