//! Self-signed certificates: one for the core's API, and one for each launch of an extension.

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
        let certificate = always(CertificateParams::new(names)?).self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Valid at any time. Who trusts a certificate of ours trusts its key, which does not age: an end
/// of its validity would only cut clients off, and so would a clock that is wrong or is set.
pub(super) fn always(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(1970, 1, 1);
    // "No well-defined expiration date" (RFC 5280).
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

/// A new key or token: 32 random bytes in hexadecimal.
pub(super) fn random_key() -> Result<String, Status> {
    random_bytes::<32>().map(hex::encode)
}

pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], Status> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Status::internal("the system provides no random numbers"))?;
    Ok(bytes)
}
