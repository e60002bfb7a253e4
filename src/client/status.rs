//! From a gRPC status to an [`Error`].

use gofer_net::{Effect, effect, not_sent};
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// The error that a status is to an author.
pub fn error(status: &Status) -> Error {
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
