//! Runs. If they are executed, a run waits in the [`queue`](super::queue). Otherwise it is
//! complete, and successful, as soon as it has been accepted.

use serde::Serialize;
use tokio::sync::broadcast;
use tonic::Status;

use super::pipelines::{PipelineTable, variables};
use super::queue::end_early;
use super::run_keys::{self, IDENTITY, RunKey};
use super::{
    By, EventKind, EventLog, Journal, Needs, Page, RUNS_PER_PIPELINE, Store, Tables, initiator,
    no_namespace, no_pipeline, or_default,
};
use crate::grants::Grant;
use gofer_proto::initiator::Type;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_proto::{Initiator, RetryRunRequest, Run, RunStatusReason, StartRunRequest, Variable};

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

    /// The process that was executing it ended.
    pub(super) fn lost() -> Self {
        Self::failure(Reason::SchedulerError, "the core ended while the run was being executed")
    }

    fn with(status: RunStatus, reason: Reason, description: &str) -> Self {
        let description = description.chars().take(DESCRIPTION).collect();
        Self { status, reason: Some(RunStatusReason { reason: reason.into(), description }) }
    }
}

/// Completes a run, unless it is complete.
pub(super) fn end(
    run: &mut Run,
    now: i64,
    ending: &Ending,
    events: &mut EventLog,
    journal: &mut Journal,
) {
    if run.state() == RunState::Complete {
        return;
    }
    run.ended = now;
    run.state = RunState::Complete.into();
    run.status = ending.status.into();
    run.status_reason.clone_from(&ending.reason);
    journal.put_run(run);
    events.publish(now, EventKind::RunCompleted, &run_details(run, Some(ending.status)));
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
    pub(super) fn run(&self, id: i64) -> Result<&Run, Status> {
        let place = self.runs.binary_search_by_key(&id, |run| run.id).ok();
        place.and_then(|place| self.runs.get(place)).ok_or_else(|| {
            Status::not_found(format!(
                "the pipeline `{}/{}` has no run {id}; it may have been removed",
                self.metadata.namespace, self.metadata.id
            ))
        })
    }

    pub(super) fn run_mut(&mut self, id: i64) -> Option<&mut Run> {
        let place = self.runs.binary_search_by_key(&id, |run| run.id).ok()?;
        self.runs.get_mut(place)
    }

    /// Removes the oldest complete run if there is no room for one more.
    fn forget_oldest_run(&mut self, journal: &mut Journal) -> Result<(), Status> {
        if self.runs.len() < RUNS_PER_PIPELINE {
            return Ok(());
        }
        let over = self.runs.iter().position(|run| run.state() == RunState::Complete);
        let Some(oldest) = over.and_then(|place| self.runs.remove(place)) else {
            return Err(Status::resource_exhausted(format!(
                "the pipeline `{}/{}` has reached the limit of {RUNS_PER_PIPELINE} incomplete \
                 runs; cancel some or raise its `parallelism`",
                self.metadata.namespace, self.metadata.id
            )));
        };
        journal.remove_run(&oldest);
        self.run_keys.remove(oldest.id);
        Ok(())
    }
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
            tables.pipeline(&namespace_id, &pipeline_id)?.run(run_id)?.clone()
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
        let mut tables = self.tables();
        tables.authorize(by, Needs::Pipeline(namespace, id))?;
        let label = initiator::check(&initiator, by, &tables.registrations)?;
        let mut key = None;
        if let Some((by, label)) = by.extension().zip(label) {
            run_keys::check(&variables)?;
            key = RunKey::of(&by.name, label, &variables);
        }
        let Tables { namespaces, flags, events, journal, queue, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let pipeline = table.pipelines.get_mut(id).ok_or_else(|| no_pipeline(namespace, id))?;
        // Whatever has changed since, such as the pipeline being disabled.
        if let Some(run) = key.and_then(|key| pipeline.run_keys.find(key)) {
            return pipeline.run(run).cloned();
        }
        if flags.ignores_runs {
            return Err(Status::failed_precondition(
                "starting runs is turned off; call ToggleEventIngress to turn it on",
            ));
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
            id: pipeline.last_run + 1,
            started: now,
            ended: 0,
            state: RunState::Pending.into(),
            status: RunStatus::Unknown.into(),
            status_reason: None,
            initiator: Some(initiator),
            variables,
            store_objects_expired: false,
        };
        pipeline.forget_oldest_run(journal)?;
        pipeline.last_run = pending.id;
        if let Some(key) = key {
            pipeline.run_keys.insert(key, pending.id);
        }
        events.publish(now, EventKind::RunStarted, &run_details(&pending, None));
        let mut run = pending.clone();
        if let Some(queue) = queue {
            journal.put_run(&run);
            pipeline.runs.push_back(run.clone());
            queue.wait(pipeline, run.id);
            self.run_queued.notify_one();
        } else {
            end(&mut run, now, &Ending::success(), events, journal);
            pipeline.runs.push_back(run.clone());
        }
        // While the tables are locked, so that watchers see runs in order. Not copied if there are
        // none.
        if self.started.receiver_count() > 0 {
            let _ = self.started.send(pending);
        }
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
        let mut tables = self.tables();
        tables.authorize(by, Needs::Pipeline(namespace, id))?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let table = namespaces.get_mut(namespace).ok_or_else(|| no_namespace(namespace))?;
        let pipeline = table.pipelines.get_mut(id).ok_or_else(|| no_pipeline(namespace, id))?;
        if let Some(run) = which {
            pipeline.run(run)?;
        }
        let ending = Ending::cancelled(reason);
        Ok(end_early(pipeline, which, now, &ending, (events, journal, queue)))
    }

    pub(crate) fn run(&self, namespace: &str, pipeline: &str, id: i64) -> Result<Run, Status> {
        self.tables().pipeline(namespace, pipeline)?.run(id).cloned()
    }

    /// Newest first.
    pub(crate) fn list_runs(
        &self,
        namespace: &str,
        pipeline: &str,
        page: Page,
    ) -> Result<Vec<Run>, Status> {
        let tables = self.tables();
        Ok(page.of(tables.pipeline(namespace, pipeline)?.runs.iter().rev()))
    }

    /// All that are kept, newest first; none if the pipeline does not exist.
    pub(crate) fn runs(&self, namespace: &str, pipeline: &str) -> Vec<Run> {
        let tables = self.tables();
        let table = tables.pipeline(namespace, pipeline);
        table.map_or_else(|_| Vec::new(), |table| table.runs.iter().rev().cloned().collect())
    }

    /// Each run as it is accepted.
    pub(crate) fn run_started(&self) -> broadcast::Receiver<Run> {
        self.started.subscribe()
    }

    /// Stops runs from being started, or allows them again. Returns whether they are refused from
    /// now on.
    pub(crate) fn toggle_ignoring_runs(&self, by: &By) -> Result<bool, Status> {
        let mut tables = self.tables();
        tables.authorize(by, Needs::Management(Grant::Everything))?;
        let Tables { flags, journal, .. } = &mut *tables;
        flags.ignores_runs = !flags.ignores_runs;
        journal.put_flags(*flags);
        Ok(flags.ignores_runs)
    }
}

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
