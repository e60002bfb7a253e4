//! Extensions as containers of Docker or Podman on this machine.
//!
//! Port 8082 of each is mapped to a free loopback port, its output becomes log events of this
//! process, and it is removed when it has ended. Orphans of a killed core are removed when the
//! engine is first used, and are tried again until they are gone. The supervisor restarts a container that has ended, not the engine.

mod context;
mod engine;
mod image;
mod life;
mod logs;
mod orphans;
mod plan;
mod pull;
mod route;
mod symptom;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Mutex, Weak};

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{LaunchSpec, Launched, Launcher, Process, RETRY_ORPHANS};
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
    orphans: Mutex<Orphans>,
    /// Cancelled when nothing is to be launched any more.
    stopping: CancellationToken,
}

/// Earlier launches that may have left a container, by the digests of their keys.
#[derive(Default)]
struct Orphans {
    /// Those of which that is not known.
    sought: HashSet<[u8; 32]>,
    /// Those that have left none, and have not been reported yet.
    gone: Vec<[u8; 32]>,
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

    /// Removes the containers that were launched with keys of these digests, as soon as there is an
    /// engine. Those of which the engine has none, or no longer, are `gone`. Ends when nothing is to be
    /// launched any more.
    pub(crate) async fn remove_orphans(&self, digests: Vec<[u8; 32]>, gone: impl Fn(&[u8; 32])) {
        lock(&self.orphans).sought.extend(digests);
        let removal = async {
            let mut backoff = RETRY_ORPHANS;
            loop {
                match self.engine().await {
                    Ok(engine) => self.remove_sought(engine).await,
                    // There may never have been any containers.
                    Err(status) => {
                        tracing::debug!(%status, "cannot look for orphaned containers of a killed core");
                    }
                }
                let (ended, is_over) = {
                    let mut orphans = lock(&self.orphans);
                    (std::mem::take(&mut orphans.gone), orphans.sought.is_empty())
                };
                ended.iter().for_each(&gone);
                if is_over {
                    break;
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        };
        let _ = self.stopping.run_until_cancelled(removal).await;
    }

    /// Removes the orphans that are still sought.
    async fn remove_sought(&self, engine: &Engine) {
        let sought = lock(&self.orphans).sought.clone();
        if sought.is_empty() {
            return;
        }
        self.remove_all(engine, &sought).await;
    }

    /// Removes these orphans, and those of other cores that have ended.
    async fn remove_all(&self, engine: &Engine, sought: &HashSet<[u8; 32]>) {
        let Some(left) = orphans::remove_all(engine, sought).await else { return };
        let mut orphans = lock(&self.orphans);
        for launch in sought.iter().filter(|it| !left.orphaned.contains(*it)) {
            if orphans.sought.remove(launch) && !left.owned.contains(launch) {
                orphans.gone.push(*launch);
            }
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
                let sought = lock(&self.orphans).sought.clone();
                self.remove_all(&engine, &sought).await;
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
            let (last, until_gone) = (last.clone(), spec.until_gone.clone());
            |kill| life::run(engine, plan, last, kill, sender, until_gone)
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
