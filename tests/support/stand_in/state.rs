//! What a stand-in knows, which is also what it records for its test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::{self as proto, Event, Initiator, Run, Variable};
use gofer_sdk::PipelineId;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A pipeline of a stand-in. By default it is active, has a configuration and no limit to its
/// parallelism, and its runs are complete at once.
#[derive(Clone)]
pub struct Pipeline {
    pub(super) id: PipelineId,
    parallelism: i64,
    is_active: bool,
    has_config: bool,
    pub(super) runs: Runs,
}

/// How long runs take once they have started.
#[derive(Clone, Copy)]
pub(super) enum Runs {
    Take(Duration),
    /// Until the test completes them.
    Stay,
}

/// The pipeline `[namespace/]id`.
pub fn pipeline(id: impl Into<PipelineId>) -> Pipeline {
    let runs = Runs::Take(Duration::ZERO);
    Pipeline { id: id.into(), parallelism: 0, is_active: true, has_config: true, runs }
}

impl Pipeline {
    /// A run starts when fewer than this many are incomplete, itself included; 0 for no limit.
    #[must_use]
    pub fn parallelism(mut self, parallelism: i64) -> Self {
        self.parallelism = parallelism;
        self
    }

    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.is_active = false;
        self
    }

    /// Registered, but nothing has been deployed.
    #[must_use]
    pub fn without_config(mut self) -> Self {
        self.has_config = false;
        self
    }

    /// How long each run takes once it has started.
    #[must_use]
    pub fn runs_take(mut self, duration: Duration) -> Self {
        self.runs = Runs::Take(duration);
        self
    }

    /// Each run that has started stays so until the test completes it.
    #[must_use]
    pub fn runs_stay(mut self) -> Self {
        self.runs = Runs::Stay;
        self
    }

    pub(super) fn config(&self) -> Option<proto::PipelineConfig> {
        self.has_config.then(|| proto::PipelineConfig {
            namespace: self.id.namespace().to_owned(),
            pipeline: self.id.pipeline().to_owned(),
            version: 1,
            parallelism: self.parallelism,
            name: self.id.pipeline().to_owned(),
            state: PipelineConfigState::Live.into(),
            ..proto::PipelineConfig::default()
        })
    }
}

/// What a stand-in has seen.
#[derive(Default)]
pub struct Recorded {
    /// All runs, in the order in which they were stored.
    pub runs: Vec<Run>,
    /// All events; the number of each is its place, from 1.
    pub events: Vec<Event>,
    /// Connections that were accepted.
    pub connections: usize,
    /// Those of them that have not ended.
    pub open_connections: usize,
    /// The numbers of events that are missing.
    pub(super) missing: BTreeSet<i64>,
    pub(super) calls: BTreeMap<String, Calls>,
    pub(super) pipelines: BTreeMap<PipelineId, Stored>,
    pub(super) subscriptions: Vec<proto::PipelineExtensionSubscription>,
}

#[derive(Default)]
pub(super) struct Calls {
    pub(super) total: usize,
    pub(super) in_flight: usize,
}

/// A pipeline and what belongs to it.
pub(super) struct Stored {
    pub(super) settings: Pipeline,
    created: i64,
    /// The places of its runs among all runs; that of the run 1 is the first.
    runs: Vec<usize>,
    pending: usize,
    incomplete: usize,
    most_pending: usize,
    /// With the time when each was put.
    pub(super) objects: BTreeMap<String, (Bytes, i64)>,
    /// Notified whenever a waiting run may start. They are woken in their order.
    pub(super) changed: Arc<Notify>,
}

impl Stored {
    pub(super) fn new(settings: Pipeline, created: i64) -> Self {
        Self {
            settings,
            created,
            runs: Vec::new(),
            pending: 0,
            incomplete: 0,
            most_pending: 0,
            objects: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    pub(super) fn metadata(&self) -> proto::PipelineMetadata {
        let active = self.settings.is_active;
        let state = if active { PipelineState::Active } else { PipelineState::Disabled };
        proto::PipelineMetadata {
            namespace: self.settings.id.namespace().to_owned(),
            id: self.settings.id.pipeline().to_owned(),
            created: self.created,
            modified: self.created,
            state: state.into(),
        }
    }

    fn update_counts(&mut self, before: RunState, after: RunState) {
        let pending = |state| usize::from(state == RunState::Pending);
        let incomplete =
            |state| usize::from(matches!(state, RunState::Pending | RunState::Running));
        self.pending = self.pending + pending(after) - pending(before);
        self.incomplete = self.incomplete + incomplete(after) - incomplete(before);
        self.most_pending = self.most_pending.max(self.pending);
        self.changed.notify_waiters();
    }
}

impl Recorded {
    /// How often a method was called, whatever the outcome: `StartRun`, or
    /// `EmbeddedCore/GetCapabilities` of another service.
    pub fn calls(&self, method: &str) -> usize {
        self.calls.get(method).map_or(0, |calls| calls.total)
    }

    /// How many calls of a method have not been answered yet.
    pub fn in_flight(&self, method: &str) -> usize {
        self.calls.get(method).map_or(0, |calls| calls.in_flight)
    }

    /// The runs of a pipeline, oldest first.
    pub fn runs_of(
        &self,
        pipeline: impl Into<PipelineId>,
    ) -> impl DoubleEndedIterator<Item = &Run> {
        let places = self.pipelines.get(&pipeline.into()).map_or(&[][..], |stored| &stored.runs);
        places.iter().map(|place| &self.runs[*place])
    }

    pub fn run(&self, pipeline: impl Into<PipelineId>, id: i64) -> Option<&Run> {
        let stored = self.pipelines.get(&pipeline.into())?;
        let place = stored.runs.get(usize::try_from(id).ok()?.checked_sub(1)?)?;
        Some(&self.runs[*place])
    }

    /// How many runs of a pipeline are pending.
    pub fn pending(&self, pipeline: impl Into<PipelineId>) -> usize {
        self.pipelines.get(&pipeline.into()).map_or(0, |stored| stored.pending)
    }

    /// The most that were ever pending at once.
    pub fn most_pending(&self, pipeline: impl Into<PipelineId>) -> usize {
        self.pipelines.get(&pipeline.into()).map_or(0, |stored| stored.most_pending)
    }

    /// How many runs of a pipeline are pending or running.
    pub fn incomplete(&self, pipeline: impl Into<PipelineId>) -> usize {
        self.pipelines.get(&pipeline.into()).map_or(0, |stored| stored.incomplete)
    }

    /// Adds a run of a pipeline that exists, with the next number.
    pub(super) fn add_run(&mut self, mut run: Run) -> Run {
        let id = id_of(&run.namespace, &run.pipeline);
        let stored = self.pipelines.get_mut(&id).expect("a pipeline that the stand-in has");
        stored.runs.push(self.runs.len());
        id.namespace().clone_into(&mut run.namespace);
        run.id = stored.runs.len().try_into().unwrap();
        run.version = 1;
        stored.update_counts(RunState::Unknown, run.state());
        self.runs.push(run.clone());
        run
    }

    /// Stores a new run, pending.
    pub(super) fn store_run(
        &mut self,
        id: &PipelineId,
        initiator: Option<Initiator>,
        variables: Vec<Variable>,
        now: i64,
    ) -> Run {
        let run = self.add_run(Run {
            namespace: id.namespace().to_owned(),
            pipeline: id.pipeline().to_owned(),
            started: now,
            state: RunState::Pending.into(),
            initiator,
            variables,
            ..Run::default()
        });
        self.publish("RUN_STARTED", &run_details(&run), now);
        run
    }

    /// Changes the state of a run that is incomplete. Whether it was.
    fn change_run(&mut self, pipeline: &PipelineId, id: i64, change: impl Fn(&mut Run)) -> bool {
        let place = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let stored = self.pipelines.get_mut(pipeline);
        let (Some(place), Some(stored)) = (place, stored) else { return false };
        let Some(run) = stored.runs.get(place).map(|place| &mut self.runs[*place]) else {
            return false;
        };
        let before = run.state();
        if before == RunState::Complete {
            return false;
        }
        change(run);
        stored.update_counts(before, run.state());
        true
    }

    pub(super) fn run_running(&mut self, pipeline: &PipelineId, id: i64) -> bool {
        self.change_run(pipeline, id, |run| run.state = RunState::Running.into())
    }

    pub(super) fn complete_run(
        &mut self,
        pipeline: &PipelineId,
        id: i64,
        status: RunStatus,
        now: i64,
    ) -> bool {
        let was_incomplete = self.change_run(pipeline, id, |run| {
            run.state = RunState::Complete.into();
            run.status = status.into();
            run.ended = now;
        });
        if was_incomplete && let Some(run) = self.run(pipeline, id) {
            let mut details = run_details(run);
            details["status"] = status.as_str_name().into();
            self.publish("RUN_COMPLETED", &details, now);
        }
        was_incomplete
    }

    /// Whether the waiting for a run's start is over: fewer runs than the parallelism are
    /// incomplete, this one included, or this one has been cancelled.
    pub(super) fn may_start(&self, pipeline: &PipelineId, id: i64) -> bool {
        let Some(stored) = self.pipelines.get(pipeline) else { return true };
        let limit = usize::try_from(stored.settings.parallelism).unwrap_or(0);
        let cancelled = self.run(pipeline, id).is_none_or(|run| run.state() == RunState::Complete);
        cancelled || limit == 0 || stored.incomplete < limit
    }

    /// Adds a pipeline, or gives one that exists other settings.
    pub(super) fn set_pipeline(&mut self, settings: Pipeline, now: i64) {
        if let Some(stored) = self.pipelines.get_mut(&settings.id) {
            stored.settings = settings;
            stored.changed.notify_waiters();
            return;
        }
        let details = pipeline_details(&settings.id);
        self.pipelines.insert(settings.id.clone(), Stored::new(settings, now));
        self.publish("PIPELINE_REGISTERED", &details, now);
    }

    /// Enables or disables a pipeline. Whether it exists.
    pub(super) fn set_active(&mut self, id: &PipelineId, is_active: bool, now: i64) -> bool {
        let Some(stored) = self.pipelines.get_mut(id) else { return false };
        stored.settings.is_active = is_active;
        let kind = if is_active { "PIPELINE_ENABLED" } else { "PIPELINE_DISABLED" };
        self.publish(kind, &pipeline_details(id), now);
        true
    }

    /// Why a pipeline cannot be run now.
    pub(super) fn obstacle(&self, id: &PipelineId) -> Option<&'static str> {
        let settings = &self.pipelines.get(id)?.settings;
        match settings {
            Pipeline { is_active: false, .. } => Some("the pipeline is not active"),
            Pipeline { has_config: false, .. } => Some("the pipeline has no live configuration"),
            _ => None,
        }
    }

    pub(super) fn publish(&mut self, kind: &str, details: &Value, now: i64) {
        self.events.push(Event {
            id: (self.events.len() + 1).try_into().unwrap(),
            r#type: kind.to_owned(),
            details: details.to_string(),
            emitted: now,
        });
    }
}

/// A pipeline as requests name it.
pub(super) fn id_of(namespace: &str, pipeline: &str) -> PipelineId {
    PipelineId::new(namespace, pipeline)
}

fn pipeline_details(id: &PipelineId) -> Value {
    json!({ "namespace_id": id.namespace(), "pipeline_id": id.pipeline() })
}

fn run_details(run: &Run) -> Value {
    let initiator = run.initiator.clone().unwrap_or_default();
    json!({
        "namespace_id": run.namespace,
        "pipeline_id": run.pipeline,
        "run_id": run.id,
        "initiator_type": initiator.r#type().as_str_name(),
        "initiator_name": initiator.name,
    })
}
