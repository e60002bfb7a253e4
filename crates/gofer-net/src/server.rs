//! Accepting connections and serving HTTP/2 on them, hardened: every stage a
//! connection goes through is bounded in time, their number is bounded, and a
//! stop is bounded even where a peer holds its connection half-open.
//!
//! The servers of an extension and of the embedded core both run on this.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use crate::Limits;
use crate::auth::{Access, Authorize};
use crate::{BoxStream, deadline, tune};

/// Headers of one call; gRPC's own default is 8 KiB, tokens and tracing
/// context fit many times over.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// What one call, and all calls of a connection, may have on the way to us
/// before we have read it: an external event of some megabytes does not stop
/// for every 64 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Pings for a peer that says nothing: a server may send as many as it likes.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What a connection has for its last answers once the server stops.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Before accepting again where the process is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Calls without a token that are under way at once: of one connection, more
/// than a load balancer makes; of all, what takes some megabytes at most.
const STRANGERS_OF_ONE: usize = 8;
const STRANGERS: usize = 1024;

pub enum Listener {
    Tcp(TcpListener),
    Memory(crate::memory::Listener),
}

impl Listener {
    async fn accept(&mut self) -> io::Result<BoxStream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                tune(&stream);
                Ok(Box::new(stream))
            }
            Self::Memory(listener) => Ok(listener.accept().await),
        }
    }
}

pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What answers the calls: a tower service behind one pointer, so that HTTP/2
/// and TLS are compiled once, whatever is served.
pub trait Handler: Send + Sync {
    fn handle(&self, request: Request<Incoming>) -> ResponseFuture;
}

impl<S> Handler for S
where
    S: tower_service::Service<
            Request<Incoming>,
            Response = Response<Body>,
            Error = Infallible,
            Future = ResponseFuture,
        > + Clone
        + Send
        + Sync,
{
    fn handle(&self, request: Request<Incoming>) -> ResponseFuture {
        // The services here are always ready, so none needs polling first.
        self.clone().call(request)
    }
}

/// Serves until `stop`, then gives open connections a second for their last
/// answers, and returns once every task is joined.
pub async fn serve(
    mut listener: Listener,
    tls: Arc<ServerConfig>,
    authorize: Arc<dyn Authorize>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let calls = TaskTracker::new();
    let (stopping, _) = watch::channel(false);
    let shared = Arc::new(Shared {
        acceptor: TlsAcceptor::from(tls),
        authorize,
        handler,
        http: http(&limits, calls.clone()),
        limits,
        stopping: stopping.clone(),
        strangers: Arc::new(Semaphore::new(STRANGERS)),
    });
    let mut connections = Connections::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_ended) = connections.tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => connections.admit(stream, &shared),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    if !is_of_one_connection(&error) {
                        connections.evict();
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let until = Instant::now() + CLOSE_GRACE;
    while let Ok(Some(_ended)) = tokio::time::timeout_at(until, connections.tasks.join_next()).await
    {
    }
    connections.tasks.shutdown().await;
    calls.close();
    // Without their connections the calls end by themselves; one that does not
    // await is not worth the process's end.
    let _ = tokio::time::timeout_at(until + CLOSE_GRACE, calls.wait()).await;
}

/// Errors that tell of the connection that was about to be accepted, not of
/// the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn http(limits: &Limits, calls: TaskTracker) -> http2::Builder<Tracked> {
    let mut http = http2::Builder::new(Tracked(calls));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls_per_connection)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// Runs the calls of a connection where they can be joined.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn(call);
    }
}

struct Shared {
    acceptor: TlsAcceptor,
    authorize: Arc<dyn Authorize>,
    handler: Arc<dyn Handler>,
    http: http2::Builder<Tracked>,
    limits: Limits,
    stopping: watch::Sender<bool>,
    /// Places for calls without a token.
    strangers: Arc<Semaphore>,
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Arc<Peer>)>,
}

/// What is known of the other side.
struct Peer {
    /// It has made a call, of any kind.
    called: AtomicBool,
    /// Notified with the first call.
    first_call: Notify,
    /// It has shown a token that was not refused.
    authenticated: AtomicBool,
    /// Places for its calls, as long as it has shown none.
    places: Arc<Semaphore>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            called: AtomicBool::default(),
            first_call: Notify::default(),
            authenticated: AtomicBool::default(),
            places: Arc::new(Semaphore::new(STRANGERS_OF_ONE)),
        }
    }
}

impl Connections {
    fn admit(&mut self, stream: BoxStream, shared: &Arc<Shared>) {
        if self.tasks.len() >= shared.limits.connections && !self.evict() {
            tracing::warn!("too many connections with a valid token; one more is refused");
            return;
        }
        let peer = Arc::new(Peer::default());
        let task = self.tasks.spawn(connection(stream, Arc::clone(shared), Arc::clone(&peer)));
        self.open.push_back((task, peer));
        // What has ended is let go now and then, at a cost that each admission
        // has paid for.
        if self.open.len() > 2 * self.tasks.len() + 16 {
            self.open.retain(|(task, _)| !task.is_finished());
        }
    }

    /// Closes the oldest connection that has not shown a valid token.
    fn evict(&mut self) -> bool {
        self.open.retain(|(task, _)| !task.is_finished());
        let stranger =
            self.open.iter().position(|(_, peer)| !peer.authenticated.load(Ordering::Relaxed));
        match stranger.and_then(|at| self.open.remove(at)) {
            Some((task, _)) => {
                task.abort();
                true
            }
            None => false,
        }
    }
}

/// The life of one connection. However it ends, nobody is told but the peer:
/// strangers must not be able to fill the log.
async fn connection(stream: BoxStream, shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut stopping = shared.stopping.subscribe();
    let handshake =
        tokio::time::timeout(shared.limits.handshake_timeout, shared.acceptor.accept(stream));
    let stream = tokio::select! {
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        },
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    let stream: BoxStream = Box::new(stream);
    let service = {
        let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
        service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&peer), request))
    };
    let mut connection =
        std::pin::pin!(shared.http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut connection => return log_end(ended),
        () = silence(&peer, shared.limits.first_call_timeout) => {
            return tracing::debug!("a connection made no call and is closed");
        }
        _ = stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    log_end(connection.await);
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Completes where no call has arrived in time; never after one has.
async fn silence(peer: &Peer, timeout: Duration) {
    if tokio::time::timeout(timeout, peer.first_call.notified()).await.is_ok()
        || peer.called.load(Ordering::Relaxed)
    {
        std::future::pending::<()>().await;
    }
}

async fn answer(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if !peer.called.swap(true, Ordering::Relaxed) {
        peer.first_call.notify_one();
    }
    let timeout = request.headers().get("grpc-timeout").and_then(deadline::parse);
    let mut known = std::mem::take(request.extensions_mut());
    let access = shared.authorize.authorize(request.uri().path(), request.headers(), &mut known);
    *request.extensions_mut() = known;
    if matches!(access, Ok(Access::Granted)) {
        peer.authenticated.store(true, Ordering::Relaxed);
    }
    let call = match access {
        Ok(_) => shared.handler.handle(request),
        Err(status) => Box::pin(async move { Ok(status.into_http()) }),
    };
    if !peer.authenticated.load(Ordering::Relaxed) {
        return Ok(answer_unauthenticated(&shared, &peer, call).await);
    }
    let response = match timeout {
        None => call.await?,
        // The caller's deadline holds here too: nobody reads an answer that
        // comes later.
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(response) => response?,
            Err(_) => Status::deadline_exceeded("the caller's deadline has passed").into_http(),
        },
    };
    Ok(response)
}

/// A call of somebody who has shown no token. It may be made in earnest, for
/// health; it may also be one of very many that never end. So there are places
/// for a few on each connection and for some in all, and each has little time
/// until it is answered. A place is held until the answer has been read.
async fn answer_unauthenticated(
    shared: &Shared,
    peer: &Peer,
    call: ResponseFuture,
) -> Response<Body> {
    let place = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
    let (Some(of_peer), Some(of_all)) = (place(&peer.places), place(&shared.strangers)) else {
        let why = "too many calls without a token are under way";
        return Status::resource_exhausted(why).into_http();
    };
    match tokio::time::timeout(shared.limits.first_call_timeout, call).await {
        Ok(Ok(response)) => {
            response.map(|body| Body::new(Held { body, _places: (of_peer, of_all) }))
        }
        Err(_) => Status::deadline_exceeded("the call was not complete in time").into_http(),
    }
}

/// An answer that holds places until it has been read.
struct Held {
    body: Body,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
