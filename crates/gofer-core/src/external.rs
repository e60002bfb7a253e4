//! The listener for external events: `POST /external/<extension>` over HTTP or HTTPS, passed to the
//! extension of that name as the raw request.
//!
//! Senders are unauthenticated: no token is needed, and the extension itself decides which requests
//! to trust. So time, memory and numbers are all bounded, and neither slow senders nor an extension
//! that hangs can keep out the events of others:
//!
//! - When there are too many connections, the one that has kept the core waiting longest is closed
//!   in favor of a new one: [`state`].
//! - Of the memory, and of the events in progress, an extension never holds more than it leaves
//!   free: [`quota`].
//! - A body must arrive at a minimum rate, which is higher while others wait for memory: [`body`].
//!
//! What an extension receives is made in [`payload`]; extensions are called by
//! [`extensions`](super::extensions).

mod answer;
mod body;
mod connection;
mod delivery;
mod limits;
mod options;
mod payload;
mod quota;
mod request;
mod state;

pub use limits::ExternalEventLimits;
pub(super) use options::Options;

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

use super::essential::EssentialTasks;
use super::extensions::Extensions;
use delivery::Deliveries;
use gofer_net::admission::Connections;
use gofer_net::tls::server_config;
use gofer_net::{Listener, OwnListener};
use gofer_sdk::{Error, Result};
use quota::Quota;
use state::ConnectionState;

/// The request line and the headers of one request. As much as reverse proxies allow, and the size
/// in which hyper reads bodies.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// One less than the extension's side accepts: the core may add one.
const MAX_HEADERS: usize = 255;

/// How long extensions may take to respond to events in progress when the core stops. Together with
/// the time that extensions have to stop, well within what a service manager waits.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The listener, if external events are configured.
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
    /// For bodies that are not small.
    memory: Arc<Quota>,
    deliveries: Arc<Deliveries>,
    stopping: CancellationToken,
    epoch: Instant,
}

impl External {
    /// Binds the address, if there is one, without accepting connections yet.
    pub(super) async fn open(
        options: Options,
        extensions: &Arc<Extensions>,
        essential: &EssentialTasks,
    ) -> Result<Option<Self>> {
        let Options { address: Some(address), tls, limits } = options else { return Ok(None) };
        let tls = tls.map(|(chain, key)| acceptor(&chain, &key)).transpose()?;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::internal(format!("cannot listen for external events on {address}: {error}"))
        })?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Shared {
            extensions: Arc::clone(extensions),
            http: http(&limits),
            tls,
            memory: Quota::new(limits.memory_bytes()),
            deliveries: Deliveries::new(limits.connections(), limits.calls_per_extension()),
            limits,
            stopping: stop.clone(),
            epoch: Instant::now(),
        };
        let begin = CancellationToken::new();
        let task = essential.spawn("the listener for external events", {
            let begin = begin.clone();
            async move {
                let stopped = shared.stopping.clone();
                if stopped.run_until_cancelled(begin.cancelled()).await.is_some() {
                    accept(Listener::Own(OwnListener::new(listener)), Arc::new(shared)).await;
                }
            }
        });
        Ok(Some(Self { address, begin, stop, task: tokio::sync::Mutex::new(Some(task)) }))
    }

    /// Starts to accept connections. Called once the installed extensions have been loaded, even if
    /// they have yet to start.
    pub(super) fn begin(&self) {
        self.begin.cancel();
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting connections, and gives extensions a little time to respond to events in
    /// progress.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take() {
            // If the task has panicked, there is nothing left to wait for.
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
        // A sender that shuts down its side after the request still wants the response.
        .half_close(true);
    http
}

/// Accepts connections until the core stops, and returns once all tasks have ended.
async fn accept(mut listener: Listener, shared: Arc<Shared>) {
    let mut connections = Connections::new(shared.limits.connections());
    connections
        .accept(&mut listener, shared.stopping.cancelled(), |stream, _| {
            let state = ConnectionState::new(shared.epoch);
            (Arc::clone(&state), connection::serve(stream, Arc::clone(&shared), state))
        })
        .await;
    drop(listener);
    let deadline = Instant::now() + STOP_GRACE;
    connections.close(deadline).await;
    shared.deliveries.end(deadline).await;
}
