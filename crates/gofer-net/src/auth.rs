//! Who may call. Decided once for each call, by the server itself and before anything else looks
//! at it, so no method, present or future, is reachable without.

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use ring::digest::{SHA256, digest};
use tonic::Status;

/// The health service is open: a load balancer has no token, and learns only whether the server is
/// well.
pub const OPEN: &str = "/grpc.health.v1.Health/";

/// Why a call is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody may make it; a token that came with it was not looked at.
    Open,
    /// Its token is valid.
    Granted,
}

/// Decides about a call by its path and headers.
pub trait Authorize: Send + Sync {
    /// What is known of the caller goes into `extensions`, which the request carries from here on.
    ///
    /// # Errors
    ///
    /// The status that the caller gets instead of an answer.
    fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Access, Status>;
}

/// The token of a request; the scheme is compared without regard to case.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    // Two of them would be ambiguous: which one did a proxy check?
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    // SHA-256 is always 32 bytes.
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
