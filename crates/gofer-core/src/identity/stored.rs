//! The certificate and key that are kept beside a store.

use std::io::{self, ErrorKind::NotFound};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gofer_net::tls::{certificates, provider, server_config};
use gofer_sdk::{Error, ErrorKind, Result};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};

use crate::certificates::Identity;
use crate::files;

/// A certificate with less time left is replaced at the start: a long-running core is restarted
/// within that time, at the latest for an update.
const RENEWED_BEFORE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Of the two files, behind the name of the store.
const CERTIFICATE_SUFFIX: &str = ".crt";
const KEY_SUFFIX: &str = ".crt.key";

/// Anyone may read the certificate, which is public. Only the owner may read the key.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// The identity beside a store, which is made if there is none that can be used.
pub(super) fn load_or_create(store: &Path, names: &[String]) -> Result<Identity> {
    let certificate_path = files::with_suffix(store, CERTIFICATE_SUFFIX);
    let key_path = files::with_suffix(store, KEY_SUFFIX);
    let refused = |path: &Path, error: io::Error| {
        let why = format!("the core's `{}` cannot be used: {error}", path.display());
        Error::new(ErrorKind::FailedPrecondition, why)
    };
    let certificate = read(&certificate_path).map_err(|e| refused(&certificate_path, e))?;
    let key = read(&key_path).map_err(|e| refused(&key_path, e))?;
    if let (Some(certificate), Some(key)) = (certificate, key) {
        // A pair does not match if a process was killed between writing the two files.
        if server_config(&certificate, &key).is_ok()
            && is_good(&certificate, names, SystemTime::now() + RENEWED_BEFORE)
        {
            return Ok(Identity { certificate, key });
        }
        tracing::info!(
            "replacing the core's certificate: it expires within 90 days, lacks a needed name, or \
             does not match its key"
        );
    }
    let identity = super::generate(names)?;
    // The key first: a certificate is useless without its key.
    files::replace(&key_path, identity.key.as_bytes(), KEY_MODE)
        .map_err(|e| refused(&key_path, e))?;
    files::replace(&certificate_path, identity.certificate.as_bytes(), CERTIFICATE_MODE)
        .map_err(|e| refused(&certificate_path, e))?;
    Ok(identity)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == NotFound => Ok(None),
        text => text.map(Some),
    }
}

/// Whether a client that trusts only this certificate accepts it at this time for all of these
/// names.
fn is_good(certificate: &str, names: &[String], at: SystemTime) -> bool {
    let check = || {
        let chain = certificates(certificate).ok()?;
        let (first, rest) = chain.split_first()?;
        let mut roots = RootCertStore::empty();
        roots.add(first.clone()).ok()?;
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let client = client.build().ok()?;
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
