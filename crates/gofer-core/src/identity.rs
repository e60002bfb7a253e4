//! The certificate and key that a core uses on its address.
//!
//! Clients of a long-running core trust its certificate, so what they trust is made at its first
//! start and kept beside its store, with its key: see [`root`]. A certificate that was given
//! instead is never written to a file.

#[cfg(feature = "store")]
mod root;
#[cfg(feature = "store")]
mod stored;

use std::io::ErrorKind::NotFound;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::certificates::{Identity, LOOPBACK_NAMES};
use super::files::with_suffix;
use gofer_net::tls::Served;
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
            Served::check(&certificate, &key, SystemTime::now())
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

/// The files of a new store, to be removed if the start fails.
pub(super) struct NewFiles {
    /// The store itself last: as long as it is there, locked, no other core starts on it.
    paths: [PathBuf; 4],
    remove_on_drop: bool,
}

impl NewFiles {
    /// `None` if one of them exists: the store is not new, and would be of no use without the others.
    pub(super) fn of(store: &Path) -> Option<Self> {
        let paths = [".crt.key", ".crt", ".key", ""].map(|suffix| with_suffix(store, suffix));
        let is_missing = |path: &PathBuf| {
            std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == NotFound)
        };
        paths.iter().all(is_missing).then_some(Self { paths, remove_on_drop: false })
    }

    /// From now on they are removed when this is dropped. The store must be open, so that no other
    /// core uses it, and nobody may have a token of it.
    pub(super) fn remove_unless_kept(&mut self) {
        self.remove_on_drop = true;
    }

    pub(super) fn keep(mut self) {
        self.remove_on_drop = false;
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in self.paths.iter().filter(|_| self.remove_on_drop) {
            // It may not have come that far.
            let _ = std::fs::remove_file(path);
        }
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
