//! Opening a connection: name resolution, TCP, TLS, HTTP/2.

mod breakable;
mod executor;
mod in_pieces;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::client::conn::http2;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OnceCell, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tower_service::Service;

pub(crate) use breakable::End;

use breakable::Breakable;
use executor::Executor;
use in_pieces::InPieces;

use crate::bounded::MAX_RECEIVED_BYTES;
use crate::tls::{Trust, client_config, rejection};
use crate::{BoxFuture, BoxStream, TCP_DEAD_AFTER, TCP_PROBE_AFTER, TCP_PROBE_EVERY};

/// The limit for all of it. Longer than retransmitting a lost SYN takes (1 s, then 3 s), and
/// shorter than the deadline of a call, so that a call to a dead host fails with the reason.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to try one family of addresses before also trying the other one (RFC 8305).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// HTTP/2 pings while a call is in flight. gRPC servers in Go close connections on which pings
/// arrive more often than every five minutes. A peer that vanishes is detected sooner by TCP (see
/// [`tune`](crate::tune)) and by the deadlines of calls.
const PING_EVERY: Duration = Duration::from_secs(5 * 60 + 10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Flow-control windows of one call and of all calls of a connection. Large enough that a response
/// of some megabytes doesn't stall every 64 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Where to connect to.
#[derive(Clone)]
pub enum Dial {
    Tcp { host: String, port: u16 },
    Memory(crate::memory::Network),
}

impl Dial {
    /// Whether the peer can be gone without the connection having ended, which only pings show.
    fn peer_may_vanish(&self) -> bool {
        match self {
            Self::Tcp { .. } => true,
            Self::Memory(network) => network.is_faulty(),
        }
    }
}

/// Host and port, for people.
impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Memory(_) => f.write_str("this process"),
        }
    }
}

impl From<SocketAddr> for Dial {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

pub(crate) type Sender = http2::SendRequest<Body>;
pub(crate) type Driver = http2::Connection<TokioIo<BoxStream>, Body, Executor>;

/// Opens connections to one server.
pub struct Connector {
    dial: Dial,
    name: ServerName<'static>,
    trust: Trust,
    /// Created at the first connection: reading the system's certificates takes milliseconds, which
    /// would delay the start of the process.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub fn new(dial: Dial, name: ServerName<'static>, trust: Trust) -> Self {
        Self { dial, name, trust, tls: OnceCell::new() }
    }

    /// Where it connects to, for the log.
    pub(crate) fn to(&self) -> &Dial {
        &self.dial
    }

    /// A new connection, the future that drives it, and the end of its stream.
    pub(crate) async fn connect(&self) -> io::Result<(Sender, Driver, Arc<End>)> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.handshake()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("timed out after {} s", CONNECT_TIMEOUT.as_secs()),
            )),
        }
    }

    async fn handshake(&self) -> io::Result<(Sender, Driver, Arc<End>)> {
        let stream = self.dial().await?;
        let tls = self.tls.get_or_try_init(|| self.tls_config()).await?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(self.name.clone(), stream).await;
        let stream = stream.map_err(rejection)?;
        let (stream, end) = Breakable::new(Box::new(InPieces::new(Box::new(stream))));
        let stream: BoxStream = Box::new(stream);
        let (sender, driver) = http2::Builder::new(Executor::spawn())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_RECEIVED_BYTES)
            .keep_alive_interval(self.dial.peer_may_vanish().then_some(PING_EVERY))
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok((sender, driver, end))
    }

    async fn dial(&self) -> io::Result<BoxStream> {
        match &self.dial {
            Dial::Tcp { host, port } => dial_tcp(host, *port).await,
            Dial::Memory(network) => network.connect().await,
        }
    }

    async fn tls_config(&self) -> io::Result<Arc<ClientConfig>> {
        if self.trust.skip_verification || self.trust.only_extra {
            return client_config(&self.trust).map_err(io::Error::other);
        }
        let trust = self.trust.clone();
        detached(move || client_config(&trust).map_err(io::Error::other)).await
    }
}

/// Opens a TCP connection. The addresses of one family are tried one after the other, each with an
/// equal part of the time; the two families race.
async fn dial_tcp(host: &str, port: u16) -> io::Result<BoxStream> {
    let authority = Dial::Tcp { host: host.to_owned(), port }.to_string();
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/");
    let mut http = HttpConnector::new_with_resolver(Resolver);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_happy_eyeballs_timeout(Some(NEXT_ADDRESS));
    http.set_nodelay(true);
    http.set_keepalive(Some(TCP_PROBE_AFTER));
    http.set_keepalive_interval(Some(TCP_PROBE_EVERY));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(TCP_DEAD_AFTER));
    let uri = uri.build().map_err(io::Error::other)?;
    let stream = http.call(uri).await.map_err(|error| system_error(&error))?;
    Ok(Box::new(stream.into_inner()))
}

/// The system's error, without the messages of the layers around it.
fn system_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(system) = error.downcast_ref::<io::Error>() {
            return io::Error::new(system.kind(), system.to_string());
        }
        cause = error.source();
    }
    io::Error::other(error.to_string())
}

/// Resolves names on separate threads; see [`detached`].
#[derive(Clone)]
struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let name = name.as_str().to_owned();
        // The connector sets the port.
        Box::pin(detached(move || (name, 0).to_socket_addrs()))
    }
}

/// Runs blocking work on a new thread. A runtime that is dropped waits for its own blocking
/// threads, and a name server that doesn't respond must not delay the end of the process.
async fn detached<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    std::thread::Builder::new().name("gofer-connect".to_owned()).spawn(move || {
        // The caller may have stopped waiting.
        let _ = done.send(work());
    })?;
    outcome.await.map_err(io::Error::other)?
}
