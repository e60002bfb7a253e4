//! Runs that wait and runs that are being executed, where somebody executes
//! them: see [`executor`](super::super::executor).
//!
//! A run that waits is a number in its pipeline's [`Line`] and nothing more. The
//! live configuration's parallelism bounds how many runs of a pipeline are
//! executed at a time, the [`Queue`]'s own bound how many of all; pipelines take
//! turns, so that one with many runs does not hold up the others.

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

/// Of the whole core; there where runs are executed.
pub(super) struct Queue {
    /// How many runs may be executed at a time.
    most: usize,
    /// Whose execution has not ended yet, by their tickets.
    tickets: HashMap<u64, CancellationToken>,
    last_ticket: u64,
    /// Namespaces and ids of the pipelines that may have a run to execute, in
    /// turn. Each is in it at most once.
    turns: VecDeque<(String, String)>,
}

/// Of one pipeline.
#[derive(Default)]
pub(super) struct Line {
    /// In the order of their numbers.
    waiting: VecDeque<i64>,
    /// Being executed, with their tickets. One that was cancelled is in it until
    /// its handler is gone, so that no other takes its place before.
    running: BTreeMap<i64, u64>,
    /// Whether the pipeline is among the turns.
    has_turn: bool,
}

impl Line {
    /// Those that wait or are being executed, by their numbers.
    fn all(&self) -> Vec<i64> {
        self.running.keys().chain(&self.waiting).copied().collect()
    }
}

impl PipelineTable {
    fn may_execute_more(&self) -> bool {
        let most = self.live().map_or(0, |config| config.parallelism);
        let most = usize::try_from(most).unwrap_or(0);
        !self.line.waiting.is_empty() && (most == 0 || self.line.running.len() < most)
    }
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { most, tickets: HashMap::new(), last_ticket: 0, turns: VecDeque::new() }
    }

    /// Lets a run of a pipeline wait.
    pub(super) fn wait(&mut self, pipeline: &mut PipelineTable, run: i64) {
        pipeline.line.waiting.push_back(run);
        self.give_turn(pipeline);
    }

    /// Gives a pipeline a turn where it has a run that may be executed.
    pub(super) fn give_turn(&mut self, pipeline: &mut PipelineTable) {
        if pipeline.may_execute_more() && !pipeline.line.has_turn {
            pipeline.line.has_turn = true;
            let metadata = &pipeline.metadata;
            self.turns.push_back((metadata.namespace.clone(), metadata.id.clone()));
        }
    }

    /// Has the execution of a run end.
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
            let (namespace, id) = self.turns.pop_front()?;
            let table = namespaces.get_mut(&namespace);
            let Some(pipeline) = table.and_then(|table| table.pipelines.get_mut(&id)) else {
                continue;
            };
            pipeline.line.has_turn = false;
            if !pipeline.may_execute_more() {
                continue;
            }
            let Some(number) = pipeline.line.waiting.pop_front() else { continue };
            let Some(run) = pipeline.run_mut(number) else { continue };
            run.state = RunState::Running.into();
            journal.put_run(run);
            let run = run.clone();
            self.last_ticket += 1;
            let (ticket, cancelled) = (self.last_ticket, CancellationToken::new());
            self.tickets.insert(ticket, cancelled.clone());
            pipeline.line.running.insert(number, ticket);
            self.give_turn(pipeline);
            return Some(Job { run, ticket, cancelled });
        }
        None
    }
}

/// A run that is to be executed.
pub(crate) struct Job {
    pub(crate) run: Run,
    /// Of this execution: a pipeline of the same name, made anew, has runs of
    /// the same numbers.
    ticket: u64,
    /// The execution is to end.
    pub(crate) cancelled: CancellationToken,
}

impl Store {
    /// Settles the runs that an earlier process left, and says how many runs
    /// are executed at a time; `None` where nobody executes runs, and each
    /// succeeds at once.
    pub(crate) fn begin_runs(&self, most: Option<usize>) {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        tables.queue = most.map(Queue::new);
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        for pipeline in namespaces.values_mut().flat_map(|it| it.pipelines.values_mut()) {
            let PipelineTable { runs, line, .. } = pipeline;
            for run in runs.iter_mut() {
                match run.state() {
                    RunState::Running => end(run, now, &Ending::lost(), events, journal),
                    RunState::Pending if queue.is_none() => {
                        end(run, now, &Ending::success(), events, journal);
                    }
                    RunState::Pending => line.waiting.push_back(run.id),
                    RunState::Complete | RunState::Unknown => {}
                }
            }
            if let Some(queue) = queue {
                queue.give_turn(pipeline);
            }
        }
    }

    /// The next run that is to be executed, where there is one and it may be.
    /// It is running from then on, until [`end_run`](Self::end_run).
    pub(crate) fn next_run(&self) -> Option<Job> {
        let mut tables = self.tables();
        let Tables { namespaces, journal, queue, .. } = &mut *tables;
        queue.as_mut()?.next(namespaces, journal)
    }

    /// Waits until there may be a next run. For one who waits at a time.
    pub(crate) async fn run_waits(&self) {
        self.run_waits.notified().await;
    }

    /// The execution of a run is over. How, counts where the run has not been
    /// ended otherwise.
    pub(crate) fn end_run(&self, job: &Job, ending: &Ending) {
        let now = self.clock.unix_millis();
        let Job { run: Run { namespace, pipeline, id, .. }, ticket, .. } = job;
        let mut tables = self.tables();
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return };
        queue.tickets.remove(ticket);
        let table = namespaces.get_mut(namespace);
        if let Some(pipeline) = table.and_then(|it| it.pipelines.get_mut(pipeline))
            && pipeline.line.running.get(id) == Some(ticket)
        {
            pipeline.line.running.remove(id);
            if let Some(run) = pipeline.run_mut(*id) {
                end(run, now, ending, events, journal);
            }
            queue.give_turn(pipeline);
        }
        self.run_waits.notify_one();
    }

    /// Ends all runs that are being executed; those that wait stay as they are.
    pub(crate) fn end_running(&self, ending: &Ending) {
        let now = self.clock.unix_millis();
        let mut tables = self.tables();
        let Tables { namespaces, events, journal, queue, .. } = &mut *tables;
        let Some(queue) = queue else { return };
        for pipeline in namespaces.values_mut().flat_map(|it| it.pipelines.values_mut()) {
            let running: Vec<_> = pipeline.line.running.keys().copied().collect();
            for run in running {
                if let Some(run) = pipeline.run_mut(run) {
                    end(run, now, ending, events, journal);
                }
            }
        }
        queue.tickets.values().for_each(CancellationToken::cancel);
    }
}

/// Ends runs of a pipeline before their time: one, or all for `None`. Gives the
/// numbers of those that were not over.
pub(super) fn cut_short(
    pipeline: &mut PipelineTable,
    which: Option<i64>,
    now: i64,
    ending: &Ending,
    (events, journal, queue): (&mut EventLog, &mut Journal, &mut Option<Queue>),
) -> Vec<i64> {
    let mut ended = which.map_or_else(|| pipeline.line.all(), |run| vec![run]);
    ended.retain(|&number| {
        let Some(run) = pipeline.run_mut(number) else { return false };
        if run.state() == RunState::Complete {
            return false;
        }
        end(run, now, ending, events, journal);
        if let (Some(queue), Some(ticket)) = (&*queue, pipeline.line.running.get(&number)) {
            queue.cancel(*ticket);
        }
        true
    });
    match which {
        Some(run) => pipeline.line.waiting.retain(|waiting| *waiting != run),
        None => pipeline.line.waiting.clear(),
    }
    ended
}

/// A pipeline is no more: nor is its turn.
pub(super) fn forget_turn(queue: &mut Option<Queue>, pipeline: &PipelineTable) {
    if let Some(queue) = queue
        && pipeline.line.has_turn
    {
        let metadata = &pipeline.metadata;
        queue
            .turns
            .retain(|(namespace, id)| (namespace, id) != (&metadata.namespace, &metadata.id));
    }
}

#[cfg(test)]
mod tests;
