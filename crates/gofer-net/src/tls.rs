//! TLS for both sides, with HTTP/2 by ALPN.
//!
//! The cryptography provider is passed to every configuration explicitly, because rustls does not
//! choose a default in a program with two of them.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What is wrong with a certificate or a key. Contains no part of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemProblem {
    Certificate,
    Key,
    Pair,
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
            Self::Pair => "the private key does not match the certificate",
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
            TlsError::InvalidCertificate(_) => PemProblem::Certificate,
            _ => PemProblem::Key,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A client needs only one ticket to resume; the default is two.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
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
            .with_custom_certificate_verifier(Arc::new(Pinned::new(&trust.extra)?))
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
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts the given certificates, and those that they have signed for the name.
#[derive(Debug)]
struct Pinned {
    given: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    fn new(given: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        Ok(Self { given: given.to_vec(), signed: verifier(given)? })
    }
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
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| TlsError::General(error.to_string()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        // The handshake proves that the server has its key.
        if self.given.iter().any(|given| given == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
