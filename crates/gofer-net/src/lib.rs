//! What both ends of a connection share in gofer-sdk and its embedded core.
//!
//! **Internal.** This crate is a part of [gofer-sdk](https://docs.rs/gofer-sdk), released together
//! with it; its API may change in any release.
//!
//! The server ([`server`]) accepts [`Stream`]s and the client ([`Channel`]) connects them. Only
//! this crate distinguishes TCP connections from in-memory pipes ([`memory`]).
//!
//! ```
//! use std::time::Duration;
//! use gofer_net::Backoff;
//!
//! let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
//! assert!(backoff.pause() <= Duration::from_millis(100));
//! ```

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "internal: documented only where needed"
)]

pub mod admission;
pub mod auth;
mod backoff;
mod bounded;
mod channel;
mod clock;
mod connect;
pub mod deadline;
mod effect;
mod framed;
mod limits;
pub mod log;
pub mod memory;
mod outage;
mod promise;
mod random;
mod reused;
pub mod server;
mod throttle;
pub mod tls;
mod transport;
mod unvectored;

pub use backoff::Backoff;
pub use channel::{Channel, NotSent, SentOn};
pub use clock::{Clock, from_unix_millis, unix_millis};
pub use connect::{Connector, Dial};
pub use effect::{Effect, effect, is_lost, not_sent};
pub use framed::{Framed, MAX_RESPONSE_BYTES, unreadable};
pub use limits::Limits;
pub use outage::{Outage, Outages};
pub use promise::{Promise, Promised, promise};
pub use random::RandomHasher;
pub use reused::{AtRest, Job, Reused};
pub use throttle::Throttle;
pub use transport::{STREAMING, STREAMS_REQUESTS, Transport};

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A byte stream. Boxed, so that HTTP/2 and TLS are compiled once for all kinds of connections; the
/// cost of the indirect call is negligible next to the system call or the encryption behind it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

/// A future of an erased type. The body of an `async fn` is compiled in each crate that awaits it;
/// behind this type it is compiled once, in the crate that boxes it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long sent data may stay unacknowledged before the kernel closes the connection, and when and
/// how often it probes a silent peer. HTTP/2 pings would do if peers allowed them, but many gRPC
/// servers close a connection that pings more often than every five minutes, so a peer that has
/// vanished has to be detected below HTTP/2.
const TCP_DEAD_AFTER: Duration = Duration::from_secs(20);
const TCP_PROBE_AFTER: Duration = Duration::from_secs(15);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(5);

/// Sets the TCP options of a connection. A connection works without them, so an option that the
/// platform does not support is only logged.
pub fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(TCP_PROBE_AFTER).with_interval(TCP_PROBE_EVERY);
    // Small messages are responses that a caller waits for: never delay them.
    let outcome = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    let outcome = outcome.and_then(|()| socket.set_tcp_user_timeout(Some(TCP_DEAD_AFTER)));
    if let Err(error) = outcome {
        tracing::debug!(%error, "cannot set a TCP option");
    }
}

/// Accepts connections.
pub enum Listener {
    /// Others may listen on the same socket, as with socket activation: they go on when this is
    /// closed.
    Tcp(TcpListener),
    Own(OwnListener),
    Memory(memory::MemoryListener),
}

impl Listener {
    pub(crate) async fn accept(&mut self) -> io::Result<BoxStream> {
        match self {
            Self::Tcp(listener) | Self::Own(OwnListener(listener)) => {
                let (stream, _) = listener.accept().await?;
                tune(&stream);
                Ok(Box::new(stream))
            }
            Self::Memory(listener) => Ok(listener.accept().await),
        }
    }

    /// Whether peers can be gone without their connections having ended, which only pings show.
    pub(crate) fn peers_may_vanish(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Own(_) => true,
            Self::Memory(listener) => listener.is_faulty(),
        }
    }
}

/// A socket on which only this process listens. Closing it frees the address, even if a child
/// process has a copy of the socket: each has from its fork until it executes its program, however
/// busy the machine is. (On Linux; elsewhere the address is free when the child has gone on.)
pub struct OwnListener(TcpListener);

impl OwnListener {
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Drop for OwnListener {
    fn drop(&mut self) {
        // Elsewhere an error: only connections can be shut down.
        let _ = socket2::SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
