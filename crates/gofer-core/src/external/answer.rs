//! Answers to senders: a status and a short sentence, which contain nothing of what was sent or of
//! internal errors.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tonic::{Code, Status};

use gofer_net::{Effect, effect};

/// How long senders should wait if an extension is not ready: starting one takes seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The largest message that gRPC implementations accept by default.
const COMMON_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    /// Its request line or headers are not what the extension's side can parse, or its body is
    /// broken.
    Malformed,
    UnknownCoding,
    NoSuchPath,
    WrongMethod,
    UnknownExtension,
    NotReady,
    Busy,
    Stopping,
    TooLarge,
    TooLargeForExtension,
    TooSlow,
    /// The extension does not believe the sender.
    NotAuthentic,
    /// The extension cannot use what was sent.
    Refused,
    NotFound,
    Unhandled,
    Failed,
    Unanswered,
}

impl Answer {
    /// The answer for the status that an extension returned. `bytes` is the length of what was sent
    /// to it.
    pub(super) fn of(status: &Status, bytes: usize) -> Self {
        match status.code() {
            // It was not sent, because the extension cannot be reached.
            _ if effect(status) == Effect::None => Self::NotReady,
            // Returned by the extension: retrying may help.
            Code::Unavailable => Self::NotReady,
            // Not 503, which invites a retry, and not 500: it may have been handled, or still be.
            Code::DeadlineExceeded => Self::Unanswered,
            // For a message that is too large, tonic returns the former and Go's implementation the
            // latter, which has other meanings as well.
            Code::OutOfRange => Self::TooLargeForExtension,
            Code::ResourceExhausted if bytes > COMMON_MESSAGE_BYTES => Self::TooLargeForExtension,
            // By the extension's author. That it does not accept the core's own token has another code.
            Code::PermissionDenied => Self::NotAuthentic,
            Code::InvalidArgument => Self::Refused,
            Code::NotFound => Self::NotFound,
            Code::Unimplemented => Self::Unhandled,
            _ => Self::Failed,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Accepted => StatusCode::OK,
            Self::Malformed | Self::Refused => StatusCode::BAD_REQUEST,
            Self::NotAuthentic => StatusCode::UNAUTHORIZED,
            Self::UnknownCoding | Self::Unhandled => StatusCode::NOT_IMPLEMENTED,
            Self::NoSuchPath | Self::UnknownExtension | Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotReady | Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge | Self::TooLargeForExtension => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unanswered => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Accepted => "The event was accepted.\n",
            Self::Malformed => "The request is malformed.\n",
            Self::UnknownCoding => "The only supported transfer coding is chunked.\n",
            Self::NoSuchPath => "Unknown path; send events to /external/<extension>.\n",
            Self::WrongMethod => "Only POST is allowed.\n",
            Self::UnknownExtension => "No extension of this name is installed.\n",
            Self::NotReady => "The extension takes no events at the moment; try again later.\n",
            Self::Busy => "Too many events are in progress; try again later.\n",
            Self::Stopping => "Gofer is stopping; try again later.\n",
            Self::TooLarge => "The body is too large.\n",
            Self::TooLargeForExtension => "The event is too large for the extension.\n",
            Self::TooSlow => "The request did not arrive in time.\n",
            Self::NotAuthentic => "The extension could not verify the sender.\n",
            Self::Refused => "The extension refused the event.\n",
            Self::NotFound => "The extension does not know what the event is about.\n",
            Self::Unhandled => "The extension does not accept external events.\n",
            Self::Failed => "The extension failed to handle the event.\n",
            Self::Unanswered => "The extension did not answer in time.\n",
        }
    }

    /// As a response; `last` if it is the last of its connection.
    pub(super) fn response(self, last: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.text().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::WrongMethod => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
            Self::NotReady | Self::Busy | Self::Stopping => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            _ => {}
        }
        if last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// As the bytes of a response, for a request that hyper has given up.
    pub(super) fn raw_response(self) -> String {
        let (status, text) = (self.status(), self.text());
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )
    }
}

#[cfg(test)]
mod tests;
