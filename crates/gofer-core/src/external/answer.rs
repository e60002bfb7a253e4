//! What senders are told: a status and a short sentence, never a word of what
//! they sent or of what went wrong inside.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tonic::{Code, Status};

use gofer_net::{Effect, effect};

/// How long senders should wait where an extension is not ready: a start takes
/// seconds.
const AGAIN_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The largest message that gRPC implementations take by default.
const COMMON_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// Cannot be an event: its line or headers are not what the extension's side
    /// can read, or its body is broken.
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
    Failed,
    Unanswered,
}

impl Answer {
    /// What an extension's refusal means to the sender. `bytes` is the length of
    /// what the extension was sent.
    pub(super) fn of(status: &Status, bytes: usize) -> Self {
        match status.code() {
            // It was not sent: nobody is there.
            _ if effect(status) == Effect::None => Self::NotReady,
            // It says itself that trying again may help.
            Code::Unavailable => Self::NotReady,
            // Not 503, which invites to send it again, and not 500: it may have
            // been handled, or still be.
            Code::DeadlineExceeded => Self::Unanswered,
            // What gRPC implementations say of a message that is too large:
            // tonic the one, and Go's the other, which means many things more.
            Code::OutOfRange => Self::TooLargeForExtension,
            Code::ResourceExhausted if bytes > COMMON_MESSAGE_BYTES => Self::TooLargeForExtension,
            _ => Self::Failed,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Taken => StatusCode::OK,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::NoSuchPath | Self::UnknownExtension => StatusCode::NOT_FOUND,
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
            Self::Taken => "The event was taken.\n",
            Self::Malformed => "The request is malformed.\n",
            Self::UnknownCoding => "The only transfer coding that is understood is chunked.\n",
            Self::NoSuchPath => "There is nothing here; events go to /external/<extension>.\n",
            Self::WrongMethod => "Events are sent with POST.\n",
            Self::UnknownExtension => "No extension of this name is installed.\n",
            Self::NotReady => "The extension is not ready; try again later.\n",
            Self::Busy => "Too many events are under way; try again later.\n",
            Self::Stopping => "Gofer is stopping; try again later.\n",
            Self::TooLarge => "The body is larger than events may be here.\n",
            Self::TooLargeForExtension => "The event is larger than the extension takes.\n",
            Self::TooSlow => "The request did not arrive in time.\n",
            Self::Failed => "The extension did not take the event.\n",
            Self::Unanswered => "The extension did not answer in time.\n",
        }
    }

    /// As a response, which says whether it is the last of its connection.
    pub(super) fn response(self, last: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.text().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::WrongMethod => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
            Self::NotReady | Self::Busy | Self::Stopping => {
                headers.insert(RETRY_AFTER, AGAIN_AFTER_SECONDS);
            }
            _ => {}
        }
        if last {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// As bytes, for a request that hyper gave up on.
    pub(super) fn last_words(self) -> String {
        let (status, text) = (self.status(), self.text());
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extensions_answer_has_its_counterpart() {
        let of = |code, bytes| Answer::of(&Status::new(code, "hunter2"), bytes).status().as_u16();
        assert_eq!(of(Code::Unavailable, 1), 503);
        assert_eq!(of(Code::DeadlineExceeded, 1), 504);
        assert_eq!(of(Code::OutOfRange, 1), 413);
        assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES + 1), 413);
        assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES), 500);
        for code in [Code::NotFound, Code::InvalidArgument, Code::Unimplemented, Code::Internal] {
            assert_eq!(of(code, 1), 500, "{code:?}");
        }
    }
}
