//! Where the address, the token and other settings come from: flags override the environment, which
//! overrides the configuration file. For what none of them says, there are the cores that this user
//! has started.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use crate::cores::{self, StartedCore, StartedCores};
use crate::failure::Failure;

/// The default of `service start`, and so of everything that connects to it.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

pub(crate) const NAMESPACE: &str = "default";

/// The flags of all commands.
#[derive(Args, Clone)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Connection {
    /// Address of Gofer [default: 127.0.0.1:8080].
    #[arg(long, global = true, env = "GOFER_ADDRESS", value_name = "HOST:PORT")]
    address: Option<String>,
    /// Token; safer in the environment or the configuration file.
    #[arg(long, global = true, env = "GOFER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Namespace of pipelines that are named without one [default: default].
    #[arg(long, short = 'n', global = true, env = "GOFER_NAMESPACE")]
    namespace: Option<String>,
    /// File with certificates (PEM) to trust in addition to the system's.
    #[arg(long, global = true, env = "GOFER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept any certificate; for development only.
    #[arg(long, global = true, env = "GOFER_SKIP_TLS_VERIFY", value_parser = BoolishValueParser::new())]
    skip_tls_verify: bool,
    /// Configuration file [default: ~/.config/gofer/config.toml].
    #[arg(long, global = true, env = "GOFER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Connection {
    /// The address of the flag, if the environment does not set the same one.
    pub(crate) fn address_flag(&self) -> Option<&str> {
        let address = self.address.as_deref();
        address.filter(|it| std::env::var("GOFER_ADDRESS").ok().as_deref() != Some(it))
    }

    /// The path of the configuration file, which may not exist.
    pub(crate) fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = given(self.config.as_ref(), |path| path.as_os_str().is_empty()) {
            return Ok(path.clone());
        }
        let directory =
            |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let base = directory("XDG_CONFIG_HOME")
            .or_else(|| directory("HOME").map(|home| home.join(".config")));
        match base {
            Some(base) => Ok(base.join("gofer").join("config.toml")),
            None => Err(Failure::usage("cannot locate the configuration file: HOME is not set")
                .hint("set it with --config or GOFER_CONFIG")),
        }
    }
}

/// An empty variable counts as unset.
fn given<T>(value: Option<&T>, is_empty: impl Fn(&T) -> bool) -> Option<&T> {
    value.filter(|value| !is_empty(value))
}

/// The settings in effect.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) address: String,
    pub(crate) token: Option<String>,
    pub(crate) namespace: String,
    pub(crate) ca: Option<PathBuf>,
    /// The certificate of a core that this user has started.
    pub(crate) certificate: Option<String>,
    /// The token is from `cores.toml`: it goes to whoever has the key of the certificate, and to
    /// nobody else.
    pub(crate) is_pinned: bool,
    pub(crate) skip_tls_verify: bool,
}

impl Settings {
    pub(crate) fn resolve(connection: &Connection) -> Result<Self, Failure> {
        Self::resolve_for(connection, true)
    }

    /// The settings of a call that needs no token: none of `cores.toml` is used.
    pub(crate) fn resolve_without_token(connection: &Connection) -> Result<Self, Failure> {
        Self::resolve_for(connection, false)
    }

    fn resolve_for(connection: &Connection, needs_token: bool) -> Result<Self, Failure> {
        let (file, cores) = match connection.file() {
            Ok(path) => (ConfigFile::read(&path)?, StartedCores::read(&cores::file(&path))),
            // Without a home directory there are no files.
            Err(_) => (ConfigFile::default(), Ok(StartedCores::default())),
        };
        let text = |flag: &Option<String>| given(flag.as_ref(), String::is_empty).cloned();
        let given_address = text(&connection.address);
        let given_token = text(&connection.token);
        let takes_token = needs_token && given_token.is_none();
        let has_address = given_address.is_some() || file.address.is_some();
        let cores = match cores {
            // What the cores would say has been said.
            Err(_) if file.has_token_for(given_address.as_deref()) => StartedCores::default(),
            Err(_) if has_address && !takes_token => StartedCores::default(),
            cores => cores?,
        };
        let core = file.started_core(&cores, given_address.as_deref());
        let is_pinned = core.is_some() && takes_token;
        let address = match (given_address, core) {
            (Some(given), _) => given,
            (None, Some(core)) => core.address.clone(),
            (None, None) => file.address.unwrap_or_else(|| ADDRESS.to_owned()),
        };
        let (token, ca, skip_tls_verify) = match core {
            Some(core) => (is_pinned.then(|| core.token.clone()), None, None),
            None => (file.token, file.ca, file.skip_tls_verify),
        };
        let given_ca = given(connection.ca.as_ref(), |path| path.as_os_str().is_empty());
        let skips = connection.skip_tls_verify || skip_tls_verify.unwrap_or(false);
        Ok(Self {
            address,
            token: given_token.or(token),
            namespace: text(&connection.namespace)
                .or(file.namespace)
                .unwrap_or_else(|| NAMESPACE.to_owned()),
            ca: given_ca.filter(|_| !is_pinned).cloned().or(ca),
            certificate: core.map(|core| core.certificate.clone()),
            is_pinned,
            skip_tls_verify: skips && !is_pinned,
        })
    }
}

/// Where TOML is invalid, and why if that names only fields: other messages contain values, which
/// may be secret.
pub(crate) fn invalid(error: &toml::de::Error) -> String {
    // Only the first line of it: "TOML parse error at line 1, column 2".
    let text = error.to_string();
    let at = text.lines().next().and_then(|it| it.strip_prefix("TOML parse error"));
    let why = error.message();
    let is_safe = why.starts_with("unknown field `") || why.starts_with("missing field `");
    let why = if is_safe { format!(": {why}") } else { String::new() };
    format!("invalid{}{why}", at.unwrap_or_default())
}

/// The configuration file.
#[derive(Default, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skip_tls_verify: Option<bool>,
}

impl ConfigFile {
    /// The started core to use, if the file has no token for the address, which may be given.
    fn started_core<'a>(
        &self,
        cores: &'a StartedCores,
        address: Option<&str>,
    ) -> Option<&'a StartedCore> {
        if self.has_token_for(address) {
            return None;
        }
        cores.last(address.or(self.address.as_deref()))
    }

    /// Whether it has a token, and the address is its own or not given.
    fn has_token_for(&self, address: Option<&str>) -> bool {
        let own = self.address.as_deref().unwrap_or(ADDRESS);
        self.token.is_some() && address.is_none_or(|address| address == own)
    }

    /// The default if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let why = invalid(&error);
            Failure::usage(format!("the configuration file `{}` is {why}", path.display())).hint(
                "it may set address, token, namespace, ca (strings) and skip_tls_verify (true or \
                 false); `gofer config set` writes it",
            )
        })
    }

    /// For its owner alone, since it may hold a token; whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| {
            Failure::new(format!("the configuration cannot be written: {error}"))
        })?;
        let write = || -> io::Result<()> {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            gofer_core::internal::replace(path, text.as_bytes(), 0o600)
        };
        write().map_err(|error| Failure::file("write", path, &error))
    }
}
