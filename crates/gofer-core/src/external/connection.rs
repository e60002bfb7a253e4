//! Serves one connection. How it ends is logged for debugging only: unauthenticated peers must not
//! be able to fill the log.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::Answer;
use super::state::ConnectionState;
use super::{Shared, request};
use gofer_net::BoxStream;

/// How long a peer that has been answered may go on sending. To close at once would reset the
/// connection, and the answer on its way would be lost.
const LINGER: Duration = Duration::from_secs(10);

/// The buffer for what is read and discarded.
const DISCARD_BYTES: usize = 16 * 1024;

pub(super) async fn serve(stream: BoxStream, shared: Arc<Shared>, state: Arc<ConnectionState>) {
    let stopping = shared.stopping.clone();
    let Some(stream) = stopping.run_until_cancelled(handshake(stream, &shared)).await.flatten()
    else {
        return;
    };
    let service = {
        let (shared, state) = (Arc::clone(&shared), Arc::clone(&state));
        service_fn(move |request| {
            Box::pin(request::answer(Arc::clone(&shared), Arc::clone(&state), request))
        })
    };
    let mut connection = shared.http.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = stopping.cancelled() => {
            if state.is_idle() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match ended {
        // Without the beginning of a request there is nothing to answer.
        Err(error) if error.is_timeout() && !parts.read_buf.is_empty() => {
            // The peer may be gone.
            let _ = stream.write_all(Answer::TooSlow.raw_response().as_bytes()).await;
        }
        // Hyper has answered what it could not parse.
        Err(error) if error.is_parse() => {}
        _ if state.cut_off.load(Ordering::Relaxed) => {}
        _ => {
            let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
            return;
        }
    }
    state.expect_request();
    let lingering = tokio::time::timeout(LINGER, linger(stream));
    stopping.run_until_cancelled(lingering).await;
}

/// Adds TLS if it is configured; `None` if the handshake fails.
async fn handshake(stream: BoxStream, shared: &Shared) -> Option<BoxStream> {
    let Some(acceptor) = &shared.tls else { return Some(stream) };
    match tokio::time::timeout(shared.limits.header_timeout(), acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Shuts down this side, and reads until the peer does the same.
async fn linger(mut stream: BoxStream) {
    let mut discarded = vec![0; DISCARD_BYTES];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
    }
}
