//! A message as gRPC frames it, and the whole response of a call that is not a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::BoxError;
use crate::bounded::bounded;

/// The largest response of a call that is not a stream. The common default of gRPC implementations
/// is 4 MiB; objects may be larger.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// An encoded message, as it is sent.
#[derive(Clone)]
pub struct Framed(pub(crate) Bytes);

impl Framed {
    /// What `encode` appends, in a buffer that has room for so many bytes and grows if it has to.
    pub fn new(bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Self {
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        framed.put_bytes(0, PREFIX_BYTES);
        encode(&mut framed);
        let length = u32::try_from(framed.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        if let Some(prefix) = framed.get_mut(1..PREFIX_BYTES) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        Self(framed.freeze())
    }

    /// The message without what is before it.
    pub fn message(&self) -> Bytes {
        self.0.slice(PREFIX_BYTES..)
    }

    /// The body of a request.
    pub(crate) fn body(&self) -> Body {
        Body::new(OneMessage(Some(self.0.clone())))
    }
}

/// Does not say how long it is: the frames do, and a header that repeats it would cost each call an
/// allocation and its bytes.
struct OneMessage(Option<Bytes>);

impl hyper::body::Body for OneMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|framed| Ok(Frame::data(framed))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// The whole response of a call that is not a stream.
pub(crate) struct Answer {
    pub(crate) head: Parts,
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The deadline covers all of it, so all of it is read here. It is one message, which would be
    /// decoded at once anyway.
    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self, BoxError> {
        let (head, body) = bounded(response).into_parts();
        check_grpc(&head)?;
        let mut body = Limited::new(body, MAX_RESPONSE_BYTES);
        let (mut data, mut trailers) = (Bytes::new(), None);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                // Mostly the only one, which is not copied.
                Ok(first) if data.is_empty() => data = first,
                Ok(next) => {
                    let mut joined = BytesMut::from(std::mem::take(&mut data));
                    joined.extend_from_slice(&next);
                    data = joined.freeze();
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self { head, data, trailers })
    }

    /// Its message, or the status that it has instead.
    pub(crate) fn message(mut self) -> Result<Bytes, Status> {
        for headers in [Some(&self.head.headers), self.trailers.as_ref()].into_iter().flatten() {
            if let Some(failure) = failure(headers) {
                return Err(failure);
            }
        }
        if self.data.len() < PREFIX_BYTES {
            return Err(unreadable("the response has no message"));
        }
        let (compressed, length) = (self.data.get_u8(), self.data.get_u32());
        if compressed != 0 {
            return Err(unreadable("the response is compressed, which was not asked for"));
        }
        if usize::try_from(length).ok() != Some(self.data.len()) {
            return Err(unreadable("the response is not one message"));
        }
        Ok(self.data)
    }
}

/// The status that headers or trailers have, unless they have none or it is `OK`.
///
/// Of those of a call that succeeds, tonic would make a copy.
pub(crate) fn failure(headers: &HeaderMap) -> Option<Status> {
    if headers.get(GRPC_STATUS)? == "0" {
        return None;
    }
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

/// The status for a response that says nothing of what became of its call. It has a source, as any
/// that was made on this side, see [`effect`](crate::effect).
pub fn unreadable(why: impl Into<String>) -> Status {
    let why = why.into();
    let mut status = Status::internal(&why);
    status.set_source(Arc::new(std::io::Error::new(std::io::ErrorKind::InvalidData, why)));
    status
}

/// Refuses a response that is not gRPC: it comes from a proxy that cannot reach Gofer, or from
/// another server. Tonic would decode its page as a message.
pub(crate) fn check_grpc(head: &Parts) -> Result<(), Status> {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    let kind = head.headers.get(CONTENT_TYPE);
    if head.status == StatusCode::OK && kind.is_none_or(is_grpc) {
        return Ok(());
    }
    let code = match head.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        _ => Code::Unavailable,
    };
    Err(Status::new(code, format!("the answer is no gRPC, but HTTP status {}", head.status)))
}

#[cfg(test)]
mod tests;
