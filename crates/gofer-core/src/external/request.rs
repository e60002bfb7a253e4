//! One request: where it goes, whether it may, and what its sender is told.

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

use super::Shared;
use super::answer::Answer;
use super::body::receive;
use super::guests::Guest;
use super::handover::{Event, check};
use super::payload::Payload;

const PREFIX: &str = "/external/";

pub(super) async fn answer(
    shared: Arc<Shared>,
    guest: Arc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    guest.begins();
    let (parts, mut body) = request.into_parts();
    let outcome = tokio::select! {
        outcome = take(&shared, &guest, &parts, &mut body) => outcome,
        // Nothing has happened yet, and nothing will.
        () = shared.stopping.cancelled() => Err(Answer::Stopping),
    };
    let (answer, read) = match outcome {
        Ok(event) => {
            let patience = shared.limits.patience();
            (shared.handover.hand_on(&shared.extensions, event, patience).await, true)
        }
        Err(answer) => (answer, body.is_end_stream()),
    };
    // What is left of a body would have to be read before the next request.
    guest.cut_off.store(!read, Ordering::Relaxed);
    guest.between_requests();
    Ok(answer.response(!read || shared.stopping.is_cancelled()))
}

/// Takes a request in, with all of its body, or says why not.
async fn take(
    shared: &Shared,
    guest: &Guest,
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
    let memory = receive(shared, guest, &extension, body, &mut payload).await?;
    Ok(Event { extension, payload: payload.finish(), memory })
}

/// Whom a path is for.
fn extension(path: &str) -> Option<Cow<'_, str>> {
    let name = path.strip_prefix(PREFIX)?;
    (!name.is_empty() && !name.contains('/')).then_some(())?;
    percent_decoded(name)
}

/// The text that is meant; `None` where it is none.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push(match byte {
            b'%' => u8::try_from(16 * digit(bytes.next()?)? + digit(bytes.next()?)?).ok()?,
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn the_name_is_the_rest_of_the_path() {
        for (path, name) in [
            ("/external/github", Some("github")),
            ("/external/my%20own%25%C3%BC", Some("my own%ü")),
            ("/external/", None),
            ("/external", None),
            ("/external/github/", None),
            ("/external/github/push", None),
            ("/External/github", None),
            ("/external/%", None),
            ("/external/%2", None),
            ("/external/%zz", None),
            ("/external/%ff", None),
            ("/", None),
        ] {
            assert_eq!(extension(path).as_deref(), name, "{path}");
        }
    }
}
