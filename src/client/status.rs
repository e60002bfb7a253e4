//! From a gRPC status to an [`Error`].
//!
//! An embedded core says what is wrong with the code of a status. Gofer 0.6.2 often says it in words
//! only, under one of a few codes, and passes on what an extension refused as the text of a Go
//! error. [`meaning`] is the one place that reads those words. It decides what is reported, not
//! whether a call is repeated: that depends on [`effect`] and the code as it was sent.

use std::borrow::Cow;

use gofer_net::{Effect, effect, not_sent};
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// Whether Gofer would refuse the same call again.
pub(crate) fn is_permanent(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// The error for a status that Gofer sent or that the channel made.
pub fn error(status: &Status) -> Error {
    let (code, message) = meaning(status);
    let kind = match (effect(status), code) {
        (Effect::None | Effect::Unavailable, _) => ErrorKind::Unavailable,
        (_, Code::DeadlineExceeded) => ErrorKind::DeadlineExceeded,
        (Effect::Unknown, _) => ErrorKind::Unavailable,
        (Effect::Refused, code) => ErrorKind::from_code(code),
    };
    let message = match not_sent(status) {
        Some(not_sent) => format!("the call to Gofer was not sent: {not_sent}"),
        None => format!("Gofer: {message}"),
    };
    Error::new(kind, message).of_gofer()
}

/// The code that an embedded core would have sent, and the message without what wraps it.
///
/// Never a code that means "try again", unless that was sent.
pub fn meaning(status: &Status) -> (Code, Cow<'_, str>) {
    let sent = (status.code(), Cow::Borrowed(status.message()));
    if std::error::Error::source(status).is_some() {
        // Made on this side.
        return sent;
    }
    let is_vague =
        matches!(status.code(), Code::Unknown | Code::Internal | Code::FailedPrecondition);
    if let Some(wrapped) = Wrapped::new(status.message()) {
        return match wrapped.code.filter(|_| is_vague).and_then(of_an_extension) {
            Some(code) if !wrapped.innermost.is_empty() => (code, Cow::Borrowed(wrapped.innermost)),
            _ => (status.code(), Cow::Owned(wrapped.text())),
        };
    }
    let text = status.message().to_lowercase();
    let code = match status.code() {
        _ if is_vague && is_missing(&text) => Code::NotFound,
        _ if is_vague && is_there(&text) => Code::AlreadyExists,
        Code::PermissionDenied if is_about_the_token(&text) => Code::Unauthenticated,
        code => code,
    };
    (code, sent.1)
}

/// A status as the text of a Go error, perhaps of one in another:
/// `cannot subscribe: rpc error: code = InvalidArgument desc = every: is required`.
struct Wrapped<'a> {
    /// The code of the innermost one, if it is known.
    code: Option<Code>,
    innermost: &'a str,
    message: &'a str,
}

const BEFORE_CODE: &str = "rpc error: code = ";
const BEFORE_TEXT: &str = " desc = ";

impl<'a> Wrapped<'a> {
    fn new(message: &'a str) -> Option<Self> {
        let (_, wrapped) = message.rsplit_once(BEFORE_CODE)?;
        let (code, innermost) = wrapped.split_once(BEFORE_TEXT)?;
        Some(Self { code: code_of(code), innermost: innermost.trim(), message })
    }

    /// All that was said, without the codes.
    fn text(&self) -> String {
        let mut parts = self.message.split(BEFORE_CODE);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            text += part.split_once(BEFORE_TEXT).map_or(part, |(_, text)| text);
        }
        text
    }
}

/// A code by its name in Go.
fn code_of(name: &str) -> Option<Code> {
    Some(match name {
        "Canceled" => Code::Cancelled,
        "Unknown" => Code::Unknown,
        "InvalidArgument" => Code::InvalidArgument,
        "DeadlineExceeded" => Code::DeadlineExceeded,
        "NotFound" => Code::NotFound,
        "AlreadyExists" => Code::AlreadyExists,
        "PermissionDenied" => Code::PermissionDenied,
        "ResourceExhausted" => Code::ResourceExhausted,
        "FailedPrecondition" => Code::FailedPrecondition,
        "Aborted" => Code::Aborted,
        "OutOfRange" => Code::OutOfRange,
        "Unimplemented" => Code::Unimplemented,
        "Internal" => Code::Internal,
        "Unavailable" => Code::Unavailable,
        "DataLoss" => Code::DataLoss,
        "Unauthenticated" => Code::Unauthenticated,
        _ => return None,
    })
}

/// The code of an extension's refusal, if it means the same to who called Gofer. That Gofer could
/// not reach the extension, or has the wrong key for it, does not.
fn of_an_extension(code: Code) -> Option<Code> {
    let is_between_them = matches!(
        code,
        Code::Ok
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unauthenticated
    );
    (!is_between_them).then_some(code)
}

/// What Gofer keeps, in its words. Its messages are about other things too, such as images.
const THINGS: [&str; 19] = [
    "config",
    "configuration",
    "deployment",
    "entity",
    "event",
    "extension",
    "id",
    "key",
    "namespace",
    "object",
    "pipeline",
    "record",
    "run",
    "secret",
    "subscription",
    "task",
    "taskrun",
    "token",
    "version",
];

/// Whether the text, in lower case, says that something in Gofer does not exist.
fn is_missing(text: &str) -> bool {
    clauses(text).any(|clause| {
        let ends = ["not found", "does not exist", "could not be found", "cannot be found"];
        let begins =
            ["could not find ", "cannot find ", "unable to find ", "failed to find ", "no such "];
        let is_named =
            begins.iter().any(|it| clause.strip_prefix(it).is_some_and(is_about_a_thing));
        is_named || ends.iter().any(|it| clause.ends_with(it)) && is_about_a_thing(clause)
    }) || text.ends_with("no rows in result set")
}

/// Whether the text, in lower case, says that something in Gofer exists already.
fn is_there(text: &str) -> bool {
    clauses(text).any(|clause| {
        let ends = ["already exists", "exists already", "already registered", "already installed"];
        clause.starts_with("unique constraint failed")
            || ends.iter().any(|it| clause.ends_with(it)) && is_about_a_thing(clause)
    })
}

/// The parts of a message, in which Go programs put the general before the particular.
fn clauses(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', ',', ':']).flat_map(|it| it.split(". ")).map(|it| {
        it.trim_matches(|character: char| character.is_whitespace() || ".!()".contains(character))
    })
}

/// Whether the first word, but for articles and the like, is something that Gofer keeps.
fn is_about_a_thing(clause: &str) -> bool {
    let is_article = |word: &&str| {
        matches!(*word, "the" | "a" | "an" | "any" | "this" | "that" | "requested" | "specified")
    };
    let first = clause.split_whitespace().find(|word| !is_article(word));
    first.is_some_and(|word| THINGS.contains(&word.trim_end_matches('s')))
}

/// Whether the text, in lower case, says that there is no valid token, rather than that a token has
/// no access.
fn is_about_the_token(text: &str) -> bool {
    let mut words = text.split(|character: char| !character.is_alphanumeric());
    let is_one_of = |list: &[&str]| words.clone().any(|word| list.contains(&word));
    let names_it = is_one_of(&["token", "authorization", "authentication", "credentials"]);
    let is_invalid = is_one_of(&[
        "disabled",
        "expired",
        "found",
        "invalid",
        "malformed",
        "missing",
        "no",
        "required",
        "unknown",
    ]);
    let is_about_access =
        words.any(|word| matches!(word, "access" | "management" | "namespace" | "permission"));
    names_it && is_invalid && !is_about_access
}

#[cfg(test)]
mod tests;
