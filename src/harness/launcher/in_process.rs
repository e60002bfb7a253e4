//! Extensions as tasks of this process, connected by pipes.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tonic::Status;

use super::{IN_PROCESS, Launched, Launcher, Process, Start};
use crate::client::Dial;
use crate::clock::Clock;
use crate::extension::Extension;
use crate::net::memory::Network;
use crate::net::tls::Trust;
use crate::server::{Server, SystemConfig};

type Serve = Pin<Box<dyn Future<Output = ()> + Send>>;
type Factory = dyn Fn(SystemConfig, crate::net::memory::Listener) -> Serve + Send + Sync;

/// Runs extensions as tasks of this process, connected by pipes.
pub(in crate::harness) struct InProcess {
    gofer: Network,
    trust: Trust,
    clock: Clock,
    factories: Mutex<HashMap<String, Arc<Factory>>>,
}

impl InProcess {
    pub(in crate::harness) fn new(gofer: Network, trust: Trust, clock: Clock) -> Self {
        Self { gofer, trust, clock, factories: Mutex::default() }
    }

    /// Makes a type known, and gives the image that starts it.
    pub(in crate::harness) fn register<E: Extension>(&self) -> String {
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
        let config =
            SystemConfig::from_vars(start.environment("localhost:8082", &start.gofer_host))
                .map_err(|error| Status::internal(error.to_string()))?;
        let network = Network::default();
        let serving = factory(config, network.listen());
        let process = Process::new(None, &start.lives, |kill| async move {
            match kill.run_until_cancelled(serving).await {
                Some(()) => "its task has ended".to_owned(),
                None => "its task was ended".to_owned(),
            }
        });
        Ok(Launched { dial: Dial::Memory(network), process })
    }
}
