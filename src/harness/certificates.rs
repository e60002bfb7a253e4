//! Certificates made for the purpose: one for the core's API, one for each
//! start of an extension.

use rcgen::{CertificateParams, KeyPair};
use tonic::Status;

/// A self-signed certificate and its key, as PEM.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The name that every certificate of the core's making is for, wherever its
/// owner listens.
pub(super) const SERVER_NAME: &str = "localhost";

impl Identity {
    pub(super) fn new() -> Result<Self, Status> {
        Self::make()
            .map_err(|error| Status::internal(format!("cannot make a certificate: {error}")))
    }

    fn make() -> Result<Self, rcgen::Error> {
        let names = [SERVER_NAME, "127.0.0.1", "::1"].map(str::to_owned);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A fresh secret: 32 random bytes in hexadecimal.
pub(super) fn secret() -> Result<String, Status> {
    use ring::rand::{SecureRandom, SystemRandom};
    use std::fmt::Write as _;
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Status::internal("the system gives no random numbers"))?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
