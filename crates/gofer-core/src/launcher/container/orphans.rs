//! Removes orphans: containers that outlived an earlier core, which was killed.
//!
//! They are identified by their labels: a launch that this core's store has not recorded the end
//! of, or an owner that is known to have ended. Containers of a core that runs, or may run, are
//! left alone.

use std::collections::{HashMap, HashSet};

use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::life;
use super::plan::{EXTENSION, LAUNCH, OWNER, launch_label};
use crate::launcher::{owner, recorded};

/// The launches of which the engine has a container.
#[derive(Default)]
pub(super) struct Left {
    /// It could not be removed.
    pub(super) orphaned: HashSet<[u8; 32]>,
    /// It was left alone, since its core may be running.
    pub(super) owned: HashSet<[u8; 32]>,
}

/// Removes them concurrently, those of these launches and those of other cores that have ended.
/// Returns what is left of these launches; `None` if the engine does not say.
pub(super) async fn remove_all(engine: &Engine, launches: &HashSet<[u8; 32]>) -> Option<Left> {
    let ours: HashMap<String, [u8; 32]> =
        launches.iter().map(|digest| (launch_label(digest), *digest)).collect();
    let this = owner::this();
    let filters = HashMap::from([("label".to_owned(), vec![LAUNCH.to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = match engine.call(engine.docker.list_containers(Some(options))).await {
        Ok(containers) => containers,
        Err(error) => {
            let error = error.message();
            tracing::warn!(error, "cannot look for orphaned containers of killed cores");
            return None;
        }
    };
    let mut left = Left::default();
    let mut removals = JoinSet::new();
    for container in containers {
        let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let ended = owner::has_ended(label(OWNER), runs);
        let launch = ours.get(label(LAUNCH)).copied();
        // A copied store has the launches of the original core, which may still be running. So a
        // container is only ours if its owner is unknown, or this process, which has no core with
        // that launch any more.
        let is_ours = launch.is_some_and(|launch| {
            label(OWNER).is_empty()
                || Some(label(OWNER)) == this.as_deref() && !recorded::is_alive(&launch)
        });
        if ended || is_ours {
            let extension = label(EXTENSION);
            tracing::warn!(
                extension,
                container = id,
                "removing an orphaned container of a killed core"
            );
            let engine = engine.clone();
            removals.spawn(async move { (launch, life::remove_container(&engine, &id).await) });
        } else {
            left.owned.extend(launch);
        }
    }
    while let Some(removal) = removals.join_next().await {
        if let Ok((launch, false)) = removal {
            left.orphaned.extend(launch);
        }
    }
    Some(left)
}
