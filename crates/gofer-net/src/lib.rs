//! What both ends of a connection share in gofer-sdk and its embedded core.
//!
//! **Internal.** This crate is a part of [gofer-sdk](https://docs.rs/gofer-sdk), released together
//! with it; its API may change in any release.
//!
//! The server ([`server`]) accepts [`Stream`]s and the client ([`Channel`]) connects them; whether
//! one is a TCP connection or a pipe inside a test ([`memory`]) is decided here and nowhere else.
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
    clippy::must_use_candidate,
    clippy::missing_errors_doc,
    reason = "internal: documented if there is something to say"
)]

pub mod auth;
mod backoff;
mod channel;
mod clock;
mod connect;
pub mod deadline;
mod effect;
mod limits;
pub mod memory;
pub mod server;
pub mod tls;
mod transport;

pub use backoff::Backoff;
pub use channel::{Channel, NotSent};
pub use clock::Clock;
pub use connect::{Connector, Dial};
pub use effect::{Effect, effect, not_sent};
pub use limits::Limits;
pub use transport::{MAX_RESPONSE_BYTES, Transport};

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection's bytes. Boxed, so that HTTP/2 and TLS are compiled once for
/// all kinds of connections; the indirect call is nothing beside the system
/// call or the encryption behind it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

/// How long sent data may stay unacknowledged, and how long a silent peer may
/// stay unprobed, before the kernel gives the connection up. HTTP/2 pings alone
/// would do for a peer that allows them; many gRPC servers close a connection
/// that pings more often than every five minutes, so a vanished peer has to be
/// noticed below HTTP/2.
const TCP_DEAD_AFTER: Duration = Duration::from_secs(20);
const TCP_PROBE_AFTER: Duration = Duration::from_secs(15);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(5);

/// Sets what every TCP connection of the SDK wants. A platform without one of
/// the options still has a working connection, so refusals are only logged.
pub fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(TCP_PROBE_AFTER).with_interval(TCP_PROBE_EVERY);
    // Small messages are answers somebody waits for: never hold them back.
    let outcome = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    let outcome = outcome.and_then(|()| socket.set_tcp_user_timeout(Some(TCP_DEAD_AFTER)));
    if let Err(error) = outcome {
        tracing::debug!(%error, "a TCP option was refused");
    }
}
