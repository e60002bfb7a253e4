//! TLS for both sides, with HTTP/2 by ALPN.
//!
//! The cryptography provider is passed to every configuration explicitly, because rustls does not
//! choose a default in a program with two of them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme,
};

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What is wrong with a certificate or a key. Contains no part of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemProblem {
    Certificate,
    Key,
    KeyKind,
    Pair,
    Expired,
    NotYetValid,
    NoName,
    Version,
}

impl PemProblem {
    /// Whether another key would be the remedy.
    pub fn is_of_key(self) -> bool {
        matches!(self, Self::Key | Self::KeyKind | Self::Pair)
    }
}

impl fmt::Display for PemProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => {
                "no certificate was found; expected PEM text with a BEGIN CERTIFICATE block"
            }
            Self::Key => {
                "no usable private key was found; expected PEM text with a BEGIN PRIVATE KEY block \
                 (PKCS#8, SEC1 or PKCS#1)"
            }
            Self::KeyKind => {
                "the private key is of a kind that is not supported: RSA needs 2048 to 4096 bits, \
                 ECDSA the curve P-256 or P-384; Ed25519 will do"
            }
            Self::Pair => "the private key does not match the certificate",
            Self::Expired => "the certificate has expired; renew it",
            Self::NotYetValid => {
                "the certificate is not valid yet; check the clock of this machine, or renew it"
            }
            Self::NoName => {
                "the certificate is for no name or address: clients look for them among its \
                 subject alternative names, and not in its subject (with openssl: `-addext \
                 subjectAltName=DNS:localhost,IP:127.0.0.1`)"
            }
            Self::Version => {
                "the certificate is of X.509 version 1, and so for no name or address: clients look \
                 for them among its subject alternative names, which version 3 has (with openssl: \
                 `openssl req -x509 -addext subjectAltName=DNS:localhost,IP:127.0.0.1`)"
            }
        })
    }
}

/// The server's side, with a certificate chain and its key as PEM.
pub fn server_config(chain: &str, key: &str) -> Result<Arc<ServerConfig>, PemProblem> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| PemProblem::Key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|_| PemProblem::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            TlsError::InconsistentKeys(_) => PemProblem::Pair,
            TlsError::InvalidCertificate(CertificateError::Other(why))
                if why.to_string() == "UnsupportedCertVersion" =>
            {
                PemProblem::Version
            }
            TlsError::InvalidCertificate(_) => PemProblem::Certificate,
            _ => PemProblem::KeyKind,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A client needs only one ticket to resume; the default is two.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A certificate that a server is to present, as clients see it.
pub struct Served(CertificateDer<'static>);

impl Served {
    /// # Errors
    ///
    /// What is wrong with the chain or the key, or why no client would accept the certificate at
    /// this time, whatever it trusts.
    pub fn check(chain: &str, key: &str, now: SystemTime) -> Result<Self, PemProblem> {
        server_config(chain, key)?;
        let first = certificates(chain)?.swap_remove(0);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let client = verifier(std::slice::from_ref(&first)).map_err(|_| PemProblem::Certificate)?;
        // The dates are what is checked first.
        let name = ServerName::try_from("gofer.invalid").map_err(|_| PemProblem::Certificate)?;
        let now = UnixTime::since_unix_epoch(now);
        match client.verify_server_cert(&first, &[], &name, &[], now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => return Err(PemProblem::Expired),
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => return Err(PemProblem::NotYetValid),
            _ => {}
        }
        let served = Self(first);
        if served.names().is_empty() { Err(PemProblem::NoName) } else { Ok(served) }
    }

    /// Whether clients accept it for this name or address.
    pub fn is_for(&self, name: &str) -> bool {
        ServerName::try_from(name).is_ok_and(|name| verify_name(&self.0, &name).is_ok())
    }

    /// The names and addresses that it is for.
    fn names(&self) -> Vec<String> {
        let Ok(none) = ServerName::try_from("gofer.invalid") else { return Vec::new() };
        match verify_name(&self.0, &none) {
            Err(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
                presented,
                ..
            })) => presented,
            // It is for any name.
            Ok(()) => vec!["*".to_owned()],
            Err(_) => Vec::new(),
        }
    }
}

fn verify_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), TlsError> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// What a client trusts.
#[derive(Clone, Default)]
pub struct Trust {
    /// Certificates that are trusted in addition to the system's.
    pub extra: Vec<CertificateDer<'static>>,
    /// Trust only the extra certificates, and what they have signed; the system's are not read. A
    /// server that presents one of them has its key, so that one may be for any name.
    pub only_extra: bool,
    /// Trust any certificate, for development.
    pub skip_verification: bool,
}

pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemProblem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(PemProblem::Certificate),
    }
}

/// The client's side. Reads the system's certificates from disk, which takes a few milliseconds.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = if trust.skip_verification {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoVerification(provider())))
            .with_no_client_auth()
    } else if trust.only_extra && !trust.extra.is_empty() {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Explicit {
                given: trust.extra.clone(),
                is_pinned: true,
                signed: verifier(&trust.extra)?,
            }))
            .with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        if !trust.only_extra {
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::warn!(%error, "cannot read the system's certificates");
            }
            roots.add_parsable_certificates(system.certs);
        }
        for certificate in &trust.extra {
            roots.add(certificate.clone())?;
        }
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Explicit {
                given: trust.extra.clone(),
                is_pinned: false,
                signed: verifier_of(roots)?,
            }))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts what roots have signed, and the given certificates themselves, whoever has signed them
/// and for whatever else they may be used: what `openssl req -x509` makes is an authority too.
#[derive(Debug)]
struct Explicit {
    given: Vec<CertificateDer<'static>>,
    /// The given ones are accepted for any name and at any time.
    is_pinned: bool,
    signed: Arc<WebPkiServerVerifier>,
}

/// Accepts what these certificates have signed.
///
/// # Errors
///
/// If one of them cannot be a root.
pub fn verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in roots {
        store.add(certificate.clone())?;
    }
    verifier_of(store)
}

fn verifier_of(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::General(error.to_string()))
}

impl ServerCertVerifier for Explicit {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        use CertificateError::{BadSignature, Other, UnknownIssuer};
        // The handshake proves that the server has its key.
        let is_given = self.given.iter().any(|given| given == end_entity);
        if is_given && self.is_pinned {
            return Ok(ServerCertVerified::assertion());
        }
        let (signed, chain) = (&self.signed, intermediates);
        match signed.verify_server_cert(end_entity, chain, server_name, ocsp_response, now) {
            // Each of these is found after the dates have been found to be right.
            Err(TlsError::InvalidCertificate(BadSignature | Other(_) | UnknownIssuer))
                if is_given =>
            {
                verify_name(end_entity, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signed.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// What the error of a connection begins with whose server has presented a certificate that is not
/// accepted.
pub const NOT_ACCEPTED: &str = "the server's certificate is not accepted";

/// The error of a handshake, in words if it is about the server's certificate.
pub(crate) fn rejection(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(TlsError::InvalidCertificate(why)) => {
            io::Error::new(error.kind(), format!("{NOT_ACCEPTED}: {}", in_words(why)))
        }
        _ => error,
    }
}

fn in_words(error: &CertificateError) -> String {
    use CertificateError as Is;
    let words = match error {
        Is::Expired | Is::ExpiredContext { .. } => "it has expired, by the clock of this machine",
        Is::NotValidYet | Is::NotValidYetContext { .. } => {
            "it is not valid yet, by the clock of this machine"
        }
        Is::NotValidForNameContext { expected, presented } => {
            // Each is `DnsName("localhost")` or `IpAddress(127.0.0.1)`.
            let names = presented
                .iter()
                .filter_map(|name| Some(name.split_once('(')?.1.trim_matches(['"', ')'])));
            let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
            let but_for = if names.is_empty() {
                String::new()
            } else {
                format!(", but for {}", names.join(", "))
            };
            return format!("it is not for `{}`{but_for}", expected.to_str());
        }
        Is::NotValidForName => "it is for another name",
        Is::Revoked => "it has been revoked",
        Is::InvalidPurpose | Is::InvalidPurposeContext { .. } => "it is not one for servers",
        Is::BadEncoding => "it is malformed",
        Is::UnhandledCriticalExtension => "it has a critical extension that is not supported",
        // Whoever has signed it, none of them is trusted.
        _ => "it is neither one that this client trusts nor issued by one",
    };
    words.to_owned()
}

/// `SKIP_TLS_VERIFY`: accepts any certificate, but the handshake must still be signed with its key.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
