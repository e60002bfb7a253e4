//! Gofer's API as generated from the contract, for calls that [`Gofer`](crate::Gofer) does not
//! wrap: messages, the client, and what it needs of [`tonic`] and [`prost`]. The services that
//! Gofer and an extension implement are not part of it. It may change in any release.

use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;

pub use gofer_proto::FILE_DESCRIPTOR_SET;
pub use gofer_proto::contract::*;
pub use {prost, tonic};

/// Carries the calls of generated clients; see [`Gofer::transport`](crate::Gofer::transport).
#[derive(Clone, Debug)]
pub struct Transport(pub(crate) gofer_net::Transport);

impl tower_service::Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.call(request))
    }
}
