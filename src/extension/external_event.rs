//! An HTTP request from outside Gofer.
//!
//! Gofer passes such a request on as the bytes of an HTTP/1.1 message, written by Go's
//! `httputil.DumpRequest`. [`ExternalEvent`] reads everything that this function writes: the
//! request line of an HTTP/2 request says `HTTP/2.0`, a length may be missing, and the body of a
//! chunked request is still in chunks. Anything may come from outside, so parsing never panics,
//! takes time linear in the payload, and refuses contradictions instead of guessing which part is
//! the body.
//!
//! Checking the sender is up to the extension's author, who knows what it sends: a signature
//! (`signature`), a token ([`Secret::matches`](super::Secret::matches)) or something else.

use std::fmt;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use serde::de::DeserializeOwned;

use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

mod chunked;
mod json;
mod signature;
#[cfg(test)]
mod tests;

/// More headers than real requests have, and few enough for a table on the stack (8 KiB).
const MAX_HEADERS: usize = 256;

/// An HTTP request from outside, passed on by Gofer.
///
/// Gofer's listener for external events takes `POST /external/<extension>` and responds with 200 if
/// the extension accepted the event and 500 if not; an embedded core uses more specific codes.
/// Gofer does not authenticate the sender: check a [signature](Self::verify_hmac_sha256) or a
/// [token](Secret::matches) before you act on an event.
///
/// A clone shares the payload. `Debug` shows neither headers nor body, which may hold secrets; for
/// the same reason each value in [`headers`](Self::headers) is marked
/// [sensitive](HeaderValue::is_sensitive).
///
/// ```
/// use gofer_sdk::ExternalEvent;
///
/// let event = ExternalEvent::new(
///     "POST /external/github?team=web HTTP/1.1\r\n\
///      Host: gofer.example.com\r\n\
///      X-GitHub-Event: push\r\n\
///      Content-Length: 16\r\n\
///      \r\n\
///      {\"ref\":\"v1.2.0\"}",
/// )?;
/// assert_eq!(event.method(), "POST");
/// assert_eq!(event.path(), "/external/github");
/// assert_eq!(event.query(), Some("team=web"));
/// assert_eq!(event.header("x-github-event"), Some("push"));
/// assert_eq!(event.body(), "{\"ref\":\"v1.2.0\"}");
/// # Ok::<(), gofer_sdk::Error>(())
/// ```
#[derive(Clone)]
pub struct ExternalEvent {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Bytes,
    payload: Bytes,
}

impl ExternalEvent {
    /// Parses a request from the bytes that Gofer passes on, or that a test makes up. Without
    /// `Content-Length` and `Transfer-Encoding` the body is all that follows the headers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidParameter`], with a description, if it is not an HTTP request whose
    /// target is a path, has more than 256 headers, or its body is not as long as the headers say.
    pub fn new(payload: impl Into<Bytes>) -> Result<Self> {
        let payload = payload.into();
        let (line, rest) = split_line(&payload)?;
        let (method, path, query) = request_line(line)?;
        let (headers, rest) = header_lines(rest)?;
        let body = match framing(&headers)? {
            Framing::Chunked => Bytes::from(chunked::decode(rest)?),
            Framing::Length(length) => {
                check_length(rest.len(), length)?;
                payload.slice_ref(rest)
            }
            Framing::Rest => payload.slice_ref(rest),
        };
        Ok(Self { method, path, query, headers, body, payload })
    }

    /// The request's method, usually `POST`.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as it was sent, still percent-encoded and without the query; begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the path's `?`, as it was sent; `None` without a `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// All headers. Those of one name keep their order.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first value of a header, whose name is matched without regard to case; `None` if it is
    /// missing or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body: a slice of the [`payload`](Self::payload) or, for a chunked request, its joined
    /// chunks.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The whole request as Gofer passed it on.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Checks that a header is the signature of the [`body`](Self::body), made with a secret that
    /// the sender has too: its HMAC-SHA256 in hexadecimal digits, alone or after `sha256=`.
    ///
    /// That is how GitHub (`X-Hub-Signature-256`), Gitea (`X-Gitea-Signature`) and many others sign.
    /// It takes a time that tells nothing about the right signature. An empty secret verifies
    /// nothing. A signature does not expire: what is sent a second time is verified a second time,
    /// so give a run the delivery's ID as its [key](crate::Run::key).
    ///
    /// ```
    /// use gofer_sdk::{ErrorKind, ExternalEvent, Secret};
    ///
    /// let secret = Secret::from("It's a Secret to Everybody");
    /// let head = "POST /external/github HTTP/1.1\r\n\
    ///     X-Hub-Signature-256: \
    ///     sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n";
    ///
    /// let event = ExternalEvent::new(format!("{head}\r\nHello, World!"))?;
    /// event.verify_hmac_sha256("X-Hub-Signature-256", &secret)?;
    ///
    /// let forged = ExternalEvent::new(format!("{head}\r\nHello, world!"))?;
    /// let error = forged.verify_hmac_sha256("X-Hub-Signature-256", &secret).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    /// // What the sender may learn, and what is logged beside it.
    /// assert_eq!(error.to_string(), "the signature is missing or wrong");
    /// assert!(error.source().unwrap().to_string().contains("does not match the body"));
    /// # Ok::<(), gofer_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), always with the same sentence. Its
    /// [source](Error::source), which is only logged, says whether the header is missing, is given
    /// several times, is no signature, or does not match.
    pub fn verify_hmac_sha256(&self, header: &str, secret: &Secret) -> Result<()> {
        signature::verify(&self.headers, header, secret, &self.body).map_err(|why| {
            let refusal = "the signature is missing or wrong";
            Error::new(ErrorKind::PermissionDenied, refusal).with_source(why)
        })
    }

    /// Reads the [`body`](Self::body) as JSON, whatever its `Content-Type`, with or without a byte
    /// order mark.
    ///
    /// ```
    /// use gofer_sdk::ExternalEvent;
    ///
    /// #[derive(Debug, serde::Deserialize)]
    /// struct Push {
    ///     #[serde(rename = "ref")]
    ///     branch: String,
    ///     forced: bool,
    /// }
    ///
    /// let head = "POST /external/github HTTP/1.1\r\n\r\n";
    /// let event = ExternalEvent::new(format!(r#"{head}{{"ref":"main","forced":true}}"#))?;
    /// let push: Push = event.json()?;
    /// assert!(push.branch == "main" && push.forced);
    ///
    /// let event = ExternalEvent::new(format!(r#"{head}{{"ref":"main"}}"#))?;
    /// let error = event.json::<Push>().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the JSON in the body is not as expected: `forced` is missing at line 1 column 14",
    /// );
    /// # Ok::<(), gofer_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](ErrorKind::InvalidParameter) if the body is not JSON, is nested more
    /// than 127 levels deep, or is not a `T`. The message says what kind of mistake it is, and where,
    /// and repeats no part of the body. For the same reason it has no [source](Error::source), and
    /// what a type of your own says is left out.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        json::parse(&self.body).map_err(|why| Error::new(ErrorKind::InvalidParameter, why))
    }
}

/// Method, path and length of the body: headers, query and body may hold secrets.
impl fmt::Debug for ExternalEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalEvent")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("body_length", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Where the body ends.
enum Framing {
    Chunked,
    Length(usize),
    Rest,
}

const NO_REQUEST_LINE: &str = "the payload is not an HTTP request: its first line must be a \
     method, a path and a version, such as `POST /path HTTP/1.1`";
const MALFORMED_HEADER: &str =
    "the HTTP request has a malformed header: each must be a line such as `Name: value`";

fn refuse(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

/// The first line without its end, and what follows it.
fn split_line(text: &[u8]) -> Result<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(|| refuse(NO_REQUEST_LINE))?;
    // A bare LF is tolerated, as it is in the header lines.
    let line = &text[..end];
    Ok((line.strip_suffix(b"\r").unwrap_or(line), &text[end + 1..]))
}

/// Method, path and query. Not parsed by `httparse`, which refuses `HTTP/2.0`.
fn request_line(line: &[u8]) -> Result<(Method, String, Option<String>)> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(refuse(NO_REQUEST_LINE));
    };
    let Ok(method) = Method::from_bytes(method) else { return Err(refuse(NO_REQUEST_LINE)) };
    let [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] = version else {
        return Err(refuse(NO_REQUEST_LINE));
    };
    let target = std::str::from_utf8(target).ok().filter(|text| !text.contains(char::is_control));
    let Some(target) = target.and_then(strip_authority) else {
        return Err(refuse(
            "the HTTP request's target must be a path such as `/external/name`, \
             percent-encoded where needed",
        ));
    };
    Ok(match target.split_once('?') {
        Some((path, query)) => (method, or_root(path), Some(query.to_owned())),
        None => (method, or_root(target), None),
    })
}

/// The path and query of a target, which clients of a proxy send with scheme and host.
fn strip_authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    (known && authority > 0).then(|| &rest[authority..])
}

/// The path of `http://host` is that of `http://host/`.
fn or_root(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { path.to_owned() }
}

/// The headers, up to the empty line, and what follows it.
fn header_lines(text: &[u8]) -> Result<(HeaderMap, &[u8])> {
    let mut table = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let (length, lines) = match httparse::parse_headers(text, &mut table) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => {
            return Err(refuse(
                "the HTTP request is cut off in its headers: an empty line must end them",
            ));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refuse("the HTTP request has too many headers: at most 256 are read"));
        }
        Err(_) => return Err(refuse(MALFORMED_HEADER)),
    };
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(line.name.as_bytes()), HeaderValue::from_bytes(line.value))
        else {
            return Err(refuse(MALFORMED_HEADER));
        };
        // Hidden when the map is printed.
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok((headers, &text[length..]))
}

/// How the headers delimit the body. Contradictions are refused: two programs that read them
/// differently allow request smuggling.
fn framing(headers: &HeaderMap) -> Result<Framing> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(refuse("the HTTP request's only `Transfer-Encoding` must be `chunked`"));
        }
        if length.is_some() {
            return Err(refuse(
                "the HTTP request must have either `Content-Length` or `Transfer-Encoding`, \
                 not both",
            ));
        }
        return Ok(Framing::Chunked);
    }
    let Some(length) = length else { return Ok(Framing::Rest) };
    if lengths.any(|other| other != length) {
        return Err(refuse("the HTTP request must not have several different `Content-Length`s"));
    }
    // Digits only: `parse` by itself would take a sign.
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) => Ok(Framing::Length(length)),
        None => Err(refuse("the HTTP request's `Content-Length` must be a number of bytes")),
    }
}

fn check_length(actual: usize, expected: usize) -> Result<()> {
    match actual.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(refuse(
            "the HTTP request is cut off in its body, which is shorter than `Content-Length`",
        )),
        std::cmp::Ordering::Greater => {
            Err(refuse("the HTTP request's body must not be longer than `Content-Length`"))
        }
    }
}
