//! Why an extension could not run, and what callers see of an error.

use std::{fmt, io};

use gofer_net::Throttle;
use tonic::{Code, Status};

use super::system_config::SystemConfigError;
use crate::error::{Error, ErrorKind};

/// Why an extension could not run.
///
/// `Debug` prints the same as `Display`, because `main` prints its error with `Debug`.
#[non_exhaustive]
pub enum RunError {
    /// Environment variables that Gofer sets for an extension are missing or invalid.
    Environment(SystemConfigError),
    /// A setting is [`Declared`](crate::Declared) with a type that cannot be set from text.
    Declaration(String),
    /// The server cannot listen on its address.
    Listen {
        /// The address, as configured.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The signal handlers of the process cannot be installed.
    Signals(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(error) => error.fmt(f),
            Self::Declaration(why) => f.write_str(why),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Signals(source) => write!(f, "cannot install signal handlers: {source}"),
        }
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Environment(error) => Some(error),
            Self::Declaration(_) => None,
            Self::Listen { source, .. } | Self::Signals(source) => Some(source),
        }
    }
}

impl From<SystemConfigError> for RunError {
    fn from(error: SystemConfigError) -> Self {
        Self::Environment(error)
    }
}

/// What a caller of `method` may see. A failure of the extension itself is logged in full and
/// reported to the caller as a generic sentence.
pub(super) fn to_status(method: &'static str, error: &Error, failures: &Throttle) -> Status {
    let code = match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidConfiguration => Code::InvalidArgument,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Internal => {
            // Webhooks come from outside.
            if let Some(failures) = failures.record() {
                tracing::error!(method, ?error, failures, "a call failed");
            }
            return Status::internal("the extension failed; see its log");
        }
    };
    Status::new(code, error.to_string())
}
