//! The certificate and key that a core uses on its address.
//!
//! Clients of a long-running core trust its certificate, so what they trust is made at its first
//! start and kept beside its store, with its key: see [`root`]. A certificate that was given
//! instead is never written to a file.

#[cfg(feature = "store")]
mod root;
#[cfg(feature = "store")]
mod stored;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::certificates::{Identity, LOOPBACK_NAMES};
use gofer_net::tls::server_config;
use gofer_sdk::{Error, Result};

/// What a core uses on its address.
pub(super) struct PublicIdentity {
    pub(super) served: Identity,
    /// The certificate, as PEM, for clients to trust.
    pub(super) trusted: String,
}

impl From<Identity> for PublicIdentity {
    fn from(served: Identity) -> Self {
        Self { trusted: served.certificate.clone(), served }
    }
}

/// The certificate that was given, the one beside the store, or one for this process only.
///
/// The store must be open: the process that has it is the only one to use the files beside it.
pub(super) fn public_identity(
    given: Option<(String, String)>,
    store: Option<&Path>,
    listen: Option<SocketAddr>,
) -> Result<PublicIdentity> {
    match (given, store, listen) {
        (Some((certificate, key)), _, _) => {
            server_config(&certificate, &key)
                .map_err(|problem| Error::invalid_configuration("tls", problem.to_string()))?;
            Ok(Identity { certificate, key }.into())
        }
        #[cfg(feature = "store")]
        (None, Some(store), Some(_)) => stored::load_or_create(store, &names(listen)),
        // Either there is no address, or no client that will return.
        (None, _, _) => Identity::for_names(&names(listen))
            .map(PublicIdentity::from)
            .map_err(|status| Error::internal(status.message().to_owned())),
    }
}

/// The names by which a core is reached. For one that listens on every address, only the loopback
/// names are known.
fn names(listen: Option<SocketAddr>) -> Vec<String> {
    let mut names = LOOPBACK_NAMES.map(str::to_owned).to_vec();
    if let Some(ip) = listen.as_ref().map(SocketAddr::ip)
        && !ip.is_unspecified()
    {
        let ip = IpAddr::to_canonical(&ip).to_string();
        if !names.contains(&ip) {
            names.push(ip);
        }
    }
    names
}
