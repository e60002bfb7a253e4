//! From a gRPC status to an [`Error`].

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
    let kind = match (effect(status), status.code()) {
        (Effect::None | Effect::Unavailable, _) => ErrorKind::Unavailable,
        (_, Code::DeadlineExceeded) => ErrorKind::DeadlineExceeded,
        (Effect::Unknown, _) => ErrorKind::Unavailable,
        (Effect::Refused, code) => ErrorKind::from_code(code),
    };
    let message = match not_sent(status) {
        Some(not_sent) => format!("the call to Gofer was not sent: {not_sent}"),
        None => format!("Gofer: {}", status.message()),
    };
    Error::new(kind, message)
}
