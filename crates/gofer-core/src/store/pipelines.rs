//! Pipelines and the versions of their configurations.
//!
//! There are no deployments: a configuration is live as soon as it is registered, and the version
//! before it is deprecated.

use gofer_proto as proto;
use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::json;
use tonic::Status;

use super::objects::Objects;
use super::queue::{UnfinishedRuns, dequeue, end_early};
use super::run_keys::RunKeys;
use super::runs::Ending;
use super::secrets::Secrets;
use super::subscriptions::Beginning;
use super::{
    By, EventKind, Needs, Page, Store, Tables, check_name, no_namespace, no_pipeline, or_default,
};
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::{self, Pipeline, PipelineConfig, PipelineMetadata, UserPipelineConfig};

#[derive(Default)]
pub(super) struct PipelineTable {
    pub(super) metadata: PipelineMetadata,
    pub(super) configs: BTreeMap<i64, PipelineConfig>,
    /// Oldest first: the newest ones, and older ones that are not complete.
    pub(super) runs: VecDeque<proto::Run>,
    pub(super) unfinished: UnfinishedRuns,
    pub(super) last_run: i64,
    pub(super) run_keys: RunKeys,
    /// By extension and label.
    pub(super) subscriptions: BTreeMap<(String, String), proto::PipelineExtensionSubscription>,
    /// By the same. None of those that an earlier version stored.
    pub(super) beginnings: BTreeMap<(String, String), Beginning>,
    pub(super) objects: Objects,
    pub(super) secrets: Secrets,
}

impl PipelineTable {
    pub(super) fn new(metadata: PipelineMetadata) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// The configuration that new runs use.
    pub(super) fn live(&self) -> Option<&PipelineConfig> {
        self.configs.values().next_back()
    }

    /// 0 without one.
    pub(super) fn live_version(&self) -> i64 {
        self.live().map_or(0, |live| live.version)
    }

    fn config(&self, version: i64) -> Result<&PipelineConfig, Status> {
        let found = if version == 0 { self.live() } else { self.configs.get(&version) };
        found.ok_or_else(|| {
            let PipelineMetadata { namespace, id, .. } = &self.metadata;
            Status::not_found(format!(
                "the pipeline `{namespace}/{id}` has no configuration of version {version}"
            ))
        })
    }
}

impl Store {
    /// Stores a configuration as the next version, and creates the pipeline if there is none with
    /// its id.
    pub(crate) fn register_config(
        &self,
        namespace: &str,
        config: UserPipelineConfig,
        by: &By,
    ) -> Result<Pipeline, Status> {
        check_name("pipeline's id", &config.id)?;
        if config.parallelism < 0 {
            return Err(Status::invalid_argument("`parallelism` must not be negative"));
        }
        let tasks = tasks(config.tasks)?;
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.authorize(by, Needs::Namespace(namespace))?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let namespace = or_default(namespace);
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let mut details = json!({ "namespace_id": namespace, "pipeline_id": config.id });
        if !table.pipelines.contains_key(&config.id) {
            events.publish(now, EventKind::PipelineRegistered, &details);
        }
        let pipeline = table.pipelines.entry(config.id).or_insert_with_key(|id| {
            PipelineTable::new(PipelineMetadata {
                namespace: namespace.to_owned(),
                id: id.to_owned(),
                created: now,
                modified: now,
                state: PipelineState::Active.into(),
            })
        });
        let mut version = 1;
        if let Some(mut before) = pipeline.configs.last_entry() {
            version = before.key() + 1;
            let before = before.get_mut();
            before.state = PipelineConfigState::Deprecated.into();
            before.deprecated = now;
            journal.put_config(before);
        }
        let config = PipelineConfig {
            namespace: namespace.to_owned(),
            pipeline: pipeline.metadata.id.clone(),
            version,
            parallelism: config.parallelism,
            name: config.name,
            description: config.description,
            tasks,
            state: PipelineConfigState::Live.into(),
            registered: now,
            deprecated: 0,
        };
        pipeline.configs.insert(version, config.clone());
        pipeline.metadata.modified = now;
        journal.put_pipeline(&pipeline.metadata);
        journal.put_config(&config);
        details["version"] = version.into();
        events.publish(now, EventKind::PipelineConfigRegistered, &details);
        if let Some(queue) = queue {
            // It may allow more parallelism than the one before.
            queue.enqueue(pipeline);
            self.run_queued.notify_one();
        }
        Ok(Pipeline { metadata: Some(pipeline.metadata.clone()), config: Some(config) })
    }

    /// Creates a pipeline that can run, and its namespace, if they are missing.
    pub(crate) fn ensure_pipeline(&self, namespace: &str, pipeline: &str) -> Result<(), Status> {
        if self.tables().pipeline(namespace, pipeline).is_ok() {
            return Ok(());
        }
        let id = or_default(namespace).to_owned();
        if self.namespace(&id).is_err() {
            let request = proto::CreateNamespaceRequest { id, ..Default::default() };
            self.create_namespace(request, &By::Core)?;
        }
        let config = UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
        self.register_config(namespace, config, &By::Core).map(drop)
    }

    /// A pipeline with one version of its configuration; 0 is the live one.
    pub(crate) fn pipeline(
        &self,
        namespace: &str,
        id: &str,
        version: i64,
    ) -> Result<Pipeline, Status> {
        let tables = self.tables();
        let pipeline = tables.pipeline(namespace, id)?;
        let config = pipeline.config(version)?.clone();
        Ok(Pipeline { metadata: Some(pipeline.metadata.clone()), config: Some(config) })
    }

    /// By their ids.
    pub(crate) fn pipelines(
        &self,
        namespace: &str,
        page: Page,
    ) -> Result<Vec<PipelineMetadata>, Status> {
        let tables = self.tables();
        let pipelines = &tables.namespace(namespace)?.pipelines;
        Ok(page.of(pipelines.values().map(|pipeline| &pipeline.metadata)))
    }

    /// Allows or refuses new runs. Does nothing if that is already so.
    pub(crate) fn set_pipeline_state(
        &self,
        namespace: &str,
        id: &str,
        state: PipelineState,
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.authorize(by, Needs::Namespace(namespace))?;
        let metadata = &mut tables.pipeline_mut(namespace, id)?.metadata;
        if metadata.state() == state {
            return Ok(());
        }
        metadata.set_state(state);
        metadata.modified = now;
        let changed = metadata.clone();
        tables.journal.put_pipeline(&changed);
        let kind = match state {
            PipelineState::Disabled => EventKind::PipelineDisabled,
            PipelineState::Active | PipelineState::Unknown => EventKind::PipelineEnabled,
        };
        let details = json!({ "namespace_id": or_default(namespace), "pipeline_id": id });
        tables.events.publish(now, kind, &details);
        Ok(())
    }

    /// Deletes a pipeline with everything in it. Runs that are not complete are cancelled first,
    /// for this reason. Returns its subscriptions, which have yet to be ended in their
    /// extensions.
    pub(crate) fn delete_pipeline(
        &self,
        namespace: &str,
        id: &str,
        reason: RunStatusReasonKind,
        by: &By,
    ) -> Result<Vec<proto::PipelineExtensionSubscription>, Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.authorize(by, Needs::Namespace(namespace))?;
        let removed = tables.namespace_mut(namespace)?.pipelines.remove(id);
        let mut removed = removed.ok_or_else(|| no_pipeline(namespace, id))?;
        let Tables { events, journal, queue, .. } = &mut *tables;
        dequeue(queue, &removed);
        end_early(&mut removed, None, now, &Ending::cancelled(reason), (events, journal, queue));
        tables.journal.remove_pipeline(&removed.metadata.namespace, id);
        removed.configs.values().for_each(|it| tables.journal.remove_config(it));
        removed.runs.iter().for_each(|it| tables.journal.remove_run(it));
        removed.subscriptions.values().for_each(|it| tables.journal.remove_subscription(it));
        removed.objects.values().for_each(|it| tables.journal.remove_object(it));
        removed.secrets.values().for_each(|it| tables.journal.remove_secret(it));
        let version = removed.live_version();
        let subscriptions: Vec<_> = removed.subscriptions.into_values().collect();
        for subscription in &subscriptions {
            tables.by_extension.remove(subscription);
            tables.publish_unsubscription(now, subscription, version);
        }
        let details = json!({ "namespace_id": or_default(namespace), "pipeline_id": id });
        tables.events.publish(now, EventKind::PipelineDeleted, &details);
        Ok(subscriptions)
    }

    /// One version; 0 is the live one.
    pub(crate) fn config(
        &self,
        namespace: &str,
        pipeline: &str,
        version: i64,
    ) -> Result<PipelineConfig, Status> {
        self.tables().pipeline(namespace, pipeline)?.config(version).cloned()
    }

    /// Newest first.
    pub(crate) fn configs(
        &self,
        namespace: &str,
        pipeline: &str,
        page: Page,
    ) -> Result<Vec<PipelineConfig>, Status> {
        let tables = self.tables();
        Ok(page.of(tables.pipeline(namespace, pipeline)?.configs.values().rev()))
    }

    pub(crate) fn delete_config(
        &self,
        namespace: &str,
        pipeline: &str,
        version: i64,
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.authorize(by, Needs::Namespace(namespace))?;
        let table = tables.pipeline_mut(namespace, pipeline)?;
        let config = table.config(version)?;
        let (version, state) = (config.version, config.state());
        if state == PipelineConfigState::Live {
            return Err(Status::failed_precondition(format!(
                "version {version} of the pipeline `{}/{pipeline}` is live; \
                 register another first",
                or_default(namespace)
            )));
        }
        if let Some(removed) = table.configs.remove(&version) {
            tables.journal.remove_config(&removed);
        }
        let details = json!({
            "namespace_id": or_default(namespace), "pipeline_id": pipeline, "version": version,
        });
        tables.events.publish(now, EventKind::PipelineConfigDeleted, &details);
        Ok(())
    }
}

/// The tasks as they are stored, from those of a request.
fn tasks(
    written: Vec<proto::UserPipelineTaskConfig>,
) -> Result<HashMap<String, proto::Task>, Status> {
    let mut tasks = HashMap::with_capacity(written.len());
    for task in written {
        check_name("task's id", &task.id)?;
        let id = task.id.clone();
        let task = proto::Task {
            id: task.id,
            description: task.description,
            image: task.image,
            registry_auth: task.registry_auth,
            // The two enums have the same numbers.
            depends_on: task.depends_on,
            variables: variables(task.variables, "PIPELINE_CONFIG"),
            entrypoint: task.entrypoint,
            command: task.command,
            inject_api_token: task.inject_api_token,
        };
        if tasks.insert(id.clone(), task).is_some() {
            return Err(Status::invalid_argument(format!("there are two tasks `{id}`")));
        }
    }
    for task in tasks.values() {
        if let Some(missing) = task.depends_on.keys().find(|id| !tasks.contains_key(*id)) {
            return Err(Status::invalid_argument(format!(
                "the task `{}` depends on `{missing}`, which is not a task of the pipeline",
                task.id
            )));
        }
    }
    Ok(tasks)
}

/// Sorted, so that equal requests give equal records.
pub(super) fn variables(
    given: HashMap<String, String>,
    source: &'static str,
) -> Vec<proto::Variable> {
    let mut variables: Vec<_> = given
        .into_iter()
        .map(|(key, value)| proto::Variable { key, value, source: source.to_owned() })
        .collect();
    variables.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    variables
}
