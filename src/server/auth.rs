//! The one token that Gofer and the extension share: whoever knows it may call everything, and
//! anybody may ask for health.

use gofer_net::auth::{Access, Authorize, OPEN, bearer, sha256};
use http::{Extensions, HeaderMap};
use subtle::ConstantTimeEq;
use tonic::Status;

/// Digests are compared, in constant time and of fixed length, so neither the time of a refusal nor
/// its kind reveals anything about the token.
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
    ) -> Result<Access, Status> {
        if path.starts_with(OPEN) {
            return Ok(Access::Open);
        }
        match bearer(headers) {
            Some(token) if bool::from(sha256(token).ct_eq(&self.0)) => Ok(Access::Granted),
            Some(_) => Err(Status::unauthenticated("the token is not the one expected")),
            None => Err(Status::unauthenticated(
                "send the token as metadata: `authorization: Bearer <token>`",
            )),
        }
    }
}
