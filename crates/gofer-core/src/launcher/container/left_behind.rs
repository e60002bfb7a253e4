//! Removes the containers that an earlier, killed core left behind.
//!
//! They are known by their labels: of a start that this core's store still has
//! for one that has not ended, or of an owner that is known to have ended. What
//! belongs to a core that lives, or may live, is left alone.

use std::collections::HashMap;

use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::life::remove;
use super::owner;
use super::plan::{EXTENSION, OWNER, START, start_label};

/// Removes them, side by side. What fails is logged and tried by the next core.
pub(super) async fn remove_left_behind(engine: &Engine, starts: &[[u8; 32]]) {
    let ours: Vec<String> = starts.iter().map(start_label).collect();
    let this = owner::this();
    let filters = HashMap::from([("label".to_owned(), vec![START.to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = match engine.call(engine.docker.list_containers(Some(options))).await {
        Ok(containers) => containers,
        Err(trouble) => {
            let why = trouble.said();
            tracing::warn!(why, "containers of killed cores cannot be looked for");
            return;
        }
    };
    let mut removals = JoinSet::new();
    for container in containers {
        let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let dead = owner::is_dead(label(OWNER), runs);
        // A copy of a store has the starts of the core that it was copied from,
        // which may live: its own process and nobody's are this core's.
        let may_be_ours = label(OWNER).is_empty() || Some(label(OWNER)) == this.as_deref();
        let started_by_us = ours.iter().any(|start| start == label(START));
        if dead || (started_by_us && may_be_ours) {
            let extension = label(EXTENSION);
            tracing::warn!(extension, container = id, "a container of a killed core is removed");
            let engine = engine.clone();
            removals.spawn(async move { remove(&engine, &id).await });
        }
    }
    while removals.join_next().await.is_some() {}
}
