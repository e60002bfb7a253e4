//! Extensions as tasks of this process, connected by in-memory pipes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tonic::Status;

use super::{IN_PROCESS, LaunchSpec, Launched, Launcher, Process};
use crate::sync::lock;
use gofer_net::memory::{Faults, MemoryListener, Network};
use gofer_net::tls::Trust;
use gofer_net::{BoxFuture, Clock, Dial};
use gofer_sdk::internal::serve_embedded;
use gofer_sdk::{Extension, RunError, SystemConfig};

/// Serves an extension of some type; see [`serve_embedded`].
type Serve = fn(
    SystemConfig,
    MemoryListener,
    Network,
    Trust,
    Clock,
) -> BoxFuture<'static, Result<(), RunError>>;

/// The name of the core among those that are connected; no extension can have it.
pub(crate) const CORE: &str = "";

/// Launches extensions as tasks of this process.
pub(crate) struct InProcess {
    gofer: Network,
    trust: Trust,
    clock: Clock,
    faults: Option<Arc<dyn Faults>>,
    types: Mutex<HashMap<String, Serve>>,
}

impl InProcess {
    pub(crate) fn new(
        gofer: Network,
        trust: Trust,
        clock: Clock,
        faults: Option<Arc<dyn Faults>>,
    ) -> Self {
        Self { gofer, trust, clock, faults, types: Mutex::default() }
    }

    /// Registers a type and returns its image.
    pub(crate) fn register<E: Extension>(&self) -> String {
        self.register_type(std::any::type_name::<E>(), serve_embedded::<E>)
    }

    fn register_type(&self, name: &str, serve: Serve) -> String {
        let image = format!("{IN_PROCESS}{name}");
        lock(&self.types).insert(image.clone(), serve);
        image
    }
}

#[async_trait]
impl Launcher for InProcess {
    async fn launch(&self, image: &str, spec: &LaunchSpec) -> Result<Launched, Status> {
        let serve = lock(&self.types).get(image).copied();
        let serve = serve.ok_or_else(|| {
            Status::not_found("this process has no such extension; install it by its Rust type")
        })?;
        let config = SystemConfig::from_vars(spec.environment("localhost:8082", &spec.gofer_host))
            .map_err(|error| Status::internal(error.to_string()))?;
        let (name, faults) = (&spec.name, self.faults.as_ref());
        let gofer = self.gofer.with_faults(faults, name, CORE);
        let network = Network::default().with_faults(faults, CORE, name);
        let crash =
            faults.map_or_else(|| Box::pin(std::future::pending()) as _, |it| it.crash(name));
        let (trust, listener) = (self.trust.clone(), network.listen());
        let clock = self.clock;
        let serving = async move {
            let extension = config.name().to_owned();
            if let Err(error) = serve(config, listener, gofer, trust, clock).await {
                tracing::error!(extension, %error, "an extension cannot serve");
            }
        };
        let process = Process::new(None, spec, |kill| async move {
            let end = tokio::select! {
                biased;
                () = kill.cancelled() => "its task was cancelled",
                () = crash => "its task was dropped",
                () = serving => "its task has ended",
            };
            end.to_owned()
        });
        Ok(Launched { dial: Dial::Memory(network), process })
    }
}
