//! From a gRPC status to an [`Error`], and whether the call may be repeated.

use tonic::{Code, Status};

use super::channel::NotSent;
use crate::extension::{Error, ErrorKind};

/// What is known about a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It certainly had none: it was not sent. Calling again is safe, and may
    /// help.
    None,
    /// The other side said that it is not available. Gofer says so before it
    /// does anything; a proxy also where it lost Gofer in mid-call.
    Unavailable,
    /// Gofer answered with a refusal. Calling again would not help.
    Refused,
    /// The answer got lost: it may have had its effect.
    Unknown,
}

impl Effect {
    /// Whether a call that asks for something once may simply be made again.
    pub(crate) fn may_repeat(self) -> bool {
        matches!(self, Self::None | Self::Unavailable)
    }
}

pub(crate) fn effect(status: &Status) -> Effect {
    if not_sent(status).is_some() {
        return Effect::None;
    }
    // A status with a source was made on this side, out of a broken transport.
    let broken = sources(status).next().is_some();
    match status.code() {
        Code::DeadlineExceeded => Effect::Unknown,
        Code::Unavailable if !broken => Effect::Unavailable,
        _ if broken => Effect::Unknown,
        _ => Effect::Refused,
    }
}

fn not_sent(status: &Status) -> Option<&NotSent> {
    sources(status).find_map(|source| source.downcast_ref())
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

pub(crate) fn error(status: &Status) -> Error {
    let kind = match (effect(status), status.code()) {
        (Effect::None | Effect::Unavailable, _) => ErrorKind::Unavailable,
        (_, Code::DeadlineExceeded) => ErrorKind::DeadlineExceeded,
        (Effect::Unknown, _) => ErrorKind::Unavailable,
        (_, Code::InvalidArgument | Code::OutOfRange) => ErrorKind::InvalidParameter,
        (_, Code::NotFound) => ErrorKind::NotFound,
        (_, Code::AlreadyExists) => ErrorKind::AlreadyExists,
        (_, Code::FailedPrecondition | Code::Aborted) => ErrorKind::FailedPrecondition,
        (_, Code::PermissionDenied) => ErrorKind::PermissionDenied,
        (_, Code::Unauthenticated) => ErrorKind::Unauthenticated,
        (_, Code::ResourceExhausted) => ErrorKind::ResourceExhausted,
        (_, Code::Unimplemented) => ErrorKind::Unimplemented,
        (_, Code::Cancelled) => ErrorKind::Cancelled,
        _ => ErrorKind::Internal,
    };
    let message = match not_sent(status) {
        Some(not_sent) => format!("Gofer cannot be reached: {not_sent}"),
        None => format!("Gofer: {}", status.message()),
    };
    Error::new(kind, message)
}
