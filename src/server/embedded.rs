//! Serving an extension inside the process of an embedded core.

use gofer_net::Clock;
use gofer_net::memory::{MemoryListener, Network};
use gofer_net::tls::Trust;

use super::{RunError, Server, SystemConfig};
use crate::extension::Extension;

/// Serves over pipes, with the core's certificate and on the core's clock.
///
/// # Errors
///
/// As for [`Server::serve`].
pub async fn serve_embedded<E: Extension>(
    config: SystemConfig,
    listener: MemoryListener,
    gofer: Network,
    trust: Trust,
    clock: Clock,
) -> Result<(), RunError> {
    Server::<E>::new(config).into_inner().embedded(listener, gofer, trust, clock).serve().await
}
