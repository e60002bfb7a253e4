//! The certificate, its key and the token that all processes of a run share.

use std::sync::{Arc, LazyLock};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Begins the names of the variables that Gofer sets.
pub(crate) const PREFIX: &str = "GOFER_EXTENSION_SYSTEM_";

pub(crate) const TOKEN: &str = "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184";

/// A certificate for this machine, and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The first process makes it, and passes it to its children in the environment, as Gofer does.
pub(crate) static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let given = |name| std::env::var(format!("{PREFIX}{name}")).ok();
    if let (Some(certificate), Some(key)) = (given("TLS_CERT"), given("TLS_KEY")) {
        return Identity { certificate, key };
    }
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    match generate_simple_self_signed(names) {
        Ok(CertifiedKey { cert, signing_key }) => {
            Identity { certificate: cert.pem(), key: signing_key.serialize_pem() }
        }
        // Both names are valid. Without an identity nothing connects.
        Err(_) => Identity { certificate: String::new(), key: String::new() },
    }
});

/// The check of the token for the baselines: digests in constant time, as the SDK does it.
#[derive(Clone)]
pub(crate) struct CheckToken(Arc<[u8]>);

impl Default for CheckToken {
    fn default() -> Self {
        Self(digest(&SHA256, TOKEN.as_bytes()).as_ref().into())
    }
}

impl Interceptor for CheckToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match token {
            Some(token) if bool::from(digest(&SHA256, token).as_ref().ct_eq(&self.0)) => {
                Ok(request)
            }
            _ => Err(Status::unauthenticated("wrong token")),
        }
    }
}
