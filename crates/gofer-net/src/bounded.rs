//! A status fits into the headers that peers accept, whatever its message names.
//!
//! A message travels percent-encoded in a header: a character that is not ASCII takes up to twelve
//! bytes. gRPC implementations accept from 8 KiB of headers; a longer message would break the call,
//! and its caller would not even learn the code. So every response is bounded here, as it leaves a
//! server and as it arrives at a client, whoever wrote its status.

use std::pin::Pin;
use std::task::{self, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body, Frame, SizeHint};

/// The most that a message takes as it travels.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// The most that all other headers of a status take, such as its details.
const MAX_OTHER_BYTES: usize = 2 * 1024;

/// What the headers of a status are accepted with from a server that does not bound them.
pub(crate) const MAX_RECEIVED_BYTES: u32 = 1024 * 1024;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `…`, encoded.
const ELLIPSIS: &[u8] = b"%E2%80%A6";

/// A response whose status, in its headers or its trailers, is bounded.
pub(crate) fn bounded<B>(mut response: Response<B>) -> Response<Bounded<B>> {
    bound(response.headers_mut());
    response.map(Bounded)
}

/// The body of a response, with bounded trailers.
pub(crate) struct Bounded<B>(B);

impl<B: Body + Unpin> Body for Bounded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut frame = Pin::new(&mut self.0).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            bound(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Cuts the message of a status, and drops the rest of what comes with it if that is too long:
/// details cannot be cut.
fn bound(headers: &mut HeaderMap) {
    if !headers.contains_key(STATUS) {
        return;
    }
    if let Some(message) = headers.get_mut(MESSAGE)
        && let Some(cut) = cut(message.as_bytes())
    {
        *message = cut;
    }
    let is_needed =
        |name: &HeaderName| [STATUS, MESSAGE, http::header::CONTENT_TYPE].contains(name);
    let others = headers.iter().filter(|(name, _)| !is_needed(name));
    let bytes: usize = others.map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_OTHER_BYTES {
        *headers = std::mem::take(headers)
            .into_iter()
            .filter_map(|(name, value)| name.filter(is_needed).map(|name| (name, value)))
            .collect();
    }
}

/// An encoded message that is too long, cut before a character. Linear in what is kept.
fn cut(message: &[u8]) -> Option<HeaderValue> {
    if message.len() <= MAX_MESSAGE_BYTES {
        return None;
    }
    let at = |index: usize| message.get(index).copied().unwrap_or_default();
    let mut end = MAX_MESSAGE_BYTES - ELLIPSIS.len();
    // Not within `%XX`.
    end -= (1..=2).find(|back| at(end - back) == b'%').unwrap_or(0);
    // Not before a byte that goes on with a character.
    loop {
        let encoded =
            at(end) == b'%' && matches!(at(end + 1), b'8' | b'9' | b'A'..=b'B' | b'a'..=b'b');
        let length = match at(end) {
            b'%' if encoded => 3,
            0x80..=0xbf => 1,
            _ => break,
        };
        if end < length {
            break;
        }
        end -= length;
    }
    let kept = message.get(..end).unwrap_or_default();
    HeaderValue::from_bytes(&[kept, ELLIPSIS].concat()).ok()
}

#[cfg(test)]
mod tests;
