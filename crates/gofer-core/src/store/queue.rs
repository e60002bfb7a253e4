//! Runs that wait and runs that are being executed, if there is an
//! [`executor`](super::super::executor).
//!
//! A run that waits is only a number in its pipeline's [`UnfinishedRuns`]. The parallelism of the
//! live configuration limits how many runs of a pipeline are executed at a time, and the
//! [`RunQueue`] how many of all. Pipelines are served round-robin, so that one with many runs does
//! not hold up the others.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio_util::sync::CancellationToken;

use super::events::EventLog;
use super::journal::Journal;
use super::namespaces::NamespaceTable;
use super::pipelines::PipelineTable;
use super::runs::{Ending, end};
use super::{Store, Tables};
use gofer_proto::Run;
use gofer_proto::run::RunState;

/// The runs of the whole core, if runs are executed.
pub(super) struct RunQueue {
    /// How many runs may be executed at a time.
    most: usize,
    /// The executions that have not ended, by their tickets.
    tickets: HashMap<u64, CancellationToken>,
    last_ticket: u64,
    /// Namespaces and ids of the pipelines that may have a run to execute, round-robin. Each is in
    /// it at most once.
    ready: VecDeque<(String, String)>,
}

/// The runs of one pipeline that wait or are being executed.
#[derive(Default)]
pub(super) struct UnfinishedRuns {
    /// In the order of their numbers.
    waiting: VecDeque<i64>,
    /// Being executed, with their tickets. A cancelled run stays until its handler is gone, so that
    /// no other takes its place before.
    running: BTreeMap<i64, u64>,
    /// Whether the pipeline is in [`RunQueue::ready`].
    is_ready: bool,
}

impl UnfinishedRuns {
    /// All of them, by their numbers.
    fn all(&self) -> Vec<i64> {
        self.running.keys().chain(&self.waiting).copied().collect()
    }
}

impl PipelineTable {
    fn may_execute_more(&self) -> bool {
        let most = self.live().map_or(0, |config| config.parallelism);
        let most = usize::try_from(most).unwrap_or(0);
        !self.unfinished.waiting.is_empty() && (most == 0 || self.unfinished.running.len() < most)
    }
}

impl RunQueue {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tickets: HashMap::new(), last_ticket: 0, ready: VecDeque::new() }
    }

    /// Adds a run of a pipeline.
    pub(super) fn wait(&mut self, pipeline: &mut PipelineTable, run: i64) {
        pipeline.unfinished.waiting.push_back(run);
        self.enqueue(pipeline);
    }

    /// Queues a pipeline if it has a run that may be executed.
    pub(super) fn enqueue(&mut self, pipeline: &mut PipelineTable) {
        if pipeline.may_execute_more() && !pipeline.unfinished.is_ready {
            pipeline.unfinished.is_ready = true;
            let metadata = &pipeline.metadata;
            self.ready.push_back((metadata.namespace.clone(), metadata.id.clone()));
        }
    }

    /// Ends the execution of a run.
    fn cancel(&self, ticket: u64) {
        if let Some(cancel) = self.tickets.get(&ticket) {
            cancel.cancel();
        }
    }

    fn next(
        &mut self,
        namespaces: &mut BTreeMap<String, NamespaceTable>,
        journal: &mut Journal,
    ) -> Option<Job> {
        while self.tickets.len() < self.most {
            let (namespace, id) = self.ready.pop_front()?;
            let table = namespaces.get_mut(&namespace);
            let Some(pipeline) = table.and_then(|table| table.pipelines.get_mut(&id)) else {
                continue;
            };
            pipeline.unfinished.is_ready = false;
            if !pipeline.may_execute_more() {
                continue;
            }
            let Some(number) = pipeline.unfinished.waiting.pop_front() else { continue };
            let Some(run) = pipeline.run_mut(number) else { continue };
            run.state = RunState::Running.into();
            journal.put_run(run);
            let run = run.clone();
            self.last_ticket += 1;
            let (ticket, cancelled) = (self.last_ticket, CancellationToken::new());
            self.tickets.insert(ticket, cancelled.clone());
            pipeline.unfinished.running.insert(number, ticket);
            self.enqueue(pipeline);
            return Some(Job { run, ticket, cancelled });
        }
        None
    }
}

/// A run that is to be executed.
pub(crate) struct Job {
    pub(crate) run: Run,
    /// Identifies this execution: a pipeline that is deleted and registered again has runs of the
    /// same numbers.
    ticket: u64,
    /// Asks the execution to end.
    pub(crate) cancelled: CancellationToken,
}

impl Store {
    /// Settles the unfinished runs of an earlier process, and sets how many runs are executed at a
    /// time; with `None`, runs are not executed and succeed at once.
    pub(crate) fn begin_runs(&self, most: Option<usize>) {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.queue = most.map(RunQueue::new);
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        for pipeline in namespaces.values_mut().flat_map(|it| it.pipelines.values_mut()) {
            let PipelineTable { runs, unfinished, .. } = pipeline;
            for run in runs.iter_mut() {
                match run.state() {
                    RunState::Running => end(run, now, &Ending::lost(), events, journal),
                    RunState::Pending if queue.is_none() => {
                        end(run, now, &Ending::success(), events, journal);
                    }
                    RunState::Pending => unfinished.waiting.push_back(run.id),
                    RunState::Complete | RunState::Unknown => {}
                }
            }
            if let Some(queue) = queue {
                queue.enqueue(pipeline);
            }
        }
    }

    /// Takes the next run that may be executed. It is running from then on, until
    /// [`end_run`](Self::end_run).
    pub(crate) fn next_run(&self) -> Option<Job> {
        let mut tables = self.tables();
        let Tables { namespaces, journal, queue, .. } = &mut *tables;
        queue.as_mut()?.next(namespaces, journal)
    }

    /// Waits until a run may have been queued. For one waiter at a time.
    pub(crate) async fn run_queued(&self) {
        self.run_queued.notified().await;
    }

    /// Records that the execution of a run is over. `ending` counts unless the run has been ended
    /// otherwise.
    pub(crate) fn end_run(&self, job: &Job, ending: &Ending) {
        let now = self.clock.unix_millis();
        let Job { run: Run { namespace, pipeline, id, .. }, ticket, .. } = job;
        let mut tables = self.tables();
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return };
        queue.tickets.remove(ticket);
        let table = namespaces.get_mut(namespace);
        if let Some(pipeline) = table.and_then(|it| it.pipelines.get_mut(pipeline))
            && pipeline.unfinished.running.get(id) == Some(ticket)
        {
            pipeline.unfinished.running.remove(id);
            if let Some(run) = pipeline.run_mut(*id) {
                end(run, now, ending, events, journal);
            }
            queue.enqueue(pipeline);
        }
        self.run_queued.notify_one();
    }

    /// Ends all runs that are being executed; waiting ones stay pending.
    pub(crate) fn end_running(&self, ending: &Ending) {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return };
        for pipeline in namespaces.values_mut().flat_map(|it| it.pipelines.values_mut()) {
            let running: Vec<_> = pipeline.unfinished.running.keys().copied().collect();
            for run in running {
                if let Some(run) = pipeline.run_mut(run) {
                    end(run, now, ending, events, journal);
                }
            }
        }
        queue.tickets.values().for_each(CancellationToken::cancel);
    }
}

/// Ends one run of a pipeline early, or with `None` all. Returns the numbers of those that were not
/// complete.
pub(super) fn end_early(
    pipeline: &mut PipelineTable,
    which: Option<i64>,
    now: i64,
    ending: &Ending,
    (events, journal, queue): (&mut EventLog, &mut Journal, &mut Option<RunQueue>),
) -> Vec<i64> {
    let mut ended = which.map_or_else(|| pipeline.unfinished.all(), |run| vec![run]);
    ended.retain(|&number| {
        let Some(run) = pipeline.run_mut(number) else { return false };
        if run.state() == RunState::Complete {
            return false;
        }
        end(run, now, ending, events, journal);
        if let (Some(queue), Some(ticket)) = (&*queue, pipeline.unfinished.running.get(&number)) {
            queue.cancel(*ticket);
        }
        true
    });
    match which {
        Some(run) => pipeline.unfinished.waiting.retain(|waiting| *waiting != run),
        None => pipeline.unfinished.waiting.clear(),
    }
    ended
}

/// Removes a pipeline that is being deleted.
pub(super) fn dequeue(queue: &mut Option<RunQueue>, pipeline: &PipelineTable) {
    if let Some(queue) = queue
        && pipeline.unfinished.is_ready
    {
        let metadata = &pipeline.metadata;
        queue
            .ready
            .retain(|(namespace, id)| (namespace, id) != (&metadata.namespace, &metadata.id));
    }
}

#[cfg(test)]
mod tests;
