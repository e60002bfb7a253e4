//! Pipelines and the versions of their configurations.
//!
//! There are no deployments: a configuration is live as soon as it is registered, and the version
//! before it is deprecated.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};

use prost::Message as _;
use serde_json::json;
use tonic::Status;

use super::events::{EventScope, number};
use super::history::{History, Order, beginning_with, unreadable};
use super::journal::{Journal, RecordKind};
use super::namespaces::NamespaceTable;
use super::queue::{UnfinishedRuns, dequeue, end_early};
use super::runs::{Ending, run_key};
use super::secrets::{Secret, Secrets};
use super::subscriptions::{Beginning, subscription_size};
use super::usage::{EARLIER_CONFIGS, NamespaceUsage, Usage, size};
use super::{
    By, EventKind, Needs, Page, Store, Tables, check_name, no_namespace, no_pipeline, or_default,
};
use gofer_proto as proto;
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::{self, Pipeline, PipelineConfig, PipelineMetadata, UserPipelineConfig};

#[derive(Default)]
pub(super) struct PipelineTable {
    pub(super) metadata: PipelineMetadata,
    /// The configuration that new runs use.
    pub(super) live: Option<PipelineConfig>,
    pub(super) unfinished: UnfinishedRuns,
    /// Of what is in the history.
    pub(super) usage: Usage,
    /// By extension and label.
    pub(super) subscriptions: BTreeMap<(String, String), proto::PipelineExtensionSubscription>,
    /// By the same. None of those that an earlier version stored.
    pub(super) beginnings: BTreeMap<(String, String), Beginning>,
    pub(super) secrets: Secrets,
}

impl PipelineTable {
    pub(super) fn new(metadata: PipelineMetadata) -> Self {
        Self { metadata, ..Self::default() }
    }

    /// The configuration that new runs use.
    pub(super) fn live(&self) -> Option<&PipelineConfig> {
        self.live.as_ref()
    }

    /// 0 without one.
    pub(super) fn live_version(&self) -> i64 {
        self.live().map_or(0, |live| live.version)
    }

    fn config(&self, history: &History, version: i64) -> Result<PipelineConfig, Status> {
        if let Some(live) = self.live().filter(|it| version == 0 || it.version == version) {
            return Ok(live.clone());
        }
        let Some(record) = history.get(&config_key(&self.metadata, version))? else {
            let PipelineMetadata { namespace, id, .. } = &self.metadata;
            return Err(Status::not_found(format!(
                "the pipeline `{namespace}/{id}` has no configuration of version {version}"
            )));
        };
        PipelineConfig::decode(record).map_err(|_| unreadable("a configuration"))
    }

    /// Bytes of what is in memory, which count as content too.
    pub(super) fn live_bytes(&self) -> u64 {
        let config = self.live.as_ref().map_or(0, config_size);
        let secrets: u64 = self.secrets.values().map(Secret::size).sum();
        let subscriptions: u64 = self.subscriptions.values().map(subscription_size).sum();
        config + secrets + subscriptions
    }
}

/// The key of the record of a configuration that is not live.
pub(super) fn config_key(of: &PipelineMetadata, version: i64) -> Vec<u8> {
    RecordKind::Config.key(&[&of.namespace, &of.id], Some(version))
}

fn earlier_configs(of: &PipelineMetadata) -> Range<Vec<u8>> {
    beginning_with(RecordKind::Config.key(&[&of.namespace, &of.id], None))
}

pub(super) fn config_size(it: &PipelineConfig) -> u64 {
    size(it.encoded_len())
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
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(namespace))?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let namespace = or_default(namespace);
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let NamespaceTable { pipelines, usage, .. } = table;
        let scope = EventScope::Namespace(namespace);
        let mut details = json!({ "namespace_id": namespace, "pipeline_id": config.id });
        let before = pipelines.get(&config.id).and_then(PipelineTable::live);
        let version = before.map_or(1, |it| it.version + 1);
        let config = PipelineConfig {
            namespace: namespace.to_owned(),
            pipeline: config.id,
            version,
            parallelism: config.parallelism,
            name: config.name,
            description: config.description,
            tasks,
            state: PipelineConfigState::Live.into(),
            registered: now,
            deprecated: 0,
        };
        usage.check_content(namespace, 0, config_size(&config))?;
        let id = config.pipeline.clone();
        if !pipelines.contains_key(&id) {
            events.publish(now, EventKind::PipelineRegistered, scope, &details);
        }
        let pipeline = pipelines.entry(id).or_insert_with_key(|id| {
            PipelineTable::new(PipelineMetadata {
                namespace: namespace.to_owned(),
                id: id.to_owned(),
                created: now,
                modified: now,
                state: PipelineState::Active.into(),
            })
        });
        pipeline.deprecate(now, usage, journal)?;
        usage.content_bytes += config_size(&config);
        pipeline.live = Some(config.clone());
        pipeline.metadata.modified = now;
        journal.put_pipeline(&pipeline.metadata);
        journal.put_config(&config);
        details["version"] = version.into();
        events.publish(now, EventKind::PipelineConfigRegistered, scope, &details);
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
        let config = pipeline.config(tables.journal.history(), version)?;
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
        let mut tables = self.change()?;
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
        let scope = EventScope::Namespace(or_default(namespace));
        tables.events.publish(now, kind, scope, &details);
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
        let namespace = or_default(namespace);
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(namespace))?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        // Read before anything changes.
        let pipeline = table.pipelines.get(id).ok_or_else(|| no_pipeline(namespace, id))?;
        let past = pipeline.history(journal.history())?;
        let Some(mut removed) = table.pipelines.remove(id) else {
            return Err(no_pipeline(namespace, id));
        };
        dequeue(queue, &removed);
        let ending = Ending::cancelled(reason);
        let of = (&mut table.usage, &mut removed);
        let ended = end_early(of, None, now, &ending, (events, &mut *journal, queue));
        // What has just ended, too.
        let ended = ended.into_iter().map(|run| run_key(&removed.metadata, run));
        past.into_iter().chain(ended).for_each(|key| journal.write_history(key, None));
        table.usage.remove(&removed.usage);
        let live = removed.live_bytes();
        table.usage.content_bytes = table.usage.content_bytes.saturating_sub(live);
        journal.remove_pipeline(namespace, id);
        journal.remove_usage(&removed.metadata);
        removed.live.iter().for_each(|it| journal.remove_config(it));
        removed.subscriptions.values().for_each(|it| journal.remove_subscription(it));
        removed.secrets.values().for_each(|it| journal.remove_secret(it));
        let version = removed.live_version();
        let subscriptions: Vec<_> = removed.subscriptions.into_values().collect();
        for subscription in &subscriptions {
            tables.by_extension.remove(subscription);
            tables.publish_unsubscription(now, subscription, version);
        }
        let details = json!({ "namespace_id": namespace, "pipeline_id": id });
        let scope = EventScope::Namespace(namespace);
        tables.events.publish(now, EventKind::PipelineDeleted, scope, &details);
        Ok(subscriptions)
    }

    /// One version; 0 is the live one.
    pub(crate) fn config(
        &self,
        namespace: &str,
        pipeline: &str,
        version: i64,
    ) -> Result<PipelineConfig, Status> {
        let tables = self.tables();
        tables.pipeline(namespace, pipeline)?.config(tables.journal.history(), version)
    }

    /// Newest first.
    pub(crate) fn configs(
        &self,
        namespace: &str,
        pipeline: &str,
        page: Page,
    ) -> Result<Vec<PipelineConfig>, Status> {
        let tables = self.tables();
        let pipeline = tables.pipeline(namespace, pipeline)?;
        let (mut configs, mut damaged) = (Vec::from_iter(pipeline.live.clone()), false);
        let earlier = earlier_configs(&pipeline.metadata);
        tables.journal.history().visit(earlier, Order::NewestFirst, |_, record| {
            match PipelineConfig::decode(record) {
                Ok(config) => configs.push(config),
                Err(_) => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        if damaged { Err(unreadable("a configuration")) } else { Ok(page.of(configs.iter())) }
    }

    pub(crate) fn delete_config(
        &self,
        namespace: &str,
        pipeline: &str,
        version: i64,
        by: &By,
    ) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let namespace = or_default(namespace);
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Namespace(namespace))?;
        let Tables { namespaces, events, journal, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let NamespaceTable { pipelines, usage, .. } = table;
        let of = pipelines.get_mut(pipeline).ok_or_else(|| no_pipeline(namespace, pipeline))?;
        let config = of.config(journal.history(), version)?;
        let version = config.version;
        if config.state() == PipelineConfigState::Live {
            return Err(Status::failed_precondition(format!(
                "version {version} of the pipeline `{namespace}/{pipeline}` is live; \
                 register another first",
            )));
        }
        of.forget_config((version, config_size(&config)), usage, journal);
        let details = json!({
            "namespace_id": namespace, "pipeline_id": pipeline, "version": version,
        });
        let scope = EventScope::Namespace(namespace);
        events.publish(now, EventKind::PipelineConfigDeleted, scope, &details);
        Ok(())
    }
}

impl PipelineTable {
    /// Moves the live configuration to the history, and drops the oldest ones there.
    fn deprecate(
        &mut self,
        now: i64,
        usage: &mut NamespaceUsage,
        journal: &mut Journal,
    ) -> Result<(), Status> {
        let mut oldest = None;
        if self.usage.earlier_configs >= EARLIER_CONFIGS {
            let earlier = earlier_configs(&self.metadata);
            // Whether it can be read does not matter any more.
            journal.history().visit_all(earlier, Order::OldestFirst, |key, found| {
                oldest = Some((number(key), size(found.length)));
                ControlFlow::Break(())
            })?;
        }
        let Some(mut config) = self.live.take() else { return Ok(()) };
        if let Some(oldest) = oldest {
            self.forget_config(oldest, usage, journal);
        }
        usage.content_bytes = usage.content_bytes.saturating_sub(config_size(&config));
        config.state = PipelineConfigState::Deprecated.into();
        config.deprecated = now;
        usage.replace_content(&mut self.usage, 0, config_size(&config));
        self.usage.earlier_configs += 1;
        let key = config_key(&self.metadata, config.version);
        journal.write_history(key, Some(config.encode_to_vec().into()));
        journal.put_usage(&self.metadata, &self.usage);
        Ok(())
    }

    /// Drops a configuration that is not live, of this size.
    fn forget_config(
        &mut self,
        (version, bytes): (i64, u64),
        usage: &mut NamespaceUsage,
        journal: &mut Journal,
    ) {
        usage.replace_content(&mut self.usage, bytes, 0);
        self.usage.earlier_configs = self.usage.earlier_configs.saturating_sub(1);
        journal.write_history(config_key(&self.metadata, version), None);
        journal.put_usage(&self.metadata, &self.usage);
    }

    /// The keys of all its records in the history.
    fn history(&self, history: &History) -> Result<Vec<Vec<u8>>, Status> {
        let of = [&*self.metadata.namespace, &self.metadata.id];
        let mut keys = Vec::new();
        for kind in [
            RecordKind::Run,
            RecordKind::Config,
            RecordKind::ObjectInfo,
            RecordKind::ObjectContent,
            RecordKind::RunKey,
        ] {
            keys.append(&mut history.keys(beginning_with(kind.key(&of, None)))?);
        }
        Ok(keys)
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
