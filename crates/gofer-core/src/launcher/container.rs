//! Extensions as containers of Docker or Podman on this machine.
//!
//! Port 8082 of each is mapped to a free one of loopback, what it writes becomes
//! log events of this process, and it is removed when it has ended. Containers
//! that a killed core left behind are removed when the engine is first used.
//! Starting one again that ended is the supervisor's business, not the engine's.

mod builder;
mod engine;
mod image;
mod left_behind;
mod life;
mod logs;
mod owner;
mod plan;
mod pull;
mod route;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, Weak};

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Launched, Launcher, Process, Start};
use crate::contact::lock;
use crate::serving::Serving;
use engine::Engine;
use image::ImageName;
use plan::Plan;

/// Runs extensions as containers.
pub(crate) struct Containers {
    /// Where the engine is, where somebody said.
    address: Option<String>,
    /// The core's API, which holds this.
    serving: Weak<Serving>,
    /// Once one has been found. What is left behind has been removed by then.
    engine: OnceCell<Engine>,
    /// Digests of the keys that an earlier core started extensions with.
    left_behind: Mutex<Vec<[u8; 32]>>,
    /// Nothing is started any more.
    stopping: CancellationToken,
}

impl Containers {
    pub(crate) fn new(address: Option<String>, serving: Weak<Serving>) -> Self {
        Self {
            address,
            serving,
            engine: OnceCell::new(),
            left_behind: Mutex::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// Removes the containers that were started with keys of these digests, now
    /// or as soon as there is an engine.
    pub(crate) async fn remove_left_behind(&self, digests: Vec<[u8; 32]>) {
        *lock(&self.left_behind) = digests;
        if let Some(Err(status)) = self.stopping.run_until_cancelled(self.engine()).await {
            // There may never have been one.
            tracing::debug!(%status, "no containers of a killed core are looked for");
        }
    }

    /// Lets nothing be started any more. What has been started is not touched.
    pub(crate) fn close(&self) {
        self.stopping.cancel();
    }

    async fn engine(&self) -> Result<&Engine, Status> {
        self.engine
            .get_or_try_init(|| async {
                let engine = Engine::find(self.address.as_deref()).await?;
                let starts = lock(&self.left_behind).clone();
                left_behind::remove_left_behind(&engine, &starts).await;
                Ok(engine)
            })
            .await
    }

    async fn plan(&self, image: &ImageName, start: &Start) -> Result<(Engine, Plan), Status> {
        start.progress.tell("looking for the container engine");
        let engine = self.engine().await?;
        pull::ensure(engine, image, start).await?;
        start.progress.tell("starting the container");
        // Gone only with the core.
        let serving = self.serving.upgrade().ok_or_else(stopping)?;
        let route = route::to_core(engine, &serving).await?;
        Ok((engine.clone(), Plan::new(image, start, route)))
    }
}

#[async_trait]
impl Launcher for Containers {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status> {
        let image = ImageName::parse(image)?;
        let planned = self.stopping.run_until_cancelled(self.plan(&image, start)).await;
        let (engine, plan) = planned.ok_or_else(stopping)??;
        let (tell, ready) = oneshot::channel();
        let process = Process::new(None, &start.lives, |kill| life::live(engine, plan, kill, tell));
        // Where this is given up, the process is dropped, and so the container
        // removed.
        let address = ready.await.map_err(|_| stopping())??;
        Ok(Launched { dial: address.into(), process })
    }
}

/// # Errors
///
/// Where it is no image's name.
pub(super) fn check(image: &str) -> Result<(), Status> {
    ImageName::parse(image).map(drop)
}

fn stopping() -> Status {
    Status::aborted("the core is being stopped")
}
