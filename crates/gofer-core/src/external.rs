//! The listener for external events: `POST /external/<extension>` over HTTP or
//! HTTPS, handed to the extension of that name as the raw request.
//!
//! Whoever sends is a stranger: no token is asked for, the extension itself
//! knows whom it believes. So everything here is bounded, in time, in memory and
//! in number, and what is short is shared in a way that neither slow senders nor
//! an extension that hangs can keep the others' events out:
//!
//! - Of connections, the one that has kept the core waiting longest gives way to
//!   a new one: [`guests`].
//! - Of memory and of events under way, an extension has no more than it leaves
//!   free: [`shares`].
//! - A body has a slowest pace, and a brisker one while others wait: [`body`].
//!
//! What an event looks like to the extension is made in [`payload`]; how the
//! extension is called lies with [`extensions`](super::extensions).

mod answer;
mod body;
mod connection;
mod guests;
mod handover;
mod limits;
mod payload;
mod request;
mod setup;
mod shares;

pub use limits::ExternalEventLimits;
pub(super) use setup::Setup;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::extensions::Extensions;
use gofer_net::tls::server_config;
use gofer_net::{BoxStream, tune};
use gofer_sdk::{Error, Result};
use guests::Guests;
use handover::Handover;
use shares::Shares;

/// The line and the headers of one request. Proxies in front of a server allow
/// as much, and hyper reads bodies in pieces of this size.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// One less than the extension's side reads: there may be one of our own.
const MAX_HEADERS: usize = 255;

/// What events that are with their extension have for their answers once the
/// core stops. With the time that extensions have to stop, it is well within
/// what a service manager waits.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Before accepting again where the process is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener, while it is there.
pub(super) struct External {
    address: SocketAddr,
    begin: CancellationToken,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What all connections share.
struct Shared {
    extensions: Arc<Extensions>,
    limits: ExternalEventLimits,
    http: http1::Builder,
    tls: Option<TlsAcceptor>,
    /// For bodies that are more than small.
    memory: Arc<Shares>,
    handover: Arc<Handover>,
    stopping: CancellationToken,
    epoch: Instant,
}

impl External {
    /// Listens, and takes nothing yet; nothing where no address was asked for.
    pub(super) async fn open(setup: Setup, extensions: &Arc<Extensions>) -> Result<Option<Self>> {
        let Setup { address: Some(address), tls, limits } = setup else { return Ok(None) };
        let tls = tls.map(|(chain, key)| acceptor(&chain, &key)).transpose()?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Shared {
            extensions: Arc::clone(extensions),
            http: http(&limits),
            tls,
            memory: Shares::new(limits.memory_bytes()),
            handover: Handover::new(limits.connections(), limits.calls_per_extension()),
            limits,
            stopping: stop.clone(),
            epoch: Instant::now(),
        };
        let begin = CancellationToken::new();
        let task = tokio::spawn({
            let begin = begin.clone();
            async move {
                let stopped = shared.stopping.clone();
                if stopped.run_until_cancelled(begin.cancelled()).await.is_some() {
                    accept(listener, Arc::new(shared)).await;
                }
            }
        });
        Ok(Some(Self { address, begin, stop, task: tokio::sync::Mutex::new(Some(task)) }))
    }

    /// Begins to take events: by now it is known which extensions there are, also
    /// of those that have yet to start.
    pub(super) fn begin(&self) {
        self.begin.cancel();
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more, and gives events that are with their extension a little
    /// time for their answers.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take() {
            // A task of ours that panicked has nothing more to end.
            let _ = task.await;
        }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn acceptor(chain: &str, key: &str) -> Result<TlsAcceptor> {
    let config = server_config(chain, key).map_err(|problem| {
        Error::invalid_configuration("external_events_tls", problem.to_string())
    })?;
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn http(limits: &ExternalEventLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout())
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        // Who closes his side after sending still wants the answer.
        .half_close(true);
    http
}

/// Accepts until the core stops, and returns once every task has ended.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut guests = Guests::new(shared.limits.connections());
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            () = guests.one_left() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tune(&stream);
                    let stream: BoxStream = Box::new(stream);
                    guests.admit(shared.epoch, |guest| {
                        connection::serve(stream, Arc::clone(&shared), guest)
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for an external event");
                    if !is_of_one_connection(&error) {
                        guests.evict();
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }
    drop(listener);
    let until = Instant::now() + STOP_GRACE;
    guests.leave(until).await;
    shared.handover.end(until).await;
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
