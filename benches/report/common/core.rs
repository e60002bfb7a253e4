//! An embedded core on a thread and a runtime of its own, so that the measuring process may be busy
//! with other things.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gofer_core::{Core, CoreBuilder, Installed, NO_SETTINGS};
use gofer_proto as proto;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Result;
use super::gofer::Arrival;
use super::probe::due;
use super::roles::{Role, named};

pub(crate) struct RealCore {
    core: Core,
    runtime: Handle,
}

fn pipeline(n: usize) -> String {
    format!("default/pipeline-{n:07}")
}

/// A request as an extension makes it.
pub(crate) fn run_start(pipeline_id: String) -> proto::StartRunRequest {
    proto::StartRunRequest {
        pipeline_id,
        initiator: Some(proto::Initiator {
            name: "interval (every-so-often)".to_owned(),
            reason: "the interval elapsed".to_owned(),
            ..proto::Initiator::default()
        }),
        ..proto::StartRunRequest::default()
    }
}

impl RealCore {
    pub(crate) async fn start() -> Result<Self> {
        Self::with(Core::builder().listen(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn with(builder: CoreBuilder) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        // Runs until the process ends.
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        let core = handle.spawn(builder.start()).await?.map_err(|error| error.to_string())?;
        Ok(Self { core, runtime: handle })
    }

    /// Installs this program in a role, as a process.
    pub(crate) async fn install(&self, role: Role) -> Result<Installed> {
        let (core, program) = (self.core.clone(), named(role)?);
        let install = async move { core.install_program("ticks", &program, NO_SETTINGS).await };
        Ok(self.runtime.spawn(install).await?.map_err(|error| error.to_string())?)
    }

    /// Subscribes so many pipelines, so many at once.
    pub(crate) async fn subscribe_all(
        &self,
        extension: &Installed,
        count: usize,
        in_flight: usize,
        every: &'static str,
    ) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..in_flight {
            let (extension, next) = (extension.clone(), Arc::clone(&next));
            let work = async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok::<_, gofer_sdk::Error>(());
                    }
                    extension.subscribe(pipeline(n), "label", [("every", every)]).await?;
                }
            };
            workers.spawn_on(work, &self.runtime);
        }
        while let Some(worker) = workers.join_next().await {
            worker?.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// All runs that ticks have started.
    pub(crate) async fn arrivals(&self, count: usize) -> Result<Vec<Arrival>> {
        let core = self.core.clone();
        let all = async move {
            let runs = (0..count).flat_map(|n| core.runs(pipeline(n)));
            let arrival = |run: gofer_sdk::RunInfo| {
                let due = due(run.reason())?;
                // Any moment of that millisecond: the last.
                let started = run.started().duration_since(std::time::UNIX_EPOCH).ok()?;
                let at = i64::try_from(started.as_nanos()).ok()? + 999_999;
                Some(Arrival { pipeline: run.pipeline().pipeline().to_owned(), due, at })
            };
            runs.filter_map(arrival).collect()
        };
        Ok(self.runtime.spawn(all).await?)
    }

    /// A client that may do everything.
    pub(crate) fn client(&self) -> &gofer_sdk::Gofer {
        self.core.client()
    }

    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.runtime.spawn(async move { self.core.stop().await }).await?)
    }
}
