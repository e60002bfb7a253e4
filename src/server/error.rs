//! Why an extension could not run.

use std::{fmt, io};

use super::system_config::SystemConfigError;

/// Why an extension could not run.
///
/// Its `Debug` is its `Display`, since that is what `main` prints.
#[non_exhaustive]
pub enum RunError {
    /// The environment is not one that Gofer starts an extension with.
    Environment(SystemConfigError),
    /// A setting is declared with a type that nobody could set; see
    /// [`Declared`](crate::Declared).
    Declaration(String),
    /// The address cannot be listened on.
    Listen {
        /// The address, as configured.
        address: String,
        /// What the system said.
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
