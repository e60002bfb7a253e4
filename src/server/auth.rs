//! Authentication by the one token that Gofer and the extension share. It allows every call; the
//! health service needs no token.

use gofer_net::auth::{Authorize, Caller, Class, Decision, OPEN, bearer, sha256};
use http::{Extensions, HeaderMap};
use subtle::ConstantTimeEq;
use tonic::Status;

/// Compares digests of fixed length in constant time, so neither the time that a rejection takes
/// nor its message reveals anything about the token.
pub(crate) struct SharedToken([u8; 32]);

impl SharedToken {
    pub(crate) fn new(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }
}

impl Authorize for SharedToken {
    fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        _: &mut Extensions,
    ) -> Result<Decision, Status> {
        let token = bearer(headers);
        if token.is_some_and(|token| bool::from(sha256(token).ct_eq(&self.0))) {
            // Gofer, which manages the extension.
            let caller = Caller { digest: self.0, class: Class::Manager };
            return Ok(Decision::Granted(caller));
        }
        if path.starts_with(OPEN) {
            return Ok(Decision::Open);
        }
        Err(Status::unauthenticated(match token {
            Some(_) => "wrong token: send the value of GOFER_EXTENSION_SYSTEM_KEY",
            None => "send the token as metadata: `authorization: Bearer <token>`",
        }))
    }
}
