//! Who a core is to those who call it from outside: its certificate and key.
//!
//! A core that is left running is known by its certificate, so the one that was
//! made at its first start is kept beside its store and used again. It is made
//! anew where a client that trusts it would not accept it any more: it expires
//! soon, or the core is reached by a name that it is not for. The owner of the
//! machine may give one instead, which is never written anywhere.

#[cfg(feature = "store")]
mod kept;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::certificates::{Identity, LOOPBACK_NAMES};
use gofer_net::tls::server_config;
use gofer_sdk::{Error, Result};

/// What is shown outside: what the owner gave, what is kept beside the store, or
/// something for this process alone.
///
/// The store must be open: whoever has it is alone with the files beside it.
pub(super) fn outside(
    given: Option<(String, String)>,
    store: Option<&Path>,
    listen: Option<SocketAddr>,
) -> Result<Identity> {
    match (given, store, listen) {
        (Some((certificate, key)), _, _) => {
            server_config(&certificate, &key)
                .map_err(|problem| Error::invalid_configuration("tls", problem.to_string()))?;
            Ok(Identity { certificate, key })
        }
        #[cfg(feature = "store")]
        (None, Some(store), Some(_)) => kept::kept(store, &names(listen)),
        // Nobody comes from outside, or nobody comes again.
        (None, _, _) => made(&names(listen)),
    }
}

fn made(names: &[String]) -> Result<Identity> {
    Identity::for_names(names).map_err(|status| Error::internal(status.message().to_owned()))
}

/// The names that a core is reached by from where it listens. Where it listens
/// on every address, those of the machine itself: no other one is known here.
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
