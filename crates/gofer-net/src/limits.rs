//! Limits of a server's connections.

use std::time::Duration;

/// The limits of [`serve`](crate::server::serve), documented with their defaults at
/// `gofer_sdk::Limits`.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Connections beyond these, for managers.
    pub extra_connections: usize,
    /// Of each caller of the class [`Extension`](crate::auth::Class::Extension).
    pub connections_per_extension: usize,
    pub calls_per_connection: u32,
    pub handshake_timeout: Duration,
    pub first_call_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            extra_connections: 16,
            connections_per_extension: 64,
            calls_per_connection: 256,
            handshake_timeout: Duration::from_secs(5),
            first_call_timeout: Duration::from_secs(30),
        }
    }
}
