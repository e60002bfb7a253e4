//! Runs that wait and runs that are being executed, if there is an
//! [`executor`](super::super::executor).
//!
//! A run that waits is only a number in its pipeline's [`UnfinishedRuns`]. The parallelism of the
//! live configuration limits how many runs of a pipeline are executed at a time, and the
//! [`RunQueue`] how many of all. Pipelines are served round-robin, so that one with many runs does
//! not hold up the others.

use std::collections::{BTreeMap, VecDeque};

use tokio_util::sync::CancellationToken;

use super::events::EventLog;
use super::journal::Journal;
use super::namespaces::NamespaceTable;
use super::pipelines::PipelineTable;
use super::runs::{Ending, UnfinishedRun, end};
use super::usage::NamespaceUsage;
use super::{Mark, Store, Tables};
use gofer_proto::Run;
use gofer_proto::run::RunState;
use tonic::Status;

/// The runs of the whole core, if runs are executed.
pub(super) struct RunQueue {
    /// How many runs may be executed at a time.
    most: usize,
    /// The executions that have not been released, by their tickets.
    tickets: BTreeMap<u64, Execution>,
    last_ticket: u64,
    /// Namespaces and ids of the pipelines that may have a run to execute, round-robin. Each is in
    /// it at most once.
    ready: VecDeque<(String, String)>,
}

#[cfg_attr(not(feature = "store"), expect(dead_code, reason = "nothing is rolled back"))]
struct Execution {
    cancel: CancellationToken,
    namespace: String,
    pipeline: String,
    run: i64,
}

/// The runs of one pipeline that are not complete.
#[derive(Default)]
pub(super) struct UnfinishedRuns {
    /// All of them, by their numbers.
    pub(super) runs: BTreeMap<i64, UnfinishedRun>,
    /// In the order of their numbers.
    waiting: VecDeque<i64>,
    /// Being executed, with their tickets. A cancelled run stays until its handler is gone, so that
    /// no other takes its place before.
    running: BTreeMap<i64, u64>,
    /// Whether the pipeline is in [`RunQueue::ready`].
    is_ready: bool,
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
        Self { most, tickets: BTreeMap::new(), last_ticket: 0, ready: VecDeque::new() }
    }

    /// Adds a run of a pipeline.
    pub(super) fn wait(&mut self, pipeline: &mut PipelineTable, run: UnfinishedRun) {
        let id = run.run.id;
        pipeline.unfinished.runs.insert(id, run);
        pipeline.unfinished.waiting.push_back(id);
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
        if let Some(execution) = self.tickets.get(&ticket) {
            execution.cancel.cancel();
        }
    }

    fn next(
        &mut self,
        namespaces: &mut BTreeMap<String, NamespaceTable>,
        journal: &mut Journal,
        mark: Mark,
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
            let Some(UnfinishedRun { run, key }) = pipeline.unfinished.runs.get_mut(&number) else {
                continue;
            };
            run.state = RunState::Running.into();
            journal.put_run(run, *key);
            let run = run.clone();
            self.last_ticket += 1;
            let (ticket, cancelled) = (self.last_ticket, CancellationToken::new());
            let cancel = cancelled.clone();
            self.tickets.insert(ticket, Execution { cancel, namespace, pipeline: id, run: number });
            pipeline.unfinished.running.insert(number, ticket);
            self.enqueue(pipeline);
            return Some(Job { run, mark, ticket, cancelled });
        }
        None
    }
}

/// A run that is to be executed.
pub(crate) struct Job {
    pub(crate) run: Run,
    /// It may be executed once everything since then is on disk.
    pub(crate) mark: Mark,
    /// Identifies this execution: a pipeline that is deleted and registered again has runs of the
    /// same numbers.
    ticket: u64,
    /// Asks the execution to end.
    pub(crate) cancelled: CancellationToken,
}

impl Tables {
    /// After the tables have become what is on disk: has the runs wait that wait there. What is being
    /// executed goes on, unless it has not begun there.
    #[cfg(feature = "store")]
    pub(super) fn restore_queue(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        queue.ready.clear();
        let mut tickets = BTreeMap::new();
        for (ticket, it) in &queue.tickets {
            tickets.insert((&*it.namespace, &*it.pipeline, it.run), *ticket);
        }
        let mut ready = Vec::new();
        for pipeline in self.namespaces.values_mut().flat_map(|it| it.pipelines.values_mut()) {
            let PipelineTable { metadata, unfinished, .. } = &mut *pipeline;
            for (id, UnfinishedRun { run, .. }) in &unfinished.runs {
                let ticket = tickets.get(&(&*metadata.namespace, &*metadata.id, *id));
                match (run.state(), ticket) {
                    (RunState::Running, Some(ticket)) => {
                        unfinished.running.insert(*id, *ticket);
                    }
                    (RunState::Running, None) => {}
                    _ => unfinished.waiting.push_back(*id),
                }
            }
            ready.push(pipeline);
        }
        drop(tickets);
        for pipeline in ready {
            queue.enqueue(pipeline);
        }
    }
}

impl Store {
    /// Settles the unfinished runs of an earlier process, and sets how many runs are executed at a
    /// time; with `None`, runs are not executed and succeed at once.
    pub(crate) fn begin_runs(&self, most: Option<usize>) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.queue = most.map(RunQueue::new);
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        for NamespaceTable { pipelines, usage, .. } in namespaces.values_mut() {
            for pipeline in pipelines.values_mut() {
                for (id, unfinished) in std::mem::take(&mut pipeline.unfinished.runs) {
                    let ending = match unfinished.run.state() {
                        RunState::Running => Ending::lost(),
                        _ if queue.is_none() => Ending::success(),
                        _ => {
                            pipeline.unfinished.runs.insert(id, unfinished);
                            pipeline.unfinished.waiting.push_back(id);
                            continue;
                        }
                    };
                    journal.remove_run(&unfinished.run);
                    end(
                        (&mut *usage, &mut *pipeline),
                        unfinished,
                        now,
                        &ending,
                        (&mut *events, &mut *journal),
                    );
                }
                if let Some(queue) = queue {
                    queue.enqueue(pipeline);
                }
            }
        }
        Ok(())
    }

    /// Takes the next run that may be executed. It is running from then on, until
    /// [`end_run`](Self::end_run). None is taken while that cannot be stored.
    pub(crate) fn next_run(&self) -> Option<Job> {
        let mark = self.mark();
        let mut tables = self.change().ok()?;
        let Tables { namespaces, journal, queue, .. } = &mut *tables;
        queue.as_mut()?.next(namespaces, journal, mark)
    }

    /// Waits until a run may have been queued. For one waiter at a time.
    pub(crate) async fn run_queued(&self) {
        self.run_queued.notified().await;
    }

    /// Records that the execution of a run is over. `ending` counts unless the run has been ended
    /// otherwise.
    ///
    /// # Errors
    ///
    /// If that cannot be stored. It can be tried again.
    pub(crate) fn end_run(&self, job: &Job, ending: &Ending) -> Result<(), Status> {
        let now = self.clock.unix_millis();
        let Job { run: Run { namespace, pipeline, id, .. }, ticket, .. } = job;
        let mut tables = self.change()?;
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return Ok(()) };
        if let Some(NamespaceTable { pipelines, usage, .. }) = namespaces.get_mut(namespace)
            && let Some(pipeline) = pipelines.get_mut(pipeline)
            && pipeline.unfinished.running.get(id) == Some(ticket)
        {
            pipeline.unfinished.running.remove(id);
            end_unfinished((usage, &mut *pipeline), *id, now, ending, (events, journal));
            queue.enqueue(pipeline);
        }
        self.run_queued.notify_one();
        Ok(())
    }

    /// Another run may take the place of an execution, whose end has been stored.
    pub(crate) fn release(&self, job: &Job) {
        if let Some(queue) = &mut self.tables().queue {
            queue.tickets.remove(&job.ticket);
        }
        self.run_queued.notify_one();
    }

    /// Ends all runs that are being executed; waiting ones stay pending.
    pub(crate) fn end_running(&self, ending: &Ending) {
        let now = self.clock.unix_millis();
        // Otherwise they are lost, which is noticed by the next core.
        let Ok(mut tables) = self.change() else { return };
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return };
        for NamespaceTable { pipelines, usage, .. } in namespaces.values_mut() {
            for pipeline in pipelines.values_mut() {
                let running: Vec<_> = pipeline.unfinished.running.keys().copied().collect();
                for run in running {
                    let of = (&mut *usage, &mut *pipeline);
                    end_unfinished(of, run, now, ending, (&mut *events, &mut *journal));
                }
            }
        }
        queue.tickets.values().for_each(|it| it.cancel.cancel());
    }
}

/// Ends a run, unless it is complete. Returns whether it did.
fn end_unfinished(
    (usage, pipeline): (&mut NamespaceUsage, &mut PipelineTable),
    run: i64,
    now: i64,
    ending: &Ending,
    (events, journal): (&mut EventLog, &mut Journal),
) -> bool {
    let Some(unfinished) = pipeline.unfinished.runs.remove(&run) else { return false };
    journal.remove_run(&unfinished.run);
    end((usage, pipeline), unfinished, now, ending, (events, journal));
    true
}

/// Ends one run of a pipeline early, or with `None` all. Returns the numbers of those that were not
/// complete.
pub(super) fn end_early(
    (usage, pipeline): (&mut NamespaceUsage, &mut PipelineTable),
    which: Option<i64>,
    now: i64,
    ending: &Ending,
    (events, journal, queue): (&mut EventLog, &mut Journal, &mut Option<RunQueue>),
) -> Vec<i64> {
    let all = || {
        let UnfinishedRuns { running, waiting, .. } = &pipeline.unfinished;
        running.keys().chain(waiting).copied().collect()
    };
    let mut ended = which.map_or_else(all, |run| vec![run]);
    ended.retain(|&number| {
        let of = (&mut *usage, &mut *pipeline);
        let is_ended = end_unfinished(of, number, now, ending, (&mut *events, &mut *journal));
        let running = pipeline.unfinished.running.get(&number).filter(|_| is_ended);
        if let (Some(queue), Some(ticket)) = (&*queue, running) {
            queue.cancel(*ticket);
        }
        is_ended
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
