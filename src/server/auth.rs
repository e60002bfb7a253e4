//! Who may call: everyone who knows the token may call everything, and
//! everyone may ask for health.
//!
//! One tower layer over the whole server, so that no method, present or future,
//! is reachable around it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// Health is open: a load balancer has no token, and learns only whether the
/// extension is well.
pub(crate) const OPEN: &str = "/grpc.health.v1.Health/";

/// Why a call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone may make it; whatever token came with it was not looked at.
    Open,
    /// Its token is a good one.
    Granted,
}

/// Decides about one call by its path and headers.
pub(crate) trait Authorize: Send + Sync {
    /// # Errors
    ///
    /// The status that the caller gets instead.
    fn authorize(&self, path: &str, headers: &HeaderMap) -> Result<Access, Status>;
}

/// The one token that Gofer and the extension share. Digests are compared, in
/// constant time and of fixed length, so neither the time of a refusal nor its
/// kind tells anything about the token.
pub(crate) struct SharedToken([u8; 32]);

impl SharedToken {
    pub(crate) fn new(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }
}

impl Authorize for SharedToken {
    fn authorize(&self, path: &str, headers: &HeaderMap) -> Result<Access, Status> {
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

/// The token of a request; the scheme is compared without regard to case.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    // Two of them would be ambiguous: which one did a proxy check?
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    // SHA-256 is always 32 bytes.
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

/// Comes with the calls of a connection that has not shown a good token yet; set
/// as soon as one does, so that a long first call is not a stranger's.
#[derive(Clone)]
pub(crate) struct Stranger(pub(crate) Arc<AtomicBool>);

/// Puts an [`Authorize`] before a service.
#[derive(Clone)]
pub(crate) struct RequireAuthorization(pub(crate) Arc<dyn Authorize>);

impl<S> Layer<S> for RequireAuthorization {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { authorize: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Authorized<S> {
    authorize: Arc<dyn Authorize>,
    inner: S,
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, B> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.authorize.authorize(request.uri().path(), request.headers()) {
            Ok(access) => {
                if access == Access::Granted
                    && let Some(Stranger(trusted)) = request.extensions().get()
                {
                    trusted.store(true, Ordering::Relaxed);
                }
                self.inner.call(request)
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}
