//! Extensions as containers of Docker or Podman on this machine.
//!
//! Port 8082 of each is mapped to a free loopback port, its output becomes log events of this
//! process, and it is removed when it has ended. Orphans of a killed core are removed when the
//! engine is first used. The supervisor restarts a container that has ended, not the engine.

mod context;
mod engine;
mod image;
mod life;
mod logs;
mod orphans;
mod owner;
mod plan;
mod pull;
mod route;
mod symptom;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, Weak};

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{LaunchSpec, Launched, Launcher, Process};
use crate::serving::Serving;
use crate::sync::lock;
use engine::Engine;
use image::ImageName;
use logs::LastLines;
use plan::Plan;

/// Launches extensions as containers.
pub(crate) struct Containers {
    /// The engine's address, if one was configured.
    address: Option<String>,
    /// The core's API, which owns this.
    serving: Weak<Serving>,
    /// Set once one has been found and orphans have been removed.
    engine: OnceCell<Engine>,
    /// Digests of the keys that an earlier core launched extensions with.
    orphans: Mutex<Vec<[u8; 32]>>,
    /// Cancelled when nothing is to be launched any more.
    stopping: CancellationToken,
}

impl Containers {
    pub(crate) fn new(address: Option<String>, serving: Weak<Serving>) -> Self {
        Self {
            address,
            serving,
            engine: OnceCell::new(),
            orphans: Mutex::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// Removes the containers that were launched with keys of these digests, now or as soon as
    /// there is an engine.
    pub(crate) async fn remove_orphans(&self, digests: Vec<[u8; 32]>) {
        *lock(&self.orphans) = digests;
        if let Some(Err(status)) = self.stopping.run_until_cancelled(self.engine()).await {
            // There may never have been any containers.
            tracing::debug!(%status, "cannot look for orphaned containers of a killed core");
        }
    }

    /// Prevents further launches. Running containers are not affected.
    pub(crate) fn close(&self) {
        self.stopping.cancel();
    }

    async fn engine(&self) -> Result<&Engine, Status> {
        self.engine
            .get_or_try_init(|| async {
                let engine = Engine::find(self.address.as_deref()).await?;
                let launches = lock(&self.orphans).clone();
                orphans::remove_all(&engine, &launches).await;
                Ok(engine)
            })
            .await
    }

    async fn prepare(
        &self,
        image: &ImageName,
        spec: &LaunchSpec,
    ) -> Result<(Engine, Plan), Status> {
        spec.progress.report("looking for the container engine");
        let engine = self.engine().await?;
        pull::ensure(engine, image, spec).await?;
        spec.progress.report("starting the container");
        // Gone only if the core is.
        let serving = self.serving.upgrade().ok_or_else(launch_aborted)?;
        let route = route::to_core(engine, &serving).await?;
        Ok((engine.clone(), Plan::new(image, spec, route, engine.can_limit)))
    }
}

#[async_trait]
impl Launcher for Containers {
    async fn launch(&self, image: &str, spec: &LaunchSpec) -> Result<Launched, Status> {
        let image = ImageName::parse(image)?;
        let prepared = self.stopping.run_until_cancelled(self.prepare(&image, spec)).await;
        let (engine, plan) = prepared.ok_or_else(launch_aborted)??;
        let (sender, ready) = oneshot::channel();
        let (last, limits) = (LastLines::default(), spec.limits);
        let life = {
            let last = last.clone();
            |kill| life::run(engine, plan, last, kill, sender)
        };
        let process =
            Process::new(None, spec, life).with_advice(move || symptom::advice(&last, &limits));
        // If this is cancelled, the process is dropped, which removes the container.
        let address = ready.await.map_err(|_| launch_aborted())??;
        Ok(Launched { dial: address.into(), process })
    }
}

/// # Errors
///
/// If it is not a valid image name.
pub(super) fn check_image_name(image: &str) -> Result<(), Status> {
    ImageName::parse(image).map(drop)
}

fn launch_aborted() -> Status {
    Status::aborted("the core is stopping")
}
