//! The bounds of a server's connections.

use std::time::Duration;

/// The bounds within which [`serve`](crate::server::serve) holds connections; what each means is
/// documented at `gofer_sdk::Limits`, with the defaults.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    pub calls_per_connection: u32,
    pub handshake_timeout: Duration,
    pub first_call_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            calls_per_connection: 256,
            handshake_timeout: Duration::from_secs(5),
            first_call_timeout: Duration::from_secs(30),
        }
    }
}
