//! Handles one request: routes it, checks it, and answers its sender.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use percent_encoding::percent_decode_str;

use super::Shared;
use super::answer::Answer;
use super::body::receive;
use super::delivery::{Event, check};
use super::payload::Payload;
use super::state::ConnectionState;

const PREFIX: &str = "/external/";

pub(super) async fn answer(
    shared: Arc<Shared>,
    state: Arc<ConnectionState>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    state.request_begun();
    let (parts, mut body) = request.into_parts();
    let outcome = tokio::select! {
        outcome = read(&shared, &state, &parts, &mut body) => outcome,
        // Nothing has been delivered yet, and nothing will be.
        () = shared.stopping.cancelled() => Err(Answer::Stopping),
    };
    let (answer, read) = match outcome {
        Ok(event) => {
            let queue_timeout = shared.limits.queue_timeout();
            (shared.deliveries.deliver(&shared.extensions, event, queue_timeout).await, true)
        }
        Err(answer) => (answer, body.is_end_stream()),
    };
    // The rest of a body would have to be read before the next request.
    state.cut_off.store(!read, Ordering::Relaxed);
    state.expect_request();
    Ok(answer.response(!read || shared.stopping.is_cancelled()))
}

/// Reads a request with all of its body, or says why not.
async fn read(
    shared: &Shared,
    state: &ConnectionState,
    parts: &Parts,
    body: &mut Incoming,
) -> Result<Event, Answer> {
    let extension: Arc<str> = Arc::from(extension(parts.uri.path()).ok_or(Answer::NoSuchPath)?);
    if parts.method != Method::POST {
        return Err(Answer::WrongMethod);
    }
    check(&shared.extensions, &extension)?;
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Answer::UnknownCoding);
    }
    let mut payload = Payload::new(parts).map_err(|_| Answer::Malformed)?;
    let memory = receive(shared, state, &extension, body, &mut payload).await?;
    Ok(Event { extension, payload: payload.finish(), memory })
}

/// The extension that a path is for.
fn extension(path: &str) -> Option<Cow<'_, str>> {
    let name = path.strip_prefix(PREFIX)?;
    (!name.is_empty() && !name.contains('/')).then_some(())?;
    // `percent_encoding` leaves invalid escapes as they are; no extension is reached by one.
    let valid = |escape: &str| escape.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    name.split('%').skip(1).all(valid).then_some(())?;
    percent_decode_str(name).decode_utf8().ok()
}

#[cfg(test)]
mod tests;
