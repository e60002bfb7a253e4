//! How a command fails: an error message, a hint, and an exit code.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use gofer_net::tls::NOT_ACCEPTED;
use gofer_sdk::GoferAddress;
use tonic::{Code, Status};

use crate::output::visible;
use crate::settings::{Connection, Settings};

/// The exit codes are documented in the long help.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const STATE: u8 = 4;
const ACCESS: u8 = 5;
const UNAVAILABLE: u8 = 6;
const UNIMPLEMENTED: u8 = 7;
const RUN_FAILED: u8 = 8;
/// As a shell reports the interrupt of a command.
const INTERRUPTED: u8 = 130;

#[derive(Debug)]
pub(crate) struct Failure {
    cause: Cause,
    hint: Option<String>,
}

#[derive(Debug)]
enum Cause {
    Message {
        code: u8,
        message: String,
    },
    /// The status of a call, from Gofer or from the client itself.
    Call(Box<Status>),
    /// The reader of the output has closed it, which ends the command without an error.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with(FAILED, message)
    }

    /// The command or a value in it is invalid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with(USAGE, message)
    }

    pub(crate) fn run_failed(message: impl Into<String>) -> Self {
        Self::with(RUN_FAILED, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::with(UNIMPLEMENTED, message)
    }

    /// Not possible in the state that something is in.
    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::with(STATE, message)
    }

    /// Something did not respond in time.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::with(UNAVAILABLE, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::with(INTERRUPTED, "interrupted")
    }

    /// A file could not be read or written.
    pub(crate) fn file(verb: &str, path: &Path, error: &dyn Display) -> Self {
        Self::new(format!("cannot {verb} `{}`: {error}", path.display()))
    }

    fn with(code: u8, message: impl Into<String>) -> Self {
        Self { cause: Cause::Message { code, message: message.into() }, hint: None }
    }

    /// What to do next. Only the first hint is kept.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// What to do next if a call returned this code.
    pub(crate) fn hint_on(self, code: Code, hint: impl Into<String>) -> Self {
        if self.code() == Some(code) { self.hint(hint) } else { self }
    }

    /// What to do next if the message is such a one.
    pub(crate) fn hint_if(self, is: impl FnOnce(&str) -> bool, hint: impl Into<String>) -> Self {
        if is(self.message()) { self.hint(hint) } else { self }
    }

    /// The error in words, for a command that goes on without what failed.
    pub(crate) fn message(&self) -> &str {
        match &self.cause {
            Cause::Message { message, .. } => message,
            Cause::Call(status) => status.message(),
            Cause::BrokenPipe => "the reader of the output has closed it",
        }
    }

    /// What kind of error a call returned.
    pub(crate) fn code(&self) -> Option<Code> {
        match &self.cause {
            Cause::Call(status) => Some(status.code()),
            Cause::Message { .. } | Cause::BrokenPipe => None,
        }
    }

    /// Prints the error and the hint.
    pub(crate) fn report(self, connection: &Connection) -> ExitCode {
        let (code, message, hint) = match self.cause {
            Cause::BrokenPipe => return ExitCode::SUCCESS,
            Cause::Message { code, message } => (code, message, None),
            Cause::Call(status) => explain(&status, connection),
        };
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        // If standard error is closed, the exit code is all that is left.
        let mut out = anstream::stderr().lock();
        let _ = io::Write::write_fmt(
            &mut out,
            format_args!("{red}error{red:#}: {}\n", visible(&message)),
        );
        if let Some(hint) = self.hint.as_deref().or(hint) {
            let _ =
                io::Write::write_fmt(&mut out, format_args!("{yellow}hint{yellow:#}: {hint}\n"));
        }
        ExitCode::from(code)
    }
}

/// The exit code, the message and the hint for a call's status.
fn explain(status: &Status, connection: &Connection) -> (u8, String, Option<&'static str>) {
    let settings = Settings::resolve(connection).ok();
    let address = settings.as_ref().map_or("the server", |settings| &settings.address);
    // With the port, which may have been left out.
    let address = match address.parse::<GoferAddress>() {
        Ok(address) => address.to_string(),
        Err(_) => address.to_owned(),
    };
    let has_token = settings.as_ref().is_some_and(|settings| settings.token.is_some());
    let is_pinned = settings.as_ref().is_some_and(|settings| settings.is_pinned);
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable if message.contains(NOT_ACCEPTED) && is_pinned => (
            UNAVAILABLE,
            format!("{address} is not the core that you started there: {message}"),
            Some(
                "the token in cores.toml is sent only to whoever has the key of the certificate \
                 beside it, whatever --ca and --skip-tls-verify say: start that core again, or set \
                 a token for this server with GOFER_TOKEN",
            ),
        ),
        Code::Unavailable if message.contains(NOT_ACCEPTED) => (
            UNAVAILABLE,
            format!("cannot reach Gofer at {address}: {message}"),
            Some(
                "trust its certificate with --ca or GOFER_CA (a core keeps it next to its store, \
                 such as gofer.redb.crt), and use an address that it is valid for; for \
                 development, --skip-tls-verify accepts any certificate",
            ),
        ),
        Code::Unavailable if message.contains("InvalidContentType") => (
            UNAVAILABLE,
            format!("cannot reach Gofer at {address}: {message}"),
            Some(
                "what listens there does not speak TLS, which Gofer does; --address or \
                 GOFER_ADDRESS sets the address",
            ),
        ),
        Code::Unavailable if message.starts_with("cannot connect") => (
            UNAVAILABLE,
            format!("cannot reach Gofer at {address}: {message}"),
            Some(
                "is it running? `gofer service start` starts a core; --address or GOFER_ADDRESS \
                 sets the address",
            ),
        ),
        Code::Unavailable => (UNAVAILABLE, message, None),
        Code::DeadlineExceeded => {
            let hint = "it may have taken effect: check before you try again";
            (UNAVAILABLE, message, Some(hint))
        }
        // A full Gofer has the second code for both.
        Code::Unauthenticated | Code::PermissionDenied if !has_token => (
            ACCESS,
            "a token is required, and none is set".to_owned(),
            Some(
                "set GOFER_TOKEN, or use `gofer config set token -`; a core's first token is kept \
                 for the user who runs `gofer service start`, where --new-token makes another one, \
                 and `gofer token bootstrap` creates that of a full Gofer",
            ),
        ),
        Code::Unauthenticated => (
            ACCESS,
            message,
            Some("set another token with GOFER_TOKEN or `gofer config set token -`"),
        ),
        Code::PermissionDenied => (
            ACCESS,
            message,
            Some(
                "use a token with access; `gofer token create` creates one, given a management token",
            ),
        ),
        Code::NotFound => (NOT_FOUND, message, None),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => (STATE, message, None),
        Code::InvalidArgument | Code::OutOfRange => (USAGE, message, None),
        Code::Unimplemented => (UNIMPLEMENTED, message, None),
        code if message.is_empty() => (FAILED, format!("Gofer returned {code:?}"), None),
        _ => (FAILED, message, None),
    }
}

/// With the code and the message that an embedded core would have sent, whichever Gofer it is.
impl From<Status> for Failure {
    fn from(mut status: Status) -> Self {
        let (code, message) = gofer_sdk::internal::meaning(&status);
        if (code, &*message) != (status.code(), status.message()) {
            status = Status::new(code, message.into_owned());
        }
        Self { cause: Cause::Call(Box::new(status)), hint: None }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { cause: Cause::BrokenPipe, hint: None };
        }
        Self::new(error.to_string())
    }
}

impl From<gofer_sdk::Error> for Failure {
    fn from(error: gofer_sdk::Error) -> Self {
        use gofer_sdk::ErrorKind;
        match error.kind() {
            ErrorKind::InvalidParameter | ErrorKind::InvalidConfiguration => {
                Self::usage(error.to_string())
            }
            ErrorKind::FailedPrecondition => Self::with(STATE, error.to_string()),
            _ => Self::new(error.to_string()),
        }
    }
}
