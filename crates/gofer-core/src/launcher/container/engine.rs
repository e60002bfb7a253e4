//! The container engine: finding it, and calls to it, each with a deadline.
//!
//! Docker and Podman have the same API on a socket of this machine. The core looks for it when it
//! launches the first container, so a core without containers never touches it.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, SystemInfo};
use bollard::{API_DEFAULT_VERSION, Docker};
use tonic::Status;

use super::context;

/// How long an engine may take to answer a probe. One that hangs must not hold up the search for
/// another.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call may take. On a busy machine, creating or removing a container takes a few
/// seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a container is inspected again while its state is one that only Podman has.
const INSPECT_TRIES: u32 = 50;
const INSPECT_PAUSE: Duration = Duration::from_millis(100);

/// Engine messages are cut to this many characters.
const MESSAGE_CHARS: usize = 300;

/// An engine that answers.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    pub(super) kind: EngineKind,
    pub(super) can_limit: CanLimit,
}

/// What an engine can limit. One that does not run as root, or whose kernel lacks control groups,
/// may not be able to, and then refuses containers with limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CanLimit {
    pub(super) memory: bool,
    pub(super) swap: bool,
    pub(super) processes: bool,
}

impl CanLimit {
    /// An engine that does not say can.
    pub(super) fn of(info: &SystemInfo) -> Self {
        Self {
            memory: info.memory_limit.unwrap_or(true),
            swap: info.swap_limit.unwrap_or(true),
            processes: info.pids_limit.unwrap_or(true),
        }
    }
}

/// The properties that decide how a container reaches this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EngineKind {
    pub(super) podman: bool,
    /// It does not run as root and has its own network.
    pub(super) rootless: bool,
    /// It runs in a virtual machine on this machine.
    pub(super) desktop: bool,
}

/// Why a call to the engine failed.
#[derive(Debug)]
pub(super) enum EngineError {
    /// There is no such image, container or network.
    Missing(String),
    /// Already in progress, or in conflict with the current state.
    Conflict(String),
    /// Any other error that the engine returned.
    Refused(String),
    /// No response, or an invalid one.
    Broken(String),
}

impl EngineError {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Missing(message)
            | Self::Conflict(message)
            | Self::Refused(message)
            | Self::Broken(message) => message,
        }
    }

    /// As a status: what failed, and why.
    pub(super) fn status(&self, what: &str) -> Status {
        Status::failed_precondition(format!("{what}: {}", self.message()))
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message = one_line(&message);
                match status_code {
                    404 => Self::Missing(message),
                    409 => Self::Conflict(message),
                    _ => Self::Refused(message),
                }
            }
            Error::DockerStreamError { error } => Self::Refused(one_line(&error)),
            Error::RequestTimeoutError => {
                Self::Broken("the container engine did not answer in time".to_owned())
            }
            other => {
                // The innermost error is the system's.
                let mut inner: &dyn std::error::Error = &other;
                while let Some(source) = inner.source() {
                    inner = source;
                }
                Self::Broken(one_line(&inner.to_string()))
            }
        }
    }
}

/// Makes text one short line.
fn one_line(text: &str) -> String {
    let line = text.trim().replace(char::is_control, " ");
    let mut short: String = line.chars().take(MESSAGE_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

impl Engine {
    /// Finds an engine: at `configured`, or else where Docker's command line finds it, at
    /// `DOCKER_HOST` or in the context that is chosen, or else at the usual sockets.
    ///
    /// # Errors
    ///
    /// If none answers; the message lists the addresses that were tried and what to do.
    pub(super) async fn find(configured: Option<&str>) -> Result<Self, Status> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut tried = Vec::new();
        let is_set = configured.is_some() || variable("DOCKER_HOST").is_some();
        let of_context = if is_set {
            None
        } else {
            context::address(variable).map_err(Status::failed_precondition)?
        };
        let configured = configured.or(of_context.as_deref());
        for address in addresses(configured, variable) {
            match probe(&address).await {
                Ok(engine) => {
                    tracing::debug!(address, kind = ?engine.kind, "a container engine answers");
                    return Ok(engine);
                }
                Err(why) => tried.push(format!("`{address}` ({why})")),
            }
        }
        Err(Status::failed_precondition(format!(
            "no container engine is reachable; tried {}. Start Docker or Podman, set DOCKER_HOST \
             to its socket (`unix:///path`), or use a program as `exec:<path>`",
            tried.join(", ")
        )))
    }

    /// Makes a call with a deadline.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        within(CALL_TIMEOUT, call).await
    }

    /// Inspects a container. Between its end and the cleanup after it, Podman reports a state that
    /// Docker's API does not have; a moment later it has exited.
    pub(super) async fn inspect(
        &self,
        name: &str,
    ) -> Result<ContainerInspectResponse, EngineError> {
        // Boxed: calls of the engine are large.
        self.call(Box::pin(async {
            for _ in 0..INSPECT_TRIES {
                match self.docker.inspect_container(name, None).await {
                    Err(Error::JsonDataError { .. }) if self.kind.podman => {
                        tokio::time::sleep(INSPECT_PAUSE).await;
                    }
                    outcome => return outcome,
                }
            }
            self.docker.inspect_container(name, None).await
        }))
        .await
    }
}

async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(time, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(EngineError::Broken(format!(
            "the container engine did not answer within {} s",
            time.as_secs()
        ))),
    }
}

/// The addresses to try, the most likely first.
pub(super) fn addresses(
    configured: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    if let Some(configured) = configured {
        return vec![configured.to_owned()];
    }
    if let Some(host) = variable("DOCKER_HOST") {
        return vec![host];
    }
    let mut addresses = vec!["unix:///var/run/docker.sock".to_owned()];
    let runtime = variable("XDG_RUNTIME_DIR");
    if let Some(runtime) = &runtime {
        addresses.push(format!("unix://{runtime}/docker.sock"));
    }
    if let Some(home) = variable("HOME") {
        addresses.push(format!("unix://{home}/.docker/run/docker.sock"));
        addresses.push(format!("unix://{home}/.docker/desktop/docker.sock"));
    }
    if let Some(runtime) = &runtime {
        addresses.push(format!("unix://{runtime}/podman/podman.sock"));
    }
    addresses.push("unix:///run/podman/podman.sock".to_owned());
    addresses
}

/// Returns the engine at an address, or why there is none.
async fn probe(address: &str) -> Result<Engine, String> {
    let docker = connect(address)?;
    let calls = async {
        // Fails if the engine is too old for this program.
        let docker = docker.negotiate_version().await?;
        let (version, info) = (docker.version().await?, docker.info().await?);
        Ok((docker, version, info))
    };
    let (docker, version, info) =
        within(PROBE_TIMEOUT, calls).await.map_err(|error| error.message().to_owned())?;
    let can_limit = CanLimit::of(&info);
    if !can_limit.memory || !can_limit.processes {
        tracing::warn!(
            address,
            ?can_limit,
            "the container engine cannot limit what containers use; without these limits, an \
             extension may use up the machine's memory or processes"
        );
    }
    let components = version.components.unwrap_or_default();
    let security = info.security_options.unwrap_or_default();
    let kind = EngineKind {
        podman: components.iter().any(|component| component.name.contains("Podman")),
        rootless: security.iter().any(|option| option.contains("name=rootless")),
        desktop: info.operating_system.is_some_and(|system| system.contains("Docker Desktop")),
    };
    Ok(Engine { docker, kind, can_limit })
}

/// Makes a client, which connects with its first call.
fn connect(address: &str) -> Result<Docker, String> {
    let seconds = CALL_TIMEOUT.as_secs();
    let connected = match address.split_once("://") {
        Some(("unix", path)) => {
            if !Path::new(path).exists() {
                return Err("no such socket".to_owned());
            }
            Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION)
        }
        Some(("tcp" | "http", address)) => {
            let address = address.trim_end_matches('/');
            if !is_loopback_address(address) {
                return Err(
                    "the engine must be on this machine, since its containers are reached on \
                            loopback"
                        .to_owned(),
                );
            }
            Docker::connect_with_http(&format!("http://{address}"), seconds, API_DEFAULT_VERSION)
        }
        _ => return Err("must be `unix:///path` or `tcp://127.0.0.1:port`".to_owned()),
    };
    connected.map_err(|error| EngineError::from(error).message().to_owned())
}

fn is_loopback_address(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
