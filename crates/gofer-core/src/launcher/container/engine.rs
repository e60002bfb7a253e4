//! The container engine: where it is, and calls to it that end.
//!
//! Docker and Podman speak the same API on a socket of this machine. It is
//! looked for when the first container is to be started, so a core that starts
//! none never touches it.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use tonic::Status;

/// How long an engine may take to say that it is there. One that hangs must not
/// hold up the search for another.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may take. To make or remove a container takes an engine on a
/// busy machine some seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What an engine says is told up to here.
const SAID_CHARS: usize = 300;

/// An engine that answers.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    pub(super) kind: Kind,
}

/// What matters for the way from a container to this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) podman: bool,
    /// It runs as a user other than root, with a network of its own.
    pub(super) rootless: bool,
    /// It runs in a virtual machine on this one.
    pub(super) desktop: bool,
}

/// Why a call to the engine failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no such image, container or network.
    Missing(String),
    /// It is being done already, or contradicts what is there.
    Conflict(String),
    /// What the engine said.
    Refused(String),
    /// It did not answer, or not in a way that can be read.
    Broken(String),
}

impl Trouble {
    pub(super) fn said(&self) -> &str {
        match self {
            Self::Missing(said)
            | Self::Conflict(said)
            | Self::Refused(said)
            | Self::Broken(said) => said,
        }
    }

    /// What could not be done, and why.
    pub(super) fn status(&self, what: &str) -> Status {
        Status::failed_precondition(format!("{what}: {}", self.said()))
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let said = short(&message);
                match status_code {
                    404 => Self::Missing(said),
                    409 => Self::Conflict(said),
                    _ => Self::Refused(said),
                }
            }
            Error::DockerStreamError { error } => Self::Refused(short(&error)),
            Error::RequestTimeoutError => Self::Broken("the container engine hangs".to_owned()),
            other => {
                // The innermost is what the system said.
                let mut inner: &dyn std::error::Error = &other;
                while let Some(source) = inner.source() {
                    inner = source;
                }
                Self::Broken(short(&inner.to_string()))
            }
        }
    }
}

/// One line, and not a long one.
pub(super) fn short(text: &str) -> String {
    let line = text.trim().replace(char::is_control, " ");
    let mut short: String = line.chars().take(SAID_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

impl Engine {
    /// Looks where engines are: at `given`, or else where the environment says, or
    /// else at the usual sockets.
    ///
    /// # Errors
    ///
    /// Where none answers, in a sentence that says where was looked and what to do.
    pub(super) async fn find(given: Option<&str>) -> Result<Self, Status> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut looked = Vec::new();
        for place in places(given, variable) {
            match probe(&place).await {
                Ok(engine) => {
                    tracing::debug!(place, kind = ?engine.kind, "a container engine answers");
                    return Ok(engine);
                }
                Err(why) => looked.push(format!("`{place}` ({why})")),
            }
        }
        Err(Status::failed_precondition(format!(
            "no container engine answers; looked at {}. Start Docker or Podman, or set DOCKER_HOST \
             to its socket (`unix:///path`), or give a program as `exec:<path>`",
            looked.join(", ")
        )))
    }

    /// What the engine answers, in time.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        within(CALL_TIMEOUT, call).await
    }
}

async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(time, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Broken(format!(
            "the container engine did not answer within {} s",
            time.as_secs()
        ))),
    }
}

/// Where engines may be, the likeliest first.
pub(super) fn places(
    given: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    if let Some(given) = given {
        return vec![given.to_owned()];
    }
    if let Some(host) = variable("DOCKER_HOST") {
        return vec![host];
    }
    let mut places = vec!["unix:///var/run/docker.sock".to_owned()];
    let runtime = variable("XDG_RUNTIME_DIR");
    if let Some(runtime) = &runtime {
        places.push(format!("unix://{runtime}/docker.sock"));
    }
    if let Some(home) = variable("HOME") {
        places.push(format!("unix://{home}/.docker/run/docker.sock"));
        places.push(format!("unix://{home}/.docker/desktop/docker.sock"));
    }
    if let Some(runtime) = &runtime {
        places.push(format!("unix://{runtime}/podman/podman.sock"));
    }
    places.push("unix:///run/podman/podman.sock".to_owned());
    places
}

/// An engine at a place, or why there is none.
async fn probe(place: &str) -> Result<Engine, String> {
    let docker = connect(place)?;
    let asked = async {
        // An engine that is older than this program says so here.
        let docker = docker.negotiate_version().await?;
        let (version, info) = (docker.version().await?, docker.info().await?);
        Ok((docker, version, info))
    };
    let (docker, version, info) =
        within(PROBE_TIMEOUT, asked).await.map_err(|trouble| trouble.said().to_owned())?;
    let components = version.components.unwrap_or_default();
    let security = info.security_options.unwrap_or_default();
    let kind = Kind {
        podman: components.iter().any(|component| component.name.contains("Podman")),
        rootless: security.iter().any(|option| option.contains("name=rootless")),
        desktop: info.operating_system.is_some_and(|system| system.contains("Docker Desktop")),
    };
    Ok(Engine { docker, kind })
}

/// Connects to nobody yet.
fn connect(place: &str) -> Result<Docker, String> {
    let seconds = CALL_TIMEOUT.as_secs();
    let connected = match place.split_once("://") {
        Some(("unix", path)) => {
            if !Path::new(path).exists() {
                return Err("there is no such socket".to_owned());
            }
            Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION)
        }
        Some(("tcp" | "http", address)) => {
            let address = address.trim_end_matches('/');
            if !is_here(address) {
                return Err(
                    "the engine must be on this machine, for its containers are reached on \
                            loopback"
                        .to_owned(),
                );
            }
            Docker::connect_with_http(&format!("http://{address}"), seconds, API_DEFAULT_VERSION)
        }
        _ => return Err("must be `unix:///path` or `tcp://127.0.0.1:port`".to_owned()),
    };
    connected.map_err(|error| Trouble::from(error).said().to_owned())
}

fn is_here(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
