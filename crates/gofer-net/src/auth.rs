//! Authentication and authorization. The server decides once for each call, before any handler sees
//! it, so no method can be left unprotected by mistake.

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use ring::digest::{SHA256, digest};
use tonic::Status;

/// The health service needs no token: load balancers have none, and learn only whether the server
/// is healthy.
pub const OPEN: &str = "/grpc.health.v1.Health/";

/// Why a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It needs no token, and has no valid one.
    Open,
    /// Its token is valid.
    Granted(Caller),
}

/// Whose token a call carries. Connections with the same token share limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The SHA-256 of the token.
    pub digest: [u8; 32],
    pub class: Class,
}

/// What the limits of a caller's connections depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Gets in when all connections are in use.
    Manager,
    /// Has a limited number of connections.
    Extension,
    Other,
}

/// Decides whether a call is allowed, by its path and headers.
pub trait Authorize: Send + Sync {
    /// May describe the caller in `extensions`, which are those of the request.
    ///
    /// # Errors
    ///
    /// The status to respond with.
    fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<Decision, Status>;

    /// Whether the token of a call that is open is still valid. If not, the call no longer keeps its
    /// connection from being closed.
    fn is_valid(&self, _caller: &Caller) -> bool {
        true
    }
}

/// The bearer token of a request. The scheme is case-insensitive.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    // With two of them, a proxy may have checked the other one.
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
