//! The root of the certificates of a core with a store: what its clients trust.
//!
//! The root is a certificate that clients copy. Its key signs the one that the core serves, which
//! has the same key and is issued anew at each start, for the names of the addresses that the core
//! has then. So clients pin the key: whatever else changes, the certificate that they have copied
//! stays the right one.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};

use crate::certificates::{Identity, always, random_bytes};
use gofer_net::tls::certificates;
use gofer_sdk::{Error, Result};

/// The subject of the root. Clients find what they trust by it, so it is the one that the
/// certificates of earlier versions had, which signed themselves: clients that trust such a
/// certificate accept what its key signs now.
const SUBJECT: &str = "rcgen self signed cert";

/// The subject of what the core serves: another one, since that certificate is not self-signed.
const SERVED: &str = "Gofer core";

/// Basic constraints as the root has them: a CA without others below it. (DER: the extension's
/// OID, critical, and a sequence of true and 0.)
const CONSTRAINTS: [u8; 18] = [
    0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x08, 0x30, 0x06, 0x01, 0x01, 0xff, 0x02,
    0x01, 0x00,
];

pub(super) struct Root {
    key: KeyPair,
}

impl Root {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { key: KeyPair::generate().map_err(failed)? })
    }

    /// With a key as PEM; `None` if it is none.
    pub(super) fn from_key(pem: &str) -> Option<Self> {
        Some(Self { key: KeyPair::from_pem(pem).ok()? })
    }

    pub(super) fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// The certificate for clients to trust, as PEM. Any one with this key will do.
    pub(super) fn certificate(&self) -> Result<String> {
        let mut params = root()?;
        params.serial_number = Some(serial()?);
        Ok(params.self_signed(&self.key).map_err(failed)?.pem())
    }

    /// Whether a certificate as PEM is one that [`certificate`](Self::certificate) makes, with
    /// whatever key.
    pub(super) fn is_root(pem: &str) -> bool {
        certificates(pem).is_ok_and(|found| {
            found.iter().all(|it| it.windows(CONSTRAINTS.len()).any(|at| at == CONSTRAINTS))
        })
    }

    /// The certificate to serve, for these names.
    pub(super) fn issue(&self, names: &[String]) -> Result<Identity> {
        let mut params = always(CertificateParams::new(names).map_err(failed)?);
        params.distinguished_name = named(SERVED);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        let issuer = Issuer::new(root()?, &self.key);
        let certificate = params.signed_by(&self.key, &issuer).map_err(failed)?;
        Ok(Identity { certificate: certificate.pem(), key: self.key() })
    }
}

fn root() -> Result<CertificateParams> {
    let mut params = always(CertificateParams::new([]).map_err(failed)?);
    params.distinguished_name = named(SUBJECT);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn named(subject: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject);
    name
}

/// Random, so that no two certificates of one issuer have the same.
fn serial() -> Result<SerialNumber> {
    let bytes: [u8; 16] = random_bytes().map_err(|it| Error::internal(it.message().to_owned()))?;
    Ok(SerialNumber::from_slice(&bytes))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: rcgen::Error) -> Error {
    Error::internal(format!("cannot make a certificate: {error}"))
}
