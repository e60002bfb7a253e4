//! A hardened HTTP/2 server: each stage of a connection is bounded in time, the number of
//! connections is bounded, and so is the time that a stop takes, even if a peer holds its
//! connection half-open.
//!
//! The servers of an extension and of the embedded core both run on this.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use crate::admission::{Connections, Evictable};
use crate::auth::{Authorize, Decision};
use crate::{BoxFuture, BoxStream, Limits, Listener, deadline};

/// Headers of one call. gRPC's own default is 8 KiB; tokens and tracing context fit many times
/// over.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Flow-control windows of one call and of all calls of a connection. Large enough that an external
/// event of some megabytes doesn't stall every 64 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Pings to a silent peer. Unlike a client, a server may ping as often as it likes.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for a connection to finish its responses when the server stops.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Concurrent calls of unauthenticated peers. Per connection, more than a load balancer makes; in
/// total, few enough to hold some megabytes at most.
const UNAUTHENTICATED_CALLS_PER_CONNECTION: usize = 8;
const UNAUTHENTICATED_CALLS: usize = 1024;

pub type ResponseFuture = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// Handles the calls. A tower service behind a pointer, so that HTTP/2 and TLS are compiled once
/// for all services.
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
        // The services here are always ready, so `poll_ready` isn't needed.
        self.clone().call(request)
    }
}

/// Serves until `stop`, then gives open connections a second to finish their responses, and returns
/// once all tasks have ended.
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
    let mut connections = Connections::new(limits.connections);
    let context = Arc::new(Context {
        acceptor: TlsAcceptor::from(tls),
        authorize,
        handler,
        http: http(&limits, calls.clone()),
        limits,
        stopping: stopping.clone(),
        unauthenticated_calls: Arc::new(Semaphore::new(UNAUTHENTICATED_CALLS)),
    });
    connections
        .accept(&mut listener, stop, |stream| {
            let peer = Arc::new(Peer::default());
            (Arc::clone(&peer), connection(stream, Arc::clone(&context), peer))
        })
        .await;
    drop(listener);
    stopping.send_replace(true);
    let deadline = Instant::now() + CLOSE_GRACE;
    connections.close(deadline).await;
    calls.close();
    // Without their connections the calls end by themselves, except one that blocks its thread: the
    // process doesn't wait for that.
    let _ = tokio::time::timeout_at(deadline + CLOSE_GRACE, calls.wait()).await;
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

/// Spawns the calls of a connection so that they can be waited for.
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

/// What the connections of a server share.
struct Context {
    acceptor: TlsAcceptor,
    authorize: Arc<dyn Authorize>,
    handler: Arc<dyn Handler>,
    http: http2::Builder<Tracked>,
    limits: Limits,
    stopping: watch::Sender<bool>,
    /// Permits for calls of unauthenticated peers.
    unauthenticated_calls: Arc<Semaphore>,
}

/// The state of a connection.
struct Peer {
    /// The peer has made a call, authorized or not.
    called: AtomicBool,
    /// Notified at the first call.
    first_call: Notify,
    /// The peer has sent a valid token.
    authenticated: AtomicBool,
    /// Permits for its calls until it is authenticated.
    calls: Arc<Semaphore>,
}

impl Evictable for Peer {
    const PURPOSE: &'static str = "gRPC";
    const FULL: &'static str = "too many connections with a valid token; refusing a new one";

    type Rank = ();

    /// The oldest unauthenticated connection is closed first.
    fn rank(&self) -> Option<()> {
        (!self.authenticated.load(Ordering::Relaxed)).then_some(())
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            called: AtomicBool::default(),
            first_call: Notify::default(),
            authenticated: AtomicBool::default(),
            calls: Arc::new(Semaphore::new(UNAUTHENTICATED_CALLS_PER_CONNECTION)),
        }
    }
}

/// Serves one connection. How it ends is logged for debugging only: unauthenticated peers must not
/// be able to fill the log.
async fn connection(stream: BoxStream, context: Arc<Context>, peer: Arc<Peer>) {
    let mut stopping = context.stopping.subscribe();
    let handshake =
        tokio::time::timeout(context.limits.handshake_timeout, context.acceptor.accept(stream));
    let stream = tokio::select! {
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake timed out"),
        },
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    let stream: BoxStream = Box::new(stream);
    let service = {
        let (context, peer) = (Arc::clone(&context), Arc::clone(&peer));
        service_fn(move |request| respond(Arc::clone(&context), Arc::clone(&peer), request))
    };
    let mut connection =
        std::pin::pin!(context.http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut connection => return log_end(ended),
        () = no_first_call(&peer, context.limits.first_call_timeout) => {
            return tracing::debug!("closing a connection that has made no call");
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

/// Completes if no call arrives in time, and never if one does.
async fn no_first_call(peer: &Peer, timeout: Duration) {
    if tokio::time::timeout(timeout, peer.first_call.notified()).await.is_ok()
        || peer.called.load(Ordering::Relaxed)
    {
        std::future::pending::<()>().await;
    }
}

async fn respond(
    context: Arc<Context>,
    peer: Arc<Peer>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if !peer.called.swap(true, Ordering::Relaxed) {
        peer.first_call.notify_one();
    }
    let timeout = request.headers().get("grpc-timeout").and_then(deadline::parse);
    let mut extensions = std::mem::take(request.extensions_mut());
    let decision =
        context.authorize.authorize(request.uri().path(), request.headers(), &mut extensions);
    *request.extensions_mut() = extensions;
    if matches!(decision, Ok(Decision::Granted)) {
        peer.authenticated.store(true, Ordering::Relaxed);
    }
    let call = match decision {
        Ok(_) => context.handler.handle(request),
        Err(status) => Box::pin(async move { Ok(status.into_http()) }),
    };
    if !peer.authenticated.load(Ordering::Relaxed) {
        return Ok(respond_unauthenticated(&context, &peer, call).await);
    }
    let response = match timeout {
        None => call.await?,
        // The caller's deadline applies here too: nobody reads a later response.
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(response) => response?,
            Err(_) => Status::deadline_exceeded("the caller's deadline has passed").into_http(),
        },
    };
    Ok(response)
}

/// Responds to a call of an unauthenticated peer. It may be a health check, or one of very many
/// calls that never end. So their number is limited, per connection and in total, and so is the
/// time to respond to each. The permits are held until the response has been read.
async fn respond_unauthenticated(
    context: &Context,
    peer: &Peer,
    call: ResponseFuture,
) -> Response<Body> {
    let permit = |calls: &Arc<Semaphore>| Arc::clone(calls).try_acquire_owned().ok();
    let (Some(of_peer), Some(of_all)) =
        (permit(&peer.calls), permit(&context.unauthenticated_calls))
    else {
        let why =
            "too many calls without a token are in progress; send a token, or try again later";
        return Status::resource_exhausted(why).into_http();
    };
    match tokio::time::timeout(context.limits.first_call_timeout, call).await {
        Ok(Ok(response)) => {
            response.map(|body| Body::new(Held { body, _permits: (of_peer, of_all) }))
        }
        Err(_) => Status::deadline_exceeded("the call did not complete in time").into_http(),
    }
}

/// A response body that holds permits until it has been read.
struct Held {
    body: Body,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
