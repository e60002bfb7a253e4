//! Why an extension could not run.

use std::{fmt, io};

use super::system_config::SystemConfigError;

/// Why an extension could not run.
///
/// `Debug` prints the same as `Display`, because `main` prints its error with `Debug`.
#[non_exhaustive]
pub enum RunError {
    /// The environment is not that of an extension started by Gofer.
    Environment(SystemConfigError),
    /// A setting is declared with a type that no text can set; see [`Declared`](crate::Declared).
    Declaration(String),
    /// The server cannot listen on its address.
    Listen {
        /// The address, as configured.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The signals of the process cannot be watched.
    Signals(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(error) => error.fmt(f),
            Self::Declaration(why) => f.write_str(why),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Signals(source) => write!(f, "cannot watch for signals: {source}"),
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
