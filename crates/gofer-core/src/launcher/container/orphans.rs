//! Removes orphans: containers that outlived an earlier core, which was killed.
//!
//! They are identified by their labels: a launch that this core's store has not recorded the end
//! of, or an owner that is known to have ended. Containers of a core that runs, or may run, are
//! left alone.

use std::collections::HashMap;

use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::plan::{EXTENSION, LAUNCH, OWNER, launch_label};
use super::{life, owner};

/// Removes them concurrently. Failures are logged, and the next core tries again.
pub(super) async fn remove_all(engine: &Engine, launches: &[[u8; 32]]) {
    let ours: Vec<String> = launches.iter().map(launch_label).collect();
    let this = owner::this();
    let filters = HashMap::from([("label".to_owned(), vec![LAUNCH.to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = match engine.call(engine.docker.list_containers(Some(options))).await {
        Ok(containers) => containers,
        Err(error) => {
            let error = error.message();
            tracing::warn!(error, "cannot look for orphaned containers of killed cores");
            return;
        }
    };
    let mut removals = JoinSet::new();
    for container in containers {
        let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let ended = owner::has_ended(label(OWNER), runs);
        // A copied store has the launches of the original core, which may still be running. So a
        // container is only ours if its owner is this process or unknown.
        let may_be_ours = label(OWNER).is_empty() || Some(label(OWNER)) == this.as_deref();
        let launched_by_us = ours.iter().any(|launch| launch == label(LAUNCH));
        if ended || (launched_by_us && may_be_ours) {
            let extension = label(EXTENSION);
            tracing::warn!(
                extension,
                container = id,
                "removing an orphaned container of a killed core"
            );
            let engine = engine.clone();
            removals.spawn(async move { life::remove_container(&engine, &id).await });
        }
    }
    while removals.join_next().await.is_some() {}
}
