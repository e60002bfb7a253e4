//! Runs. If they are executed, a run waits in the [`queue`](super::queue). Otherwise it is
//! complete, and successful, as soon as it has been accepted. Those that are complete are in the
//! [history](super::history).

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;
use tokio::sync::broadcast;
use tonic::Status;

use super::events::{EventScope, number};
use super::history::{History, Order, StoredRun, beginning_with, unreadable};
use super::journal::RecordKind;
use super::namespaces::NamespaceTable;
use super::pipelines::{PipelineTable, variables};
use super::queue::end_early;
use super::run_keys::{self, IDENTITY, RunKey, record_key};
use super::usage::{
    NamespaceUsage, RUN_BYTES_PER_NAMESPACE, RUN_BYTES_PER_PIPELINE, RUNS_PER_PIPELINE, size,
};
use super::{
    By, EventKind, EventLog, Journal, Needs, Page, Store, Tables, initiator, no_namespace,
    no_pipeline, or_default,
};
use crate::grants::Grant;
use gofer_proto::initiator::Type;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_proto::{
    Initiator, PipelineMetadata, RetryRunRequest, Run, RunStatusReason, StartRunRequest, Variable,
};

/// Characters kept of the description of how a run ended.
const DESCRIPTION: usize = 1000;

/// How a run ends.
pub(crate) struct Ending {
    status: RunStatus,
    reason: Option<RunStatusReason>,
}

impl Ending {
    pub(crate) fn success() -> Self {
        Self { status: RunStatus::Successful, reason: None }
    }

    /// Failed, with a sentence that says why.
    pub(crate) fn failure(reason: Reason, description: &str) -> Self {
        Self::with(RunStatus::Failed, reason, description)
    }

    pub(crate) fn cancelled(by: Reason) -> Self {
        Self::with(RunStatus::Cancelled, by, "the run was cancelled")
    }

    pub(crate) fn dropped() -> Self {
        Self::failure(Reason::SchedulerError, "the run's handler was dropped before it ended")
    }

    /// The process that was executing it ended.
    pub(super) fn lost() -> Self {
        Self::failure(Reason::SchedulerError, "the core ended while the run was being executed")
    }

    fn with(status: RunStatus, reason: Reason, description: &str) -> Self {
        let description = description.chars().take(DESCRIPTION).collect();
        Self { status, reason: Some(RunStatusReason { reason: reason.into(), description }) }
    }
}

/// A run that is not complete, with its key.
pub(super) struct UnfinishedRun {
    pub(super) run: Run,
    pub(super) key: Option<RunKey>,
}

/// Completes a run, which moves to the history.
pub(super) fn end(
    (usage, pipeline): (&mut NamespaceUsage, &mut PipelineTable),
    UnfinishedRun { mut run, key }: UnfinishedRun,
    now: i64,
    ending: &Ending,
    (events, journal): (&mut EventLog, &mut Journal),
) -> Run {
    run.ended = now;
    run.state = RunState::Complete.into();
    run.status = ending.status.into();
    run.status_reason.clone_from(&ending.reason);
    let record = StoredRun::encode(&run, key);
    usage.add_run(&mut pipeline.usage, size(record.len()));
    journal.write_history(run_key(&pipeline.metadata, run.id), Some(record.into()));
    journal.put_usage(&pipeline.metadata, &pipeline.usage);
    let details = run_details(&run, Some(ending.status));
    events.publish(now, EventKind::RunCompleted, EventScope::Namespace(&run.namespace), &details);
    run
}

/// The key of the record of a run.
pub(super) fn run_key(of: &PipelineMetadata, run: i64) -> Vec<u8> {
    RecordKind::Run.key(&[&of.namespace, &of.id], Some(run))
}

/// The keys of all complete runs of a pipeline.
pub(super) fn all_runs(of: &PipelineMetadata) -> Range<Vec<u8>> {
    beginning_with(RecordKind::Run.key(&[&of.namespace, &of.id], None))
}

/// The details of the events about a run, as the contract lists them.
#[derive(Serialize)]
struct RunDetails<'a> {
    namespace_id: &'a str,
    pipeline_id: &'a str,
    run_id: i64,
    initiator_type: &'static str,
    initiator_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

impl PipelineTable {
    /// A run, complete or not.
    pub(super) fn run(&self, history: &History, id: i64) -> Result<Run, Status> {
        if let Some(unfinished) = self.unfinished.runs.get(&id) {
            return Ok(unfinished.run.clone());
        }
        let Some(record) = history.get(&run_key(&self.metadata, id))? else {
            return Err(Status::not_found(format!(
                "the pipeline `{}/{}` has no run {id}; it may have been removed",
                self.metadata.namespace, self.metadata.id
            )));
        };
        Run::decode(record).map_err(|_| unreadable("a run"))
    }

    /// Whether there is such a run.
    pub(super) fn check_run(&self, history: &History, id: i64) -> Result<(), Status> {
        if self.unfinished.runs.contains_key(&id) {
            Ok(())
        } else {
            self.run(history, id).map(drop)
        }
    }

    /// Newest first.
    fn runs(&self, history: &History, page: Page) -> Result<Vec<Run>, Status> {
        let mut runs = Vec::new();
        let (mut skip, mut damaged) = (page.offset(), false);
        let mut unfinished = self.unfinished.runs.values().rev().map(|it| &it.run).peekable();
        let mut add = |run: &mut dyn FnMut() -> Option<Run>| {
            if skip > 0 {
                skip -= 1;
            } else if let Some(run) = run() {
                runs.push(run);
            } else {
                damaged = true;
            }
            if runs.len() >= page.limit() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        history.visit(all_runs(&self.metadata), Order::NewestFirst, |key, record| {
            while let Some(run) = unfinished.next_if(|run| run.id > number(key)) {
                add(&mut || Some(run.clone()))?;
            }
            add(&mut || Run::decode(record).ok())
        })?;
        for run in unfinished {
            if add(&mut || Some(run.clone())).is_break() {
                break;
            }
        }
        runs.truncate(page.limit());
        if damaged { Err(unreadable("a run")) } else { Ok(runs) }
    }

    /// Removes the oldest complete runs if there is no room for one more.
    fn forget_oldest_runs(
        &mut self,
        usage: &mut NamespaceUsage,
        journal: &mut Journal,
    ) -> Result<(), Status> {
        let unfinished = self.unfinished.runs.len();
        if unfinished >= RUNS_PER_PIPELINE {
            return Err(Status::resource_exhausted(format!(
                "the pipeline `{}/{}` has reached the limit of {RUNS_PER_PIPELINE} incomplete \
                 runs; cancel some or raise its `parallelism`",
                self.metadata.namespace, self.metadata.id
            )));
        }
        while self.usage.runs > 0
            && (unfinished + usize::try_from(self.usage.runs).unwrap_or(usize::MAX)
                >= RUNS_PER_PIPELINE
                || self.usage.run_bytes >= RUN_BYTES_PER_PIPELINE
                || usage.run_bytes >= RUN_BYTES_PER_NAMESPACE)
        {
            self.forget_oldest_run(usage, journal)?;
        }
        Ok(())
    }

    fn forget_oldest_run(
        &mut self,
        usage: &mut NamespaceUsage,
        journal: &mut Journal,
    ) -> Result<(), Status> {
        let mut oldest = None;
        let history = Arc::clone(journal.history());
        history.visit_all(all_runs(&self.metadata), Order::OldestFirst, |key, found| {
            let run = found.record.and_then(StoredRun::decode);
            oldest = Some((key.to_vec(), found.length, run.map(|(_, key)| key)));
            ControlFlow::Break(())
        })?;
        let Some((place, length, key)) = oldest else {
            // Nothing is left, whatever was counted.
            let bytes = self.usage.run_bytes;
            usage.remove_run(&mut self.usage, bytes);
            self.usage.runs = 0;
            return Ok(());
        };
        let run = number(&place);
        let keys = match key {
            Some(None) => Vec::new(),
            Some(Some(key)) => {
                // Unless a later run has it: then it has been told from this one.
                let record = beginning_with(record_key(&self.metadata, key));
                keys_of(run, &history, record, true)?
            }
            None => {
                let PipelineMetadata { namespace, id, .. } = &self.metadata;
                tracing::warn!(
                    namespace,
                    pipeline = id,
                    run,
                    "a run that is too old to be kept cannot be read: the store is damaged"
                );
                let of = RecordKind::RunKey.key(&[namespace, id], None);
                keys_of(run, &history, beginning_with(of), false)?
            }
        };
        usage.remove_run(&mut self.usage, size(length));
        for place in [place].into_iter().chain(keys) {
            journal.write_history(place, None);
        }
        Ok(())
    }
}

/// Where it is recorded, in this range, that a run has a key; with `damaged`, also what cannot be read.
fn keys_of(
    run: i64,
    history: &History,
    range: Range<Vec<u8>>,
    damaged: bool,
) -> Result<Vec<Vec<u8>>, Status> {
    let mut keys = Vec::new();
    history.visit_all(range, Order::OldestFirst, |key, found| {
        if found.record.map_or(damaged, |record| number(record) == run) {
            keys.push(key.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

impl Store {
    /// Starts a run of the live configuration. A repeated start of a run with a key is answered with
    /// the run that exists.
    ///
    /// Returns the run as it was accepted, pending, as Gofer does: callers should not come to rely
    /// on a run being complete when this returns.
    pub(crate) fn start_run(&self, request: StartRunRequest, by: &By) -> Result<Run, Status> {
        self.authorize(by, Needs::Pipeline(&request.namespace_id, &request.pipeline_id))?;
        let initiator = initiator::of_start(request.initiator, by)?;
        let source = match initiator.r#type() {
            Type::Extension => "EXTENSION",
            Type::Unknown | Type::Bot | Type::Human => "RUN_OPTIONS",
        };
        let variables = variables(request.variables, source);
        initiator::check_variables(&variables)?;
        self.accept_run(&request.namespace_id, &request.pipeline_id, initiator, variables, by)
    }

    /// A new run with the variables of an earlier one, except those that identify the run of an
    /// extension.
    pub(crate) fn retry_run(&self, request: RetryRunRequest, by: &By) -> Result<Run, Status> {
        let RetryRunRequest { namespace_id, pipeline_id, run_id, initiator } = request;
        let Run { initiator: earlier, mut variables, .. } = {
            let tables = self.tables();
            tables.authorize(by, Needs::Pipeline(&namespace_id, &pipeline_id))?;
            tables.pipeline(&namespace_id, &pipeline_id)?.run(tables.journal.history(), run_id)?
        };
        if by.extension().is_some() || earlier.unwrap_or_default().r#type() == Type::Extension {
            variables.retain(|it| !IDENTITY.contains(&&*it.key));
        }
        let initiator = initiator.unwrap_or_default();
        self.accept_run(&namespace_id, &pipeline_id, initiator, variables, by)
    }

    fn accept_run(
        &self,
        namespace: &str,
        id: &str,
        initiator: Initiator,
        variables: Vec<Variable>,
        by: &By,
    ) -> Result<Run, Status> {
        initiator::check_length(&initiator)?;
        let now = self.clock.unix_millis();
        let namespace = or_default(namespace);
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Pipeline(namespace, id))?;
        let label = initiator::check(&initiator, by, &tables.registrations)?;
        let mut key = None;
        if let Some((by, label)) = by.extension().zip(label) {
            run_keys::check(&variables)?;
            key = RunKey::of(&by.name, label, &variables);
        }
        let Tables { namespaces, flags, events, journal, queue, started, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let NamespaceTable { pipelines, usage, .. } = table;
        let pipeline = pipelines.get_mut(id).ok_or_else(|| no_pipeline(namespace, id))?;
        // Whatever has changed since, such as the pipeline being disabled.
        if let Some(key) = key
            && let Some(record) = journal.history().get(&record_key(&pipeline.metadata, key))?
        {
            return pipeline.run(journal.history(), number(&record));
        }
        if flags.ignores_runs {
            return Err(Status::failed_precondition(TURNED_OFF));
        }
        if pipeline.metadata.state() != PipelineState::Active {
            let why = format!("the pipeline `{namespace}/{id}` is disabled; enable it first");
            return Err(Status::failed_precondition(why));
        }
        let Some(live) = pipeline.live() else {
            return Err(Status::failed_precondition(format!(
                "the pipeline `{namespace}/{id}` has no configuration; register one first"
            )));
        };
        let pending = Run {
            namespace: namespace.to_owned(),
            pipeline: id.to_owned(),
            version: live.version,
            id: pipeline.usage.last_run + 1,
            started: now,
            ended: 0,
            state: RunState::Pending.into(),
            status: RunStatus::Unknown.into(),
            status_reason: None,
            initiator: Some(initiator),
            variables,
            store_objects_expired: false,
        };
        pipeline.forget_oldest_runs(usage, journal)?;
        pipeline.usage.last_run = pending.id;
        if let Some(key) = key {
            let number = Bytes::copy_from_slice(&pending.id.to_be_bytes());
            journal.write_history(record_key(&pipeline.metadata, key), Some(number));
        }
        let scope = EventScope::Namespace(namespace);
        events.publish(now, EventKind::RunStarted, scope, &run_details(&pending, None));
        let unfinished = UnfinishedRun { run: pending, key };
        // While the tables are locked, so that watchers see runs in order. Not copied if there are
        // none.
        if self.started.receiver_count() > 0 {
            started.push(unfinished.run.clone());
        }
        let run = if let Some(queue) = queue {
            let run = unfinished.run.clone();
            journal.put_run(&run, key);
            journal.put_usage(&pipeline.metadata, &pipeline.usage);
            queue.wait(pipeline, unfinished);
            self.run_queued.notify_one();
            run
        } else {
            let of = (&mut *usage, &mut *pipeline);
            end(of, unfinished, now, &Ending::success(), (events, journal))
        };
        Ok(run)
    }

    /// Ends a run early. Its handler is dropped soon after.
    pub(crate) fn cancel_run(
        &self,
        namespace: &str,
        id: &str,
        run: i64,
        reason: Reason,
        by: &By,
    ) -> Result<(), Status> {
        if self.cancel_unfinished(namespace, id, Some(run), reason, by)?.is_empty() {
            return Err(Status::failed_precondition(format!(
                "run {run} of the pipeline `{}/{id}` is already complete",
                or_default(namespace)
            )));
        }
        Ok(())
    }

    /// Ends all runs of a pipeline that are not complete, and returns their numbers.
    pub(crate) fn cancel_runs(
        &self,
        namespace: &str,
        id: &str,
        reason: Reason,
        by: &By,
    ) -> Result<Vec<i64>, Status> {
        self.cancel_unfinished(namespace, id, None, reason, by)
    }

    fn cancel_unfinished(
        &self,
        namespace: &str,
        id: &str,
        which: Option<i64>,
        reason: Reason,
        by: &By,
    ) -> Result<Vec<i64>, Status> {
        let now = self.clock.unix_millis();
        let namespace = or_default(namespace);
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Pipeline(namespace, id))?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let NamespaceTable { pipelines, usage, .. } = table;
        let pipeline = pipelines.get_mut(id).ok_or_else(|| no_pipeline(namespace, id))?;
        if let Some(run) = which {
            pipeline.check_run(journal.history(), run)?;
        }
        let ending = Ending::cancelled(reason);
        Ok(end_early((usage, pipeline), which, now, &ending, (events, journal, queue)))
    }

    pub(crate) fn run(&self, namespace: &str, pipeline: &str, id: i64) -> Result<Run, Status> {
        let tables = self.tables();
        tables.pipeline(namespace, pipeline)?.run(tables.journal.history(), id)
    }

    /// Newest first.
    pub(crate) fn list_runs(
        &self,
        namespace: &str,
        pipeline: &str,
        page: Page,
    ) -> Result<Vec<Run>, Status> {
        let tables = self.tables();
        tables.pipeline(namespace, pipeline)?.runs(tables.journal.history(), page)
    }

    /// All that are kept, newest first; none if the pipeline does not exist.
    pub(crate) fn runs(&self, namespace: &str, pipeline: &str) -> Vec<Run> {
        self.list_runs(namespace, pipeline, Page::ALL).unwrap_or_default()
    }

    /// Each run as it is accepted.
    pub(crate) fn run_started(&self) -> broadcast::Receiver<Run> {
        self.started.subscribe()
    }

    /// How often starting runs has been turned off or on, by which a caller notices that it was.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` while it is turned off.
    pub(crate) fn starts_runs(&self) -> Result<u64, Status> {
        let tables = self.tables();
        if tables.flags.ignores_runs {
            return Err(Status::unavailable(TURNED_OFF));
        }
        Ok(tables.switched)
    }

    /// Stops runs from being started, or allows them again. Returns whether they are refused from
    /// now on.
    pub(crate) fn toggle_ignoring_runs(&self, by: &By) -> Result<bool, Status> {
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Management(Grant::Everything))?;
        let Tables { flags, switched, journal, .. } = &mut *tables;
        flags.ignores_runs = !flags.ignores_runs;
        *switched += 1;
        journal.put_flags(*flags);
        Ok(flags.ignores_runs)
    }
}

const TURNED_OFF: &str = "starting runs is turned off; call ToggleEventIngress to turn it on";

fn run_details(run: &Run, status: Option<RunStatus>) -> RunDetails<'_> {
    let (kind, name) = run
        .initiator
        .as_ref()
        .map_or((Type::Unknown, ""), |initiator| (initiator.r#type(), &*initiator.name));
    RunDetails {
        namespace_id: &run.namespace,
        pipeline_id: &run.pipeline,
        run_id: run.id,
        initiator_type: kind.as_str_name(),
        initiator_name: name,
        status: status.map(|status| status.as_str_name()),
    }
}
