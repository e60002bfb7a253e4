//! `gofer config`: the configuration file.

use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Out;
use crate::settings::{ConfigFile, Connection, Settings};
use crate::terminal;

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings in effect, from flags, environment and file.
    #[command(after_help = "Example:\n  gofer config show")]
    Show,
    /// Print the path of the file, whether it exists or not.
    #[command(after_help = "Example:\n  gofer config path")]
    Path,
    /// Set a value in the file.
    #[command(after_help = "\
Example:
  gofer config set address gofer.example.com:443
  gofer config set token - < token.txt")]
    Set {
        /// Name of the setting.
        key: Key,
        /// Value; `-` reads it from standard input.
        value: String,
    },
    /// Remove a value from the file.
    #[command(after_help = "Example:\n  gofer config unset token")]
    Unset {
        /// Name of the setting.
        key: Key,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Key {
    Address,
    Token,
    Namespace,
    Ca,
    SkipTlsVerify,
}

impl ConfigCommand {
    pub(crate) async fn run(self, connection: &Connection, out: Out) -> Result<(), Failure> {
        let path = connection.file()?;
        match self {
            Self::Show => return show(connection, out),
            Self::Path => {
                let path = path.display().to_string();
                return Ok(out.done(&path, &json!({ "path": path }))?);
            }
            Self::Set { key, value } => {
                let value = if value == "-" { read_value(key).await? } else { value };
                let mut file = ConfigFile::read(&path)?;
                set(&mut file, key, Some(value))?;
                file.write(&path)?;
            }
            Self::Unset { key } => {
                let mut file = ConfigFile::read(&path)?;
                set(&mut file, key, None)?;
                file.write(&path)?;
            }
        }
        let path = path.display().to_string();
        Ok(out.done(&format!("Wrote {path}."), &json!({ "path": path }))?)
    }
}

async fn read_value(key: Key) -> Result<String, Failure> {
    if let Key::Token = key
        && let Some(token) = terminal::ask_secret("Token").await?
    {
        return Ok(token.trim().to_owned());
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn set(file: &mut ConfigFile, key: Key, value: Option<String>) -> Result<(), Failure> {
    match key {
        Key::Address => file.address = value,
        Key::Token => file.token = value,
        Key::Namespace => file.namespace = value,
        // Absolute, since commands run in any directory.
        Key::Ca => {
            file.ca = value.map(|path| std::path::absolute(PathBuf::from(path))).transpose()?;
        }
        Key::SkipTlsVerify => {
            let parsed = value.map(|value| value.parse());
            file.skip_tls_verify = parsed
                .transpose()
                .map_err(|_| Failure::usage("`skip_tls_verify` must be true or false"))?;
        }
    }
    Ok(())
}

fn show(connection: &Connection, out: Out) -> Result<(), Failure> {
    let Settings { address, token, namespace, ca, certificate, skip_tls_verify, .. } =
        Settings::resolve(connection)?;
    let started = certificate.is_some();
    let ca = ca.map(|path| path.display().to_string());
    let json = json!({
        "address": address,
        "has_token": token.is_some(),
        "namespace": namespace,
        "ca": ca,
        "started_core": started,
        "skip_tls_verify": skip_tls_verify,
    });
    let trusted = if started {
        "(the certificate of the core that you started)"
    } else {
        "(only the system's authorities)"
    };
    let lines = vec![
        ("address", address.into()),
        ("token", if token.is_some() { "(set)" } else { "(none)" }.into()),
        ("namespace", namespace.into()),
        ("ca", ca.unwrap_or_else(|| trusted.to_owned()).into()),
        ("skip_tls_verify", skip_tls_verify.to_string().into()),
    ];
    Ok(out.details(lines, &json)?)
}
