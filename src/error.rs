//! The one error type that authors use.
//!
//! An [`Error`] has a kind, which decides what the caller on the other side of the wire may see: a
//! mistake of the caller is described in full; a failure of the extension itself is reported as a
//! generic sentence and logged in full. Authors never handle gRPC codes; `server::service` maps
//! kinds to codes on the way out, and `client::status` maps codes to kinds on the way in.

use std::borrow::Cow;
use std::fmt;

use tonic::Code;

/// What the author's methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; decides what the caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is missing, unknown or not acceptable: usually a pipeline's parameter. The
    /// caller sees which one and why (`INVALID_ARGUMENT`).
    InvalidParameter,
    /// The administrator's configuration is missing something or not acceptable. The caller sees
    /// what and why (`INVALID_ARGUMENT`).
    InvalidConfiguration,
    /// Something that is needed is not available now but may be later. The caller sees why and may
    /// try again (`UNAVAILABLE`).
    Unavailable,
    /// Anything else. The caller gets a generic sentence (`INTERNAL`); the log gets all of it.
    Internal,
    /// The thing asked for does not exist. The caller sees the message, as with all kinds that
    /// follow.
    NotFound,
    /// Something of that name already exists.
    AlreadyExists,
    /// Refused because of the state that something is in: the pipeline is disabled, for example.
    FailedPrecondition,
    /// The token has no access, to the namespace for example. Also what an extension returns for an
    /// external event whose signature is wrong.
    PermissionDenied,
    /// The token is not accepted at all.
    Unauthenticated,
    /// No response arrived in time; the call may or may not have taken effect.
    DeadlineExceeded,
    /// A limit was reached, in Gofer or in the extension.
    ResourceExhausted,
    /// The method is not implemented, by this Gofer or by the extension.
    Unimplemented,
    /// The caller went away, or the subscription ended.
    Cancelled,
}

impl ErrorKind {
    pub(crate) fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidParameter,
            Code::Unavailable => Self::Unavailable,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::FailedPrecondition | Code::Aborted => Self::FailedPrecondition,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unimplemented => Self::Unimplemented,
            Code::Cancelled => Self::Cancelled,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Self::Internal,
        }
    }
}

/// One thing that is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The setting's name; `None` if the settings as a whole are wrong.
    pub(crate) key: Option<String>,
    /// What is wrong with it and what would be right. Never holds a value.
    pub(crate) message: String,
    /// What the setting is: a parameter or part of the configuration.
    noun: &'static str,
}

const PARAMETER: &str = "parameter";
const CONFIGURATION: &str = "configuration";

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: Some(key.into()), message: message.into(), noun: PARAMETER }
    }

    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self { key: None, message: message.into(), noun: PARAMETER }
    }
}

type StdError = dyn std::error::Error + Send + Sync + 'static;

struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    problems: Vec<Problem>,
    source: Option<Box<StdError>>,
    /// Whether Gofer returned it, or a call to Gofer failed with it.
    of_gofer: bool,
}

/// An error with a kind, a sentence for the person who has to act, and a cause.
///
/// Any [`std::error::Error`] converts into one of kind [`Internal`](ErrorKind::Internal), so `?`
/// works on everything, and callers do not see its text. For the same reason `Error` does not
/// implement [`std::error::Error`] itself; it converts into a boxed one.
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
///
/// let error = Error::invalid_configuration("url", "must begin with https://")
///     .and_configuration("token", "is required");
/// assert!(error.to_string().ends_with("; configuration `token`: is required"));
///
/// fn program() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     port("http")?; // and so does this one
///     Ok(())
/// }
/// assert!(program().is_err());
/// ```
pub struct Error(Box<Repr>);

impl Error {
    /// An error of the given kind with a sentence for the person who has to act.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(kind, message.into(), Vec::new())
    }

    fn of(kind: ErrorKind, message: Cow<'static, str>, problems: Vec<Problem>) -> Self {
        Self(Box::new(Repr { kind, message, problems, source: None, of_gofer: false }))
    }

    /// Marks it as one of a call to Gofer.
    pub(crate) fn of_gofer(mut self) -> Self {
        self.0.of_gofer = true;
        self
    }

    pub(crate) fn is_of_gofer(&self) -> bool {
        self.0.of_gofer
    }

    /// A parameter of the subscription is not acceptable.
    ///
    /// `message` completes "parameter `key`: …"; say what would be right, and do not repeat the
    /// value, which may be a secret.
    pub fn invalid_parameter(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(ErrorKind::InvalidParameter, Vec::new()).and_parameter(key, message)
    }

    /// A setting of the extension's configuration is not acceptable.
    ///
    /// `message` completes "configuration `key`: …"; say what would be right, and do not repeat the
    /// value, which may be a secret.
    pub fn invalid_configuration(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(ErrorKind::InvalidConfiguration, Vec::new()).and_configuration(key, message)
    }

    /// Something that is needed is not available now; trying again may help.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The extension itself failed. The caller sees a generic sentence only.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Converts the status of another gRPC service so that the caller sees its code and message.
    /// `INTERNAL`, `UNKNOWN` and `DATA_LOSS` become `Internal`, whose message is only logged;
    /// `OUT_OF_RANGE` becomes `INVALID_ARGUMENT`, and `ABORTED` becomes `FAILED_PRECONDITION`.
    ///
    /// Only for a service whose messages that caller may see. `?` on a [`Status`](tonic::Status)
    /// gives an [`Internal`](ErrorKind::Internal) error, as it does on every other error.
    ///
    /// ```
    /// use gofer_sdk::api::tonic::Status;
    /// use gofer_sdk::{Error, ErrorKind};
    ///
    /// let error = Error::from_status(Status::not_found("there is no such channel"));
    /// assert_eq!(error.kind(), ErrorKind::NotFound);
    /// assert_eq!(error.to_string(), "there is no such channel");
    /// ```
    #[cfg(feature = "api")]
    #[cfg_attr(docsrs, doc(cfg(feature = "api")))]
    #[must_use]
    pub fn from_status(status: tonic::Status) -> Self {
        let kind = ErrorKind::from_code(status.code());
        Self::new(kind, status.message().to_owned()).with_source(status)
    }

    /// Adds a parameter, so that everything wrong is reported at once.
    #[must_use]
    pub fn and_parameter(mut self, key: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.problems.push(Problem::new(key, message));
        self
    }

    /// Adds a setting of the configuration, so that everything wrong is reported at once.
    #[must_use]
    pub fn and_configuration(mut self, key: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.problems.push(Problem { noun: CONFIGURATION, ..Problem::new(key, message) });
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
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The cause, if there is one.
    pub fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }

    /// An error about settings, all of them parameters or all of them configuration, as the kind
    /// says.
    pub(crate) fn invalid(kind: ErrorKind, mut problems: Vec<Problem>) -> Self {
        if kind == ErrorKind::InvalidConfiguration {
            for problem in &mut problems {
                problem.noun = CONFIGURATION;
            }
        }
        Self::of(kind, Cow::Borrowed(""), problems)
    }

    pub(crate) fn shutting_down() -> Self {
        Self::unavailable("the extension is shutting down")
    }

    pub(crate) fn problems(&self) -> &[Problem] {
        &self.0.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (n, problem) in self.0.problems.iter().enumerate() {
            if n > 0 || !self.0.message.is_empty() {
                f.write_str("; ")?;
            }
            match &problem.key {
                Some(key) => write!(f, "{} `{key}`: {}", problem.noun, problem.message)?,
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

/// An [`Error`] as one of the standard library's.
struct Boxed(Error);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Boxed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl From<Error> for Box<dyn std::error::Error + Send + Sync + 'static> {
    fn from(error: Error) -> Self {
        Box::new(Boxed(error))
    }
}

impl From<Error> for Box<dyn std::error::Error + 'static> {
    fn from(error: Error) -> Self {
        Box::new(Boxed(error))
    }
}

#[cfg(test)]
mod tests;
