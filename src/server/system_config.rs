//! The environment variables that Gofer passes to an extension.
//!
//! All problems are reported at once, each with the variable's full name, and no value is ever
//! shown: two of them are secrets.

use std::ffi::OsString;
use std::fmt;

use http::HeaderValue;
use serde::Deserialize;

use crate::client::{GoferAddress, authorization};
use gofer_net::tls;

/// The prefix of all variables.
pub const PREFIX: &str = "GOFER_EXTENSION_SYSTEM_";

const DEFAULT_HOST: &str = "0.0.0.0:8082";
const DEFAULT_GOFER_HOST: &str = "localhost:8080";

/// How much is logged, on Gofer's scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Every detail.
    Trace,
    /// Details for debugging.
    Debug,
    /// Normal operation.
    #[default]
    Info,
    /// Problems that need attention.
    Warn,
    /// Failures.
    Error,
    /// Failures that end the process; logged as errors.
    Fatal,
    /// The same as [`Fatal`](Self::Fatal); Gofer's scale has both.
    Panic,
    /// Nothing.
    Disabled,
}

impl LogLevel {
    const NAMES: [(&str, Self); 8] = [
        ("trace", Self::Trace),
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
        ("fatal", Self::Fatal),
        ("panic", Self::Panic),
        ("disabled", Self::Disabled),
    ];

    /// The level as Gofer spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, level)| *level == self).map_or("info", |(name, _)| name)
    }

    /// All of them, for a sentence.
    pub(super) fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    fn parse(text: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find_map(|(name, level)| name.eq_ignore_ascii_case(text).then_some(level))
    }
}

/// The variables as text; all are optional here, so that reading does not stop at the first
/// problem.
#[derive(Deserialize)]
struct Raw {
    key: Option<String>,
    name: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    log_level: Option<String>,
    host: Option<String>,
    gofer_host: Option<String>,
    skip_tls_verify: Option<String>,
}

/// The settings that Gofer passes to an extension when it starts it.
///
/// ```
/// use gofer_sdk::{LogLevel, SystemConfig};
///
/// # let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
/// # let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
/// let config = SystemConfig::from_vars([
///     ("GOFER_EXTENSION_SYSTEM_KEY", "6b8f".to_owned()),
///     ("GOFER_EXTENSION_SYSTEM_NAME", "interval".to_owned()),
///     ("GOFER_EXTENSION_SYSTEM_TLS_CERT", certificate),
///     ("GOFER_EXTENSION_SYSTEM_TLS_KEY", key),
/// ])?;
/// assert_eq!((config.name(), config.log_level()), ("interval", LogLevel::Info));
/// assert_eq!((config.host(), config.gofer_host().port()), ("0.0.0.0:8082", 8080));
///
/// // Everything that is wrong is reported at once, by name.
/// let error = SystemConfig::from_vars([("GOFER_EXTENSION_SYSTEM_NAME", "interval")]).unwrap_err();
/// assert_eq!(error.problems().len(), 3);
/// assert_eq!(error.problems()[0], "GOFER_EXTENSION_SYSTEM_KEY: is not set");
/// # Ok::<(), gofer_sdk::SystemConfigError>(())
/// ```
#[derive(Clone)]
pub struct SystemConfig {
    pub(crate) key: String,
    pub(crate) authorization: HeaderValue,
    pub(crate) name: String,
    pub(crate) tls: std::sync::Arc<tokio_rustls::rustls::ServerConfig>,
    pub(crate) log_level: LogLevel,
    /// A level was set that is none.
    pub(crate) has_unknown_log_level: bool,
    pub(crate) host: String,
    pub(crate) gofer_host: GoferAddress,
    pub(crate) skip_tls_verify: bool,
}

impl SystemConfig {
    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// [`SystemConfigError`] with every variable that is missing or invalid. Variables without the
    /// prefix may hold anything.
    pub fn from_env() -> Result<Self, SystemConfigError> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the variables from another source; those without the prefix `GOFER_EXTENSION_SYSTEM_`
    /// are ignored.
    ///
    /// # Errors
    ///
    /// As for [`from_env`](Self::from_env).
    pub fn from_vars<K, V>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SystemConfigError>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut problems = Problems::default();
        let mut texts = Vec::new();
        for (name, value) in vars {
            let Ok(name) = name.into().into_string() else { continue };
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            match value.into().into_string() {
                Ok(value) => texts.push((name, value)),
                Err(_) => problems.add(short, "is not valid UTF-8"),
            }
        }
        let raw: Raw = match envy::prefixed(PREFIX).from_iter(texts) {
            Ok(raw) => raw,
            Err(error) => {
                // Every field is optional text, so this does not happen.
                problems.0.push(error.to_string());
                return Err(SystemConfigError(problems.0));
            }
        };
        raw.check(problems)
    }

    /// Whether any of the variables is set, as they are if Gofer, and not a person, started this
    /// process.
    pub fn is_in_env() -> bool {
        std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with(PREFIX))
    }

    /// The name under which the extension is installed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much to log; default info, also if a level is set that is none, about which the server
    /// warns when it starts.
    pub fn log_level(&self) -> LogLevel {
        self.log_level
    }

    /// The address to listen on; default `0.0.0.0:8082`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where Gofer's API is; default `localhost:8080`.
    pub fn gofer_host(&self) -> &GoferAddress {
        &self.gofer_host
    }

    /// Whether Gofer's certificate is not verified; default false.
    pub fn skip_tls_verify(&self) -> bool {
        self.skip_tls_verify
    }
}

impl Raw {
    fn check(self, mut problems: Problems) -> Result<SystemConfig, SystemConfigError> {
        let key = problems.required("KEY", self.key).and_then(|key| {
            let value = authorization(&key);
            let value = problems.unless(value, "KEY", "must be printable ASCII without spaces")?;
            Some((key, value))
        });
        let name = problems.required("NAME", self.name);
        let chain = problems.required("TLS_CERT", self.tls_cert);
        let tls_key = problems.required("TLS_KEY", self.tls_key);
        let tls =
            chain.zip(tls_key).and_then(|(chain, key)| match tls::server_config(&chain, &key) {
                Ok(config) => Some(config),
                Err(problem) => {
                    let name = if problem.is_of_key() { "TLS_KEY" } else { "TLS_CERT" };
                    problems.add(name, &problem.to_string());
                    None
                }
            });
        // No reason not to start: other versions of Gofer may know other levels.
        let log_level = self.log_level.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let known = log_level.map(LogLevel::parse);
        let has_unknown_log_level = known == Some(None);
        let log_level = known.flatten().unwrap_or_default();
        let host = self.host.filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let host = problems.unless(
            listen_address(&host),
            "HOST",
            "must be an address and a port to listen on, such as 0.0.0.0:8082",
        );
        let gofer_host = self.gofer_host.filter(|host| !host.is_empty());
        let gofer_host = gofer_host.as_deref().unwrap_or(DEFAULT_GOFER_HOST);
        let gofer_host = match gofer_host.parse::<GoferAddress>() {
            Ok(address) => Some(address),
            Err(error) => {
                problems.add("GOFER_HOST", &error.to_string());
                None
            }
        };
        let skip_tls_verify = match self.skip_tls_verify.as_deref() {
            None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
            Some(_) => {
                problems.add("SKIP_TLS_VERIFY", "must be true or false");
                None
            }
        };
        let config = || {
            let (key, authorization) = key?;
            Some(SystemConfig {
                key,
                authorization,
                name: name?,
                tls: tls?,
                log_level,
                has_unknown_log_level,
                host: host?,
                gofer_host: gofer_host?,
                skip_tls_verify: skip_tls_verify?,
            })
        };
        config().filter(|_| problems.0.is_empty()).ok_or(SystemConfigError(problems.0))
    }
}

/// `host:port`; `:port` means every interface, as in Go.
fn listen_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(if host.is_empty() { format!("0.0.0.0:{port}") } else { text.to_owned() })
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, name: &str, problem: &str) {
        self.0.push(format!("{PREFIX}{name}: {problem}"));
    }

    fn required(&mut self, name: &str, value: Option<String>) -> Option<String> {
        match value {
            Some(value) if !value.trim().is_empty() => Some(value),
            Some(_) => {
                self.add(name, "is empty");
                None
            }
            // It is set, but not UTF-8, which is reported already.
            None if self.0.iter().any(|known| known.starts_with(&format!("{PREFIX}{name}: "))) => {
                None
            }
            None => {
                self.add(name, "is not set");
                None
            }
        }
    }

    fn unless<T>(&mut self, value: Option<T>, name: &str, problem: &str) -> Option<T> {
        if value.is_none() {
            self.add(name, problem);
        }
        value
    }
}

/// Everything that is wrong with the variables that Gofer sets.
#[derive(Clone, PartialEq, Eq)]
pub struct SystemConfigError(Vec<String>);

impl SystemConfigError {
    /// One sentence for each problem, beginning with the name of the variable.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for SystemConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = "the environment variables that Gofer sets for an extension";
        write!(f, "{set} are missing or invalid:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Prints the same as [`Display`](fmt::Display), because `main` prints its error with `Debug`.
impl fmt::Debug for SystemConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SystemConfigError {}

/// Without the key, the certificate and its key.
impl fmt::Debug for SystemConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemConfig")
            .field("name", &self.name)
            .field("log_level", &self.log_level)
            .field("host", &self.host)
            .field("gofer_host", &self.gofer_host.to_string())
            .field("skip_tls_verify", &self.skip_tls_verify)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
