//! The builder's options for the listener.

use std::net::SocketAddr;

use super::limits::ExternalEventLimits;

#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) address: Option<SocketAddr>,
    /// Certificate chain and key, as PEM.
    pub(crate) tls: Option<(String, String)>,
    pub(crate) limits: ExternalEventLimits,
}
