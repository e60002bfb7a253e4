//! The life of one connection. However it ends, nobody is told but the peer:
//! strangers must not be able to fill the log.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Shared;
use super::answer::Answer;
use super::guests::Guest;
use super::request;
use gofer_net::BoxStream;

/// How long a peer may go on sending what nobody wants once it has been
/// answered. To close at once would reset the connection, and with it the
/// answer that is on its way.
const LINGER: Duration = Duration::from_secs(10);

/// What is thrown away in one piece.
const SCRAP_BYTES: usize = 16 * 1024;

pub(super) async fn serve(stream: BoxStream, shared: Arc<Shared>, guest: Arc<Guest>) {
    let stopping = shared.stopping.clone();
    let Some(stream) = stopping.run_until_cancelled(secured(stream, &shared)).await.flatten()
    else {
        return;
    };
    let service = {
        let (shared, guest) = (Arc::clone(&shared), Arc::clone(&guest));
        service_fn(move |request| {
            Box::pin(request::answer(Arc::clone(&shared), Arc::clone(&guest), request))
        })
    };
    let mut connection = shared.http.serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = stopping.cancelled() => {
            if guest.is_between_requests() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match ended {
        // It has begun a request, or else there is nothing to answer.
        Err(error) if error.is_timeout() && !parts.read_buf.is_empty() => {
            // The peer may be gone.
            let _ = stream.write_all(Answer::TooSlow.last_words().as_bytes()).await;
        }
        // Hyper has answered what it could not read.
        Err(error) if error.is_parse() => {}
        _ if guest.cut_off.load(Ordering::Relaxed) => {}
        _ => {
            let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
            return;
        }
    }
    guest.between_requests();
    let lingering = tokio::time::timeout(LINGER, linger(stream));
    stopping.run_until_cancelled(lingering).await;
}

/// With TLS, where that is asked for; `None` where it did not come about.
async fn secured(stream: BoxStream, shared: &Shared) -> Option<BoxStream> {
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

/// Says that there will be no more, and reads until the peer says so too.
async fn linger(mut stream: BoxStream) {
    let mut scrap = vec![0; SCRAP_BYTES];
    if stream.shutdown().await.is_ok() {
        while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
    }
}
