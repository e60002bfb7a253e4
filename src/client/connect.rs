//! Opening one connection: name resolution, TCP, TLS, HTTP/2.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;

use super::address::GoferAddress;
use crate::net::tls::{Trust, client_config};
use crate::net::{BoxStream, tune};

/// How long a connection may take from the name to HTTP/2. Longer than one
/// lost SYN takes to be sent again (1 s, then 3 s), shorter than a call's
/// deadline, so that a call to a host that is gone is told so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address may be silent before the next is tried beside it, as
/// RFC 8305 has it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// HTTP/2 pings while a call is in flight. Not more often than every five
/// minutes: gRPC servers in Go close connections that do. A peer that vanishes
/// is noticed sooner by TCP (see `net::tune`) and by the deadlines of calls.
const PING_EVERY: Duration = Duration::from_secs(5 * 60 + 10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How much may be on the way to us unread, for one call and for all: enough
/// that an answer of some megabytes does not stop for every 64 KiB.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Where to connect to.
#[derive(Clone)]
pub(crate) enum Dial {
    Tcp(GoferAddress),
    #[cfg(feature = "harness")]
    Memory(crate::net::memory::Network),
}

pub(crate) type Sender = http2::SendRequest<Body>;
pub(crate) type Driver = http2::Connection<TokioIo<BoxStream>, Body, TokioExecutor>;

/// Opens connections to one place.
pub(crate) struct Connector {
    dial: Dial,
    name: ServerName<'static>,
    trust: Trust,
    /// Made at the first connection: reading the system's certificates costs
    /// milliseconds that the start of the process does not have.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub(crate) fn new(dial: Dial, name: ServerName<'static>, trust: Trust) -> Self {
        Self { dial, name, trust, tls: OnceCell::new() }
    }

    /// One new connection, and the future that drives it.
    pub(crate) async fn connect(&self) -> io::Result<(Sender, Driver)> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.handshake()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            )),
        }
    }

    async fn handshake(&self) -> io::Result<(Sender, Driver)> {
        let stream = self.dial().await?;
        let tls = self.tls.get_or_try_init(|| self.tls_config()).await?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(self.name.clone(), stream).await?;
        let stream: BoxStream = Box::new(stream);
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)
    }

    async fn dial(&self) -> io::Result<BoxStream> {
        match &self.dial {
            Dial::Tcp(address) => dial_tcp(address).await,
            #[cfg(feature = "harness")]
            Dial::Memory(network) => network.connect().await,
        }
    }

    async fn tls_config(&self) -> io::Result<Arc<ClientConfig>> {
        if self.trust.anyone || self.trust.only_extra {
            return client_config(&self.trust).map_err(io::Error::other);
        }
        let trust = self.trust.clone();
        detached(move || client_config(&trust).map_err(io::Error::other)).await
    }
}

/// The first of the name's addresses that accepts. Where one is silent the next
/// is tried beside it.
async fn dial_tcp(address: &GoferAddress) -> io::Result<BoxStream> {
    let mut addresses = resolve(address).await?.into_iter();
    let mut attempts = JoinSet::new();
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    loop {
        match addresses.next() {
            Some(address) => drop(attempts.spawn(TcpStream::connect(address))),
            None if attempts.is_empty() => return outcome,
            None => {}
        }
        let more = addresses.len() > 0;
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended.map_err(io::Error::other).flatten() {
                Ok(stream) => {
                    tune(&stream);
                    return Ok(Box::new(stream));
                }
                Err(error) => outcome = Err(error),
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if more => {}
        }
    }
}

async fn resolve(address: &GoferAddress) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host().parse() {
        return Ok(vec![SocketAddr::new(ip, address.port())]);
    }
    let target = (address.host().to_owned(), address.port());
    detached(move || target.to_socket_addrs().map(Iterator::collect)).await
}

/// Runs something that blocks on a thread of its own. A runtime waits for its
/// own blocking threads when it is dropped, and a name server that does not
/// answer must not hold up the end of the process.
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
