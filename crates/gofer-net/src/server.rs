//! A hardened HTTP/2 server: each stage of a connection is bounded in time, the number of
//! connections is bounded, and so is the time that a stop takes, even if a peer holds its
//! connection half-open.
//!
//! The servers of an extension and of the embedded core both run on this.
//!
//! If there are too many connections, unauthenticated ones are closed first, then the longest idle
//! one of the caller that has the most connections, and never one with an open call. So a peer that
//! leaks connections loses its own (`callers`), and what unauthenticated peers can take is
//! bounded (`unauthenticated`). If all connections have open calls, a manager still gets in. An open
//! call whose token has been revoked meanwhile does not count.
//!
//! A quarter of the places is for newcomers, which are unauthenticated too, but have had no time to
//! show a token: they are not closed for each other while a known caller has idle connections.

mod callers;
mod message;
mod peer;
mod unauthenticated;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use crate::admission::Connections;
use crate::auth::Authorize;
use crate::bounded::{Bounded, bounded};
use crate::throttle::Throttle;
use crate::unvectored::Unvectored;
use crate::{BoxFuture, BoxStream, Limits, Listener, deadline};
use callers::Callers;
use message::Timed;
use peer::{Close, OpenCall, Peer, Refusal};
use unauthenticated::{Class, Places};

/// Headers of one call. gRPC's own default is 8 KiB; tokens and tracing context fit many times
/// over.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Flow-control windows of one call and of all calls of a connection. Large enough that an external
/// event of some megabytes doesn't stall every 64 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Pings to a silent peer that may have vanished. Unlike a client, a server may ping as often as it
/// likes.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for a connection to finish its responses when it is closed.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

pub type ResponseFuture = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// Handles the calls. A tower service behind a pointer, so that HTTP/2 and TLS are compiled once
/// for all services.
pub trait Handler: Send + Sync {
    fn handle(&self, request: Request<Body>) -> ResponseFuture;
}

impl<S> Handler for S
where
    S: tower_service::Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = ResponseFuture,
        > + Clone
        + Send
        + Sync,
{
    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        // The services here are always ready, so `poll_ready` isn't needed.
        self.clone().call(request)
    }
}

/// What a server does with its calls. Its listeners share it, and with it the limits of callers.
#[derive(Clone)]
pub struct Service {
    authorize: Arc<dyn Authorize>,
    handler: Arc<dyn Handler>,
    limits: Limits,
    callers: Arc<Callers>,
}

impl Service {
    pub fn new(authorize: Arc<dyn Authorize>, handler: Arc<dyn Handler>, limits: Limits) -> Self {
        let callers = Callers::new(Arc::clone(&authorize), limits.connections_per_extension);
        Self { authorize, handler, limits, callers }
    }

    /// The same with another handler, for another listener.
    #[must_use]
    pub fn with_handler(&self, handler: Arc<dyn Handler>) -> Self {
        Self { handler, ..self.clone() }
    }
}

/// Serves until `stop`, then gives open connections a second to finish their responses, and returns
/// once all tasks have ended.
pub async fn serve(
    mut listener: Listener,
    tls: Arc<ServerConfig>,
    service: Service,
    stop: impl Future<Output = ()>,
) {
    let calls = TaskTracker::new();
    let (stopping, _) = watch::channel(false);
    let limits = &service.limits;
    let mut connections = Connections::with_extra(limits.connections, limits.extra_connections);
    let context = Arc::new(Context {
        acceptor: TlsAcceptor::from(tls),
        http: http(limits, calls.clone(), listener.peers_may_vanish()),
        service,
        stopping: stopping.clone(),
        calls: calls.clone(),
        places: Places::default(),
        refused: Throttle::default(),
    });
    connections
        .accept(&mut listener, stop, |stream, place| {
            let peer = Peer::new(&context.service.callers, place);
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

fn http(limits: &Limits, calls: TaskTracker, pings: bool) -> http2::Builder<Tracked> {
    let mut http = http2::Builder::new(Tracked(calls));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.calls_per_connection)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(pings.then_some(PING_EVERY))
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

/// What the connections of a listener share.
struct Context {
    acceptor: TlsAcceptor,
    http: http2::Builder<Tracked>,
    service: Service,
    stopping: watch::Sender<bool>,
    calls: TaskTracker,
    /// For calls of unauthenticated peers.
    places: Places,
    /// Connections in extra places that were not a manager's.
    refused: Throttle,
}

/// Serves one connection. How it ends is logged for debugging only: unauthenticated peers must not
/// be able to fill the log.
async fn connection(stream: BoxStream, context: Arc<Context>, peer: Arc<Peer>) {
    let limits = &context.service.limits;
    let _ended = Ended { peer: &peer, context: &context };
    let mut stopping = context.stopping.subscribe();
    let deadline = peer.deadline(limits.handshake_timeout);
    let handshake = tokio::time::timeout_at(deadline, context.acceptor.accept(stream));
    let stream = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => return,
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake timed out"),
        },
    };
    let stream: BoxStream = Box::new(Unvectored(stream));
    let service = {
        let (context, peer) = (Arc::clone(&context), Arc::clone(&peer));
        service_fn(move |request| answer(Arc::clone(&context), Arc::clone(&peer), request))
    };
    let mut connection =
        std::pin::pin!(context.http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // The connection last: a busy one uses up what a task may do at once.
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = peer.until_closed(Close::Answered) => {}
        () = peer.no_first_call(peer.deadline(limits.first_call_timeout)) => {
            return tracing::debug!("closing a connection that has made no call");
        }
        ended = &mut connection => return log_end(ended),
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        () = peer.until_closed(Close::Now) => {}
        () = tokio::time::sleep(CLOSE_GRACE) => {}
        ended = connection => log_end(ended),
    }
}

/// However a connection ends, it no longer counts as its caller's.
struct Ended<'a> {
    peer: &'a Peer,
    context: &'a Context,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.peer.ended();
        if !self.peer.has_place()
            && let Some(refused) = self.context.refused.record()
        {
            tracing::warn!(
                refused,
                "all connections are in use; closing new ones without a management token"
            );
        }
    }
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Whoever answers a call, its response leaves here. An error resets the call's stream.
async fn answer(
    context: Arc<Context>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Bounded<Body>>, h2::Error> {
    respond(context, peer, request).await.map(bounded)
}

async fn respond(
    context: Arc<Context>,
    peer: Arc<Peer>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, h2::Error> {
    let Service { authorize, handler, .. } = &context.service;
    let timeout = request.headers().get("grpc-timeout").and_then(deadline::parse);
    let mut extensions = std::mem::take(request.extensions_mut());
    let decision = authorize.authorize(request.uri().path(), request.headers(), &mut extensions);
    *request.extensions_mut() = extensions;
    let open = match peer.begin(decision) {
        Ok(open) => open,
        Err(Refusal::Status(status)) => return Ok(status.into_http()),
        // Unlike a status, this tells the client that it may send the call again by itself.
        Err(Refusal::Closing) => return Err(Reason::REFUSED_STREAM.into()),
    };
    if !open.authenticated {
        let class = Class::of(&request);
        class.trim(&mut request);
        let call = handler.handle(request.map(Body::new));
        return Ok(unauthenticated::respond(&context, &peer, class, open, call).await);
    }
    let limit = Instant::now() + context.service.limits.first_call_timeout;
    let call = handler.handle(Timed::wrap(request, limit));
    let Ok(response) = match timeout {
        None => call.await,
        // The caller's deadline applies here too: nobody reads a later response.
        Some(timeout) => tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
            Ok(Status::deadline_exceeded("the caller's deadline has passed").into_http())
        }),
    };
    Ok(response.map(|body| Body::new(Counted { body, _open: open })))
}

/// The body of a response. The call is open until it has been read.
struct Counted {
    body: Body,
    _open: OpenCall,
}

impl hyper::body::Body for Counted {
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

#[cfg(test)]
mod tests;
