//! The certificate and key that are kept beside a store.

use std::fmt::Display;
use std::io::{self, ErrorKind::NotFound};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gofer_net::tls::{certificates, server_config, verifier};
use gofer_sdk::{Error, ErrorKind, Result};
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};

use super::PublicIdentity;
use super::root::Root;
use crate::certificates::Identity;
use crate::files;

/// A certificate of an earlier version with less time left is replaced at the start: a long-running
/// core is restarted within that time, at the latest for an update.
const RENEWED_BEFORE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Of the two files, behind the name of the store.
const CERTIFICATE_SUFFIX: &str = ".crt";
const KEY_SUFFIX: &str = ".crt.key";

/// Anyone may read the certificate, which is public. Only the owner may read the key.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// The identity beside a store, which is made if there is none.
///
/// The key is what clients trust: nothing replaces it but whoever removes it.
pub(super) fn load_or_create(store: &Path, names: &[String]) -> Result<PublicIdentity> {
    let certificate_path = files::with_suffix(store, CERTIFICATE_SUFFIX);
    let key_path = files::with_suffix(store, KEY_SUFFIX);
    let kept = read(&certificate_path).map_err(|e| refused(&certificate_path, &e))?;
    let root = if let Some(key) = read(&key_path).map_err(|e| refused(&key_path, &e))? {
        Root::from_key(&key).ok_or_else(|| {
            let why = "it holds no private key; put it back from a backup, or remove it for a new \
                       one, whose certificate clients have to trust anew";
            refused(&key_path, &why)
        })?
    } else {
        if kept.is_some() {
            let missing = key_path.display();
            tracing::warn!("`{missing}` is missing: clients have to trust a new certificate");
        }
        let root = Root::new()?;
        // Before the certificate, which is useless without its key.
        files::replace(&key_path, root.key().as_bytes(), KEY_MODE)
            .map_err(|e| refused(&key_path, &e))?;
        root
    };
    // One that an earlier version made is served for as long as it is good: a client may accept
    // nothing but this one.
    if let Some(kept) = kept.as_deref().filter(|kept| is_good_to_serve(kept, &root, names)) {
        return Ok(Identity { certificate: kept.to_owned(), key: root.key() }.into());
    }
    let served = root.issue(names)?;
    let is_its_root = |kept: &str| {
        Root::is_root(kept) && accepts(kept, &served.certificate, names, SystemTime::now())
    };
    if let Some(trusted) = kept.filter(|kept| is_its_root(kept)) {
        return Ok(PublicIdentity { served, trusted });
    }
    let trusted = root.certificate()?;
    files::replace(&certificate_path, trusted.as_bytes(), CERTIFICATE_MODE)
        .map_err(|e| refused(&certificate_path, &e))?;
    Ok(PublicIdentity { served, trusted })
}

fn refused(path: &Path, why: &dyn Display) -> Error {
    let why = format!("the core's `{}` cannot be used: {why}", path.display());
    Error::new(ErrorKind::FailedPrecondition, why)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == NotFound => Ok(None),
        text => text.map(Some),
    }
}

/// Whether clients that have copied this certificate accept it itself, with this key, from now
/// until it would be replaced.
fn is_good_to_serve(certificate: &str, root: &Root, names: &[String]) -> bool {
    let now = SystemTime::now();
    server_config(certificate, &root.key()).is_ok()
        && [now, now + RENEWED_BEFORE]
            .iter()
            .all(|at| accepts(certificate, certificate, names, *at))
}

/// Whether a client that trusts only one certificate accepts the one that is served, at this time
/// and for all of these names.
fn accepts(trusted: &str, served: &str, names: &[String], at: SystemTime) -> bool {
    let check = || {
        let trusted = certificates(trusted).ok()?;
        let served = certificates(served).ok()?;
        let (first, rest) = served.split_first()?;
        let client = verifier(trusted.get(..1)?).ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).ok()?);
        names.iter().try_for_each(|name| {
            let name = ServerName::try_from(name.as_str()).ok()?;
            client.verify_server_cert(first, rest, &name, &[], at).ok().map(drop)
        })
    };
    check().is_some()
}

#[cfg(test)]
mod tests;
