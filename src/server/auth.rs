//! Authentication by the one token that Gofer and the extension share. It allows every call; the
//! health service needs no token.

use gofer_net::auth::{Authorize, Decision, OPEN, bearer, sha256};
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
        if path.starts_with(OPEN) {
            return Ok(Decision::Open);
        }
        match bearer(headers) {
            Some(token) if bool::from(sha256(token).ct_eq(&self.0)) => Ok(Decision::Granted),
            found => Err(Status::unauthenticated(match found {
                Some(_) => "wrong token: send the value of GOFER_EXTENSION_SYSTEM_KEY",
                None => "send the token as metadata: `authorization: Bearer <token>`",
            })),
        }
    }
}
