//! How conversations end.

use tonic::{Code, Status};

use gofer_sdk::internal::meaning;

/// What a full Gofer says last of a conversation, in lower case.
const ENDS: [&str; 3] = ["eof", "context canceled", "client disconnected"];

/// Whether a status is how a full Gofer ends a conversation that is over: its own end of the stream,
/// or of the extension's, as an error. Not if the connection to the extension broke.
pub(super) fn is_normal(status: &Status) -> bool {
    let is_sent = std::error::Error::source(status).is_none();
    let has_code = matches!(status.code(), Code::Internal | Code::Unknown | Code::Cancelled);
    let is_broken = status.message().contains("code = Unavailable");
    let (_, text) = meaning(status);
    let text = text.to_lowercase();
    let last = text.rsplit([';', ':', '\n']).next().unwrap_or_default();
    let last = last.trim_matches(|it: char| it.is_whitespace() || matches!(it, '.' | '"'));
    is_sent && has_code && !is_broken && ENDS.contains(&last) && !text.contains("reading from")
}

#[cfg(test)]
mod tests;
