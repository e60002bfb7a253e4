//! Docker's contexts, with which its command line chooses an engine.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use gofer_net::auth::sha256;
use serde::Deserialize;

/// The name of what is not kept in a file: the usual sockets.
const DEFAULT: &str = "default";

/// The part of Docker's configuration that counts here.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// The address of the engine in the context that `DOCKER_CONTEXT`, or else Docker's configuration,
/// chooses; `None` if neither chooses one.
///
/// # Errors
///
/// If there is no such context, or it has no address; as a sentence with what to do.
pub(super) fn address(variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let directory = match (variable("DOCKER_CONFIG"), variable("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => Path::new(&home).join(".docker"),
        (None, None) => return Ok(None),
    };
    let config = directory.join("config.json");
    let (name, by) = match variable("DOCKER_CONTEXT") {
        Some(name) => (name, "DOCKER_CONTEXT".to_owned()),
        None => (current(&config), format!("`{}`", config.display())),
    };
    if name.is_empty() || name == DEFAULT {
        return Ok(None);
    }
    let meta = directory.join("contexts/meta").join(hex::encode(sha256(name.as_bytes())));
    let meta = meta.join("meta.json");
    let refused = |why: &str| {
        format!(
            "the Docker context `{name}`, which {by} chooses, {why}; `docker context use` chooses \
             another one, and DOCKER_HOST sets an address itself"
        )
    };
    let text = std::fs::read_to_string(&meta).map_err(|error| match error.kind() {
        NotFound => refused("does not exist"),
        _ => refused(&format!("cannot be read from `{}`: {error}", meta.display())),
    })?;
    let host = serde_json::from_str::<Meta>(&text).map(|meta| meta.endpoints.docker.host);
    match host {
        Ok(host) if !host.is_empty() => Ok(Some(host)),
        _ => Err(refused(&format!("has no address of an engine in `{}`", meta.display()))),
    }
}

/// The context that is chosen in a file; empty for none. As for Docker, a file that cannot be read
/// chooses none.
fn current(config: &Path) -> String {
    let text = match std::fs::read_to_string(config) {
        Ok(text) => text,
        Err(error) if error.kind() == NotFound => return String::new(),
        Err(error) => {
            tracing::warn!(file = %config.display(), %error, "cannot read Docker's configuration");
            return String::new();
        }
    };
    if let Ok(config) = serde_json::from_str::<Config>(&text) {
        return config.current_context;
    }
    tracing::warn!(file = %config.display(), "Docker's configuration is not valid JSON");
    String::new()
}

#[cfg(test)]
mod tests;
