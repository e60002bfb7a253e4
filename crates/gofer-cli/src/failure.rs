//! How a command fails: a sentence, what to do next, and an exit code.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use tonic::{Code, Status};

use crate::output::visible;
use crate::settings::{Connection, Settings};

/// What the exit codes stand for is listed in the long help.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const STATE: u8 = 4;
const ACCESS: u8 = 5;
const UNAVAILABLE: u8 = 6;
const UNIMPLEMENTED: u8 = 7;
const RUN_FAILED: u8 = 8;

#[derive(Debug)]
pub(crate) struct Failure {
    what: What,
    hint: Option<String>,
}

#[derive(Debug)]
enum What {
    Said {
        code: u8,
        message: String,
    },
    /// What Gofer answered, or that it did not.
    Call(Box<Status>),
    /// Nobody reads what is written any more, which is the end and no failure.
    NobodyListens,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with(FAILED, message)
    }

    /// The command is not understood, or a value in it is not acceptable.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with(USAGE, message)
    }

    pub(crate) fn run_failed(message: impl Into<String>) -> Self {
        Self::with(RUN_FAILED, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::with(UNIMPLEMENTED, message)
    }

    /// A file could not be read or written.
    pub(crate) fn file(verb: &str, path: &Path, error: &dyn Display) -> Self {
        Self::new(format!("cannot {verb} `{}`: {error}", path.display()))
    }

    fn with(code: u8, message: impl Into<String>) -> Self {
        Self { what: What::Said { code, message: message.into() }, hint: None }
    }

    /// What to do next; the first one that is given counts.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// What to do next where that is what Gofer answered.
    pub(crate) fn hint_on(self, code: Code, hint: impl Into<String>) -> Self {
        if self.status().is_some_and(|status| status.code() == code) {
            self.hint(hint)
        } else {
            self
        }
    }

    pub(crate) fn status(&self) -> Option<&Status> {
        match &self.what {
            What::Call(status) => Some(status),
            What::Said { .. } | What::NobodyListens => None,
        }
    }

    /// Says it, and what to do next.
    pub(crate) fn report(self, connection: &Connection) -> ExitCode {
        let (code, message, hint) = match self.what {
            What::NobodyListens => return ExitCode::SUCCESS,
            What::Said { code, message } => (code, message, None),
            What::Call(status) => explain(&status, connection),
        };
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        // Where even this cannot be said, the code still says it.
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

/// The exit code, the sentence, and what to do next, for what Gofer answered.
fn explain(status: &Status, connection: &Connection) -> (u8, String, Option<&'static str>) {
    let settings = Settings::resolve(connection).ok();
    let address = settings.as_ref().map_or("its address", |settings| &settings.address);
    let has_token = settings.as_ref().is_some_and(|settings| settings.token.is_some());
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable if message.contains("invalid peer certificate") => (
            UNAVAILABLE,
            format!("the certificate of {address} is not trusted: {message}"),
            Some(
                "name its certificate with --ca or GOFER_CA (a core keeps it beside its store, \
                 such as gofer.redb.crt), and call it by a name that it is for; for development, \
                 --skip-tls-verify trusts anyone",
            ),
        ),
        Code::Unavailable if message.starts_with("cannot connect") => (
            UNAVAILABLE,
            format!("Gofer does not answer at {address}: {message}"),
            Some(
                "is it running? `gofer service start` starts a core; --address or GOFER_ADDRESS \
                 says where it is",
            ),
        ),
        Code::Unavailable => (UNAVAILABLE, message, None),
        Code::DeadlineExceeded => {
            let hint = "it may have had its effect: look before doing it again";
            (UNAVAILABLE, message, Some(hint))
        }
        Code::Unauthenticated if !has_token => (
            ACCESS,
            "this needs a token, and none is set".to_owned(),
            Some(
                "set GOFER_TOKEN, or `gofer config set token -`; the first one of a new core is \
                 made by `gofer token bootstrap --save`",
            ),
        ),
        Code::Unauthenticated => {
            (ACCESS, message, Some("GOFER_TOKEN or `gofer config set token -` sets another token"))
        }
        Code::PermissionDenied => (
            ACCESS,
            message,
            Some("who has a management token can make one with access: `gofer token create`"),
        ),
        Code::NotFound => (NOT_FOUND, message, None),
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => (STATE, message, None),
        Code::InvalidArgument | Code::OutOfRange => (USAGE, message, None),
        Code::Unimplemented => (UNIMPLEMENTED, message, None),
        // The code says more than an empty sentence.
        code if message.is_empty() => (FAILED, format!("Gofer answered {code:?}"), None),
        _ => (FAILED, message, None),
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { what: What::Call(Box::new(status)), hint: None }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { what: What::NobodyListens, hint: None };
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
