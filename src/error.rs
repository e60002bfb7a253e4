//! The one error type of the author's side.
//!
//! An [`Error`] says what kind of thing went wrong, so that the server can
//! choose what the caller on the other side of the wire may see: a mistake of
//! the caller is told in full, a failure of the extension itself is told as a
//! generic sentence and logged in full. Authors never handle gRPC codes; the
//! mapping lives in `server::service` on the way out and in `client::status`
//! on the way in.

use std::borrow::Cow;
use std::fmt;

/// What the author's methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; decides what the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A pipeline's parameter is missing, unknown or not acceptable. The
    /// caller is told which one and why (`INVALID_ARGUMENT`).
    InvalidParameter,
    /// The administrator's configuration is missing something or not
    /// acceptable. The caller is told what and why (`INVALID_ARGUMENT`).
    InvalidConfiguration,
    /// Something that is needed is not there now and may be later. The caller
    /// is told why and may try again (`UNAVAILABLE`).
    Unavailable,
    /// Anything else. The caller gets a generic sentence (`INTERNAL`), the log
    /// gets all of it.
    Internal,
    /// The thing asked for is not there. The caller is told so, as with all
    /// kinds that follow.
    NotFound,
    /// There already is a thing of that name.
    AlreadyExists,
    /// Refused for the state that something is in: the pipeline is disabled, say.
    FailedPrecondition,
    /// The token has no access, to the namespace for example. Also what an
    /// extension answers to an external event that is not signed as it should be.
    PermissionDenied,
    /// The token is not accepted at all.
    Unauthenticated,
    /// The call was not answered in time; whether it took effect is not known.
    DeadlineExceeded,
    /// Gofer refuses because something is full.
    ResourceExhausted,
    /// This Gofer does not have the method.
    Unimplemented,
    /// The other side went away, or the subscription ended.
    Cancelled,
}

/// One thing that is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The setting's name; `None` where the settings as a whole are wrong.
    pub(crate) key: Option<String>,
    /// What is wrong with it and what would be right. Never holds a value.
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: Some(key.into()), message: message.into() }
    }

    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self { key: None, message: message.into() }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    problems: Vec<Problem>,
    source: Option<Source>,
}

/// An error with a kind, a sentence for the one who must act, and a cause.
///
/// Any [`std::error::Error`] converts into one of kind
/// [`Internal`](ErrorKind::Internal), so `?` works on everything. For the same
/// reason `Error` does not implement [`std::error::Error`] itself.
///
/// ```
/// use gofer_sdk::{Error, ErrorKind};
///
/// fn port(text: &str) -> gofer_sdk::Result<u16> {
///     Ok(text.parse()?) // any error converts
/// }
/// assert_eq!(port("http").unwrap_err().kind(), ErrorKind::Internal);
///
/// let error = Error::invalid_parameter("every", "must be at least 1m")
///     .and_parameter("jitter", "must not be longer than `every`");
/// assert_eq!(error.kind(), ErrorKind::InvalidParameter);
/// assert_eq!(
///     error.to_string(),
///     "parameter `every`: must be at least 1m; \
///      parameter `jitter`: must not be longer than `every`",
/// );
/// ```
pub struct Error(Box<Repr>);

impl Error {
    /// An error of the given kind with a sentence for the one who must act.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Repr { kind, message: message.into(), problems: Vec::new(), source: None }))
    }

    /// A parameter of the subscription is not acceptable.
    ///
    /// `message` completes "parameter `key`: …"; say what would be right, and
    /// do not repeat the value, which may be a secret.
    pub fn invalid_parameter(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(ErrorKind::InvalidParameter, vec![Problem::new(key, message)])
    }

    /// A setting of the extension's configuration is not acceptable.
    ///
    /// `message` completes "configuration `key`: …"; say what would be right,
    /// and do not repeat the value, which may be a secret.
    pub fn invalid_configuration(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(ErrorKind::InvalidConfiguration, vec![Problem::new(key, message)])
    }

    /// Something that is needed is not there now; trying again may help.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The extension itself failed. The caller sees a generic sentence only.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Reports one more setting in the same error, so that all are told at once.
    #[must_use]
    pub fn and_parameter(mut self, key: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.problems.push(Problem::new(key, message));
        self
    }

    /// Adds the cause, which is logged and never sent to a caller.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The cause, where there is one.
    #[must_use]
    pub fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }

    pub(crate) fn invalid(kind: ErrorKind, problems: Vec<Problem>) -> Self {
        Self(Box::new(Repr { kind, message: Cow::Borrowed(""), problems, source: None }))
    }

    pub(crate) fn problems(&self) -> &[Problem] {
        &self.0.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let noun = match self.0.kind {
            ErrorKind::InvalidConfiguration => "configuration",
            _ => "parameter",
        };
        for (n, problem) in self.0.problems.iter().enumerate() {
            if n > 0 || !self.0.message.is_empty() {
                f.write_str("; ")?;
            }
            match &problem.key {
                Some(key) => write!(f, "{noun} `{key}`: {}", problem.message)?,
                None => f.write_str(&problem.message)?,
            }
        }
        Ok(())
    }
}

/// The kind, the sentence and every cause, for logs and for `unwrap`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        // A converted error repeats its own sentence as the first cause.
        let mut last = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if text != last {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E> From<E> for Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    fn from(error: E) -> Self {
        Self::new(ErrorKind::Internal, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot read the port")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_converted_error_keeps_its_causes_for_the_log() {
        let error = Error::from(Outer("x".parse::<u16>().unwrap_err()));
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.to_string(), "cannot read the port");
        assert!(format!("{error:?}").contains("invalid digit"), "{error:?}");
    }

    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
