//! Extensions as tasks of this process, connected by in-memory pipes.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tonic::Status;

use super::{IN_PROCESS, LaunchSpec, Launched, Launcher, Process};
use crate::sync::lock;
use gofer_net::memory::Network;
use gofer_net::tls::Trust;
use gofer_net::{Clock, Dial};
use gofer_sdk::internal::serve_embedded;
use gofer_sdk::{Extension, SystemConfig};

type Serve = Pin<Box<dyn Future<Output = ()> + Send>>;
type Factory = dyn Fn(SystemConfig, gofer_net::memory::MemoryListener) -> Serve + Send + Sync;

/// Launches extensions as tasks of this process.
pub(crate) struct InProcess {
    gofer: Network,
    trust: Trust,
    clock: Clock,
    factories: Mutex<HashMap<String, Arc<Factory>>>,
}

impl InProcess {
    pub(crate) fn new(gofer: Network, trust: Trust, clock: Clock) -> Self {
        Self { gofer, trust, clock, factories: Mutex::default() }
    }

    /// Registers a type and returns its image.
    pub(crate) fn register<E: Extension>(&self) -> String {
        let image = format!("{IN_PROCESS}{}", std::any::type_name::<E>());
        let (gofer, trust, clock) = (self.gofer.clone(), self.trust.clone(), self.clock);
        let factory = move |config: SystemConfig, listener| -> Serve {
            let (gofer, trust) = (gofer.clone(), trust.clone());
            Box::pin(async move {
                let extension = config.name().to_owned();
                if let Err(error) = serve_embedded::<E>(config, listener, gofer, trust, clock).await
                {
                    tracing::error!(extension, %error, "an extension cannot serve");
                }
            })
        };
        lock(&self.factories).insert(image.clone(), Arc::new(factory));
        image
    }
}

#[async_trait]
impl Launcher for InProcess {
    async fn launch(&self, image: &str, spec: &LaunchSpec) -> Result<Launched, Status> {
        let factory = lock(&self.factories).get(image).map(Arc::clone);
        let factory = factory.ok_or_else(|| {
            Status::not_found("this process has no such extension; install it by its Rust type")
        })?;
        let config = SystemConfig::from_vars(spec.environment("localhost:8082", &spec.gofer_host))
            .map_err(|error| Status::internal(error.to_string()))?;
        let network = Network::default();
        let serving = factory(config, network.listen());
        let process = Process::new(None, spec, |kill| async move {
            match kill.run_until_cancelled(serving).await {
                Some(()) => "its task has ended".to_owned(),
                None => "its task was cancelled".to_owned(),
            }
        });
        Ok(Launched { dial: Dial::Memory(network), process })
    }
}
