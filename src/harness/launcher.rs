//! Starting an extension: in this process or as a child process. What an
//! extension is told is exactly the environment of the contract, whichever way
//! it is started.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tonic::Status;

use super::certificates::Identity;
use crate::client::Dial;
use crate::clock::Clock;
use crate::extension::Extension;
use crate::net::memory::Network;
use crate::net::tls::Trust;
use crate::server::{PREFIX, Server, SystemConfig};

/// What an image begins with that is a program on this machine. A container
/// image's name has no colon before its first slash but for a port, and no
/// scheme, so the two cannot be confused.
pub(super) const PROGRAM: &str = "exec:";

/// What an image begins with that is a Rust type of this process.
pub(super) const IN_PROCESS: &str = "in-process:";

/// What one start of an extension is told.
pub(super) struct Start {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) identity: Identity,
    pub(super) log_level: String,
    /// Where the core's API is, as seen from the extension.
    pub(super) gofer_host: String,
}

impl Start {
    fn environment(&self, host: &str) -> Vec<(String, String)> {
        [
            ("KEY", self.key.as_str()),
            ("NAME", &self.name),
            ("TLS_CERT", &self.identity.certificate),
            ("TLS_KEY", &self.identity.key),
            ("LOG_LEVEL", &self.log_level),
            ("HOST", host),
            ("GOFER_HOST", &self.gofer_host),
            // The core's certificate is its own; nobody vouches for it.
            ("SKIP_TLS_VERIFY", "true"),
        ]
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .into()
    }
}

/// An extension that has been started; it may not be listening yet.
pub(super) struct Launched {
    pub(super) dial: Dial,
    pub(super) process: Box<dyn Process>,
}

/// What runs the extension.
#[async_trait]
pub(super) trait Process: Send {
    /// The number of the process, where it has one of its own.
    fn id(&self) -> Option<u32>;

    /// How it ended, as a sentence; `None` while it runs.
    fn ended(&mut self) -> Option<String>;

    /// Waits for its end, which has been asked for, and ends it after `patience`.
    async fn reap(&mut self, patience: Duration);
}

#[async_trait]
pub(super) trait Launcher: Send + Sync {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status>;
}

type Serve = Pin<Box<dyn Future<Output = ()> + Send>>;
type Factory = dyn Fn(SystemConfig, crate::net::memory::Listener) -> Serve + Send + Sync;

/// Runs extensions as tasks of this process, connected by pipes.
pub(super) struct InProcess {
    gofer: Network,
    trust: Trust,
    clock: Clock,
    factories: Mutex<HashMap<String, Arc<Factory>>>,
}

impl InProcess {
    pub(super) fn new(gofer: Network, trust: Trust, clock: Clock) -> Self {
        Self { gofer, trust, clock, factories: Mutex::default() }
    }

    /// Makes a type known, and gives the image that starts it.
    pub(super) fn register<E: Extension>(&self) -> String {
        let image = format!("{IN_PROCESS}{}", std::any::type_name::<E>());
        let (gofer, trust, clock) = (self.gofer.clone(), self.trust.clone(), self.clock);
        let factory = move |config, listener| -> Serve {
            let server = Server::<E>::new(config).into_core().embedded(
                listener,
                gofer.clone(),
                trust.clone(),
                clock,
            );
            Box::pin(async move {
                if let Err(error) = server.serve().await {
                    tracing::error!(%error, "an extension cannot serve");
                }
            })
        };
        let mut factories = self.factories.lock().unwrap_or_else(PoisonError::into_inner);
        factories.insert(image.clone(), Arc::new(factory));
        image
    }
}

#[async_trait]
impl Launcher for InProcess {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status> {
        let factory = {
            let factories = self.factories.lock().unwrap_or_else(PoisonError::into_inner);
            factories.get(image).map(Arc::clone)
        };
        let factory = factory.ok_or_else(|| {
            Status::not_found("this process has no such extension; install it by its Rust type")
        })?;
        let config = SystemConfig::from_vars(start.environment("localhost:8082"))
            .map_err(|error| Status::internal(error.to_string()))?;
        let network = Network::default();
        let task = tokio::spawn(factory(config, network.listen()));
        Ok(Launched { dial: Dial::Memory(network), process: Box::new(Task(task)) })
    }
}

struct Task(JoinHandle<()>);

#[async_trait]
impl Process for Task {
    fn id(&self) -> Option<u32> {
        None
    }

    fn ended(&mut self) -> Option<String> {
        self.0.is_finished().then(|| "its task has ended".to_owned())
    }

    async fn reap(&mut self, patience: Duration) {
        if tokio::time::timeout(patience, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs extensions as child processes on this machine.
pub(super) struct ChildProcess;

#[async_trait]
impl Launcher for ChildProcess {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status> {
        let program = image.strip_prefix(PROGRAM).unwrap_or(image);
        let address = free_address().await.map_err(|error| {
            Status::resource_exhausted(format!("no free port on loopback: {error}"))
        })?;
        let child = Command::new(program)
            .env_clear()
            .envs(start.environment(&address.to_string()))
            .stdin(Stdio::null())
            // A group of its own: Ctrl-C is for the core, which then stops its
            // extensions in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Status::failed_precondition(format!("cannot start the program: {error}"))
            })?;
        Ok(Launched { dial: Dial::Tcp(address.into()), process: Box::new(Program(child)) })
    }
}

/// A port that nobody uses at the moment. The extension binds it itself, a few
/// milliseconds later; what got in between makes the start fail, not go wrong,
/// since the extension's certificate is checked.
async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

struct Program(Child);

#[async_trait]
impl Process for Program {
    fn id(&self) -> Option<u32> {
        self.0.id()
    }

    fn ended(&mut self) -> Option<String> {
        match self.0.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the process has ended: {status}")),
            Err(error) => Some(format!("the process cannot be watched: {error}")),
        }
    }

    async fn reap(&mut self, patience: Duration) {
        if !matches!(tokio::time::timeout(patience, self.0.wait()).await, Ok(Ok(_)))
            && let Err(error) = self.0.kill().await
        {
            tracing::warn!(%error, "an extension's process cannot be killed");
        }
    }
}
