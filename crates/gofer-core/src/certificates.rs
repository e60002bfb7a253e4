//! Self-signed certificates: one for the core's API, and one for each launch of an extension.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tonic::Status;

/// A self-signed certificate and its key, as PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A name in every certificate that the core makes, whatever the address.
pub(super) const SERVER_NAME: &str = "localhost";

/// The names by which a machine reaches itself.
pub(super) const LOOPBACK_NAMES: [&str; 3] = [SERVER_NAME, "127.0.0.1", "::1"];

/// Ten years: clients trust a self-signed certificate by copying it, and have to copy the next one
/// too.
const VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Allows for clocks of machines that differ.
const VALID_SINCE: Duration = Duration::from_secs(24 * 60 * 60);

impl Identity {
    pub(super) fn new() -> Result<Self, Status> {
        Self::for_names(&LOOPBACK_NAMES.map(str::to_owned))
    }

    /// One for these DNS names and IP addresses.
    pub(super) fn for_names(names: &[String]) -> Result<Self, Status> {
        Self::make(names)
            .map_err(|error| Status::internal(format!("cannot make a certificate: {error}")))
    }

    fn make(names: &[String]) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(VALID_SINCE);
        params.not_after = epoch + now + VALID;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A new key or token: 32 random bytes in hexadecimal.
pub(super) fn random_key() -> Result<String, Status> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Status::internal("the system provides no random numbers"))?;
    Ok(hex::encode(bytes))
}
