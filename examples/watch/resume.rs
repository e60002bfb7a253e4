//! Which runs have ended without being handled. Nothing is stored for that: the runs that this
//! subscription has started say which they were started for, and the list of the watched pipeline's
//! runs says what has ended since the last of these.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gofer_sdk::{ErrorKind, Gofer, PipelineId, Result, RunInfo, RunState, Subscription};

use super::{NAMESPACE, PIPELINE, Params, RUN_ID, key};

/// How many of the newest runs of a pipeline are looked at.
const RUNS: u32 = 1000;

/// How many handled runs are remembered: more than can be in a list.
const REMEMBERED: usize = 2 * RUNS as usize;

/// What a subscription has handled.
pub(super) struct Resumed {
    /// What ended before is of no interest; `None` if nothing is that has ended already.
    since: Option<SystemTime>,
    /// The last run that was handled: when it ended, and its number. Of several that ended in the same
    /// millisecond, the greater number counts as the later one.
    last: Option<(SystemTime, i64)>,
    /// Whether each end counts by itself. If not, one that is handled again would be counted again.
    each_counts: bool,
    /// The keys of the runs that were started.
    started: BTreeSet<String>,
    /// When those that were handled had started, and their numbers, which another run has too if the
    /// pipeline is deleted and made again.
    handled: BTreeSet<(SystemTime, i64)>,
}

impl Resumed {
    pub(super) async fn new(
        subscription: &Subscription<Params>,
        watched: &PipelineId,
    ) -> Result<Self> {
        let gofer = subscription.gofer();
        let watches_it = |run: &RunInfo| {
            run.variable(NAMESPACE) == Some(watched.namespace())
                && run.variable(PIPELINE) == Some(watched.pipeline())
        };
        let own: Vec<_> = subscription.runs(RUNS).await?.into_iter().filter(watches_it).collect();
        let mut last = None;
        if let Some(newest) = own.first() {
            let id = newest.variable(RUN_ID).and_then(|id| id.parse().ok()).unwrap_or(0);
            let handled = match gofer.run(watched, id).await {
                // Another run has the number if the pipeline was made again.
                Ok(run) => Some(run).filter(|run| newest.key() == Some(&*key(watched, run))),
                // It is no longer kept.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            // Without it: what started this one had ended then.
            let ended = handled.and_then(|run| run.ended()).unwrap_or(newest.started());
            last = Some((ended, id));
        }
        Ok(Self {
            since: subscription.since(),
            last,
            each_counts: subscription.params().consecutive == 1,
            started: own.iter().filter_map(RunInfo::key).map(str::to_owned).collect(),
            handled: BTreeSet::new(),
        })
    }

    /// What has ended and was not handled, in the order in which it ended.
    pub(super) async fn missed(&self, gofer: &Gofer, watched: &PipelineId) -> Result<Vec<RunInfo>> {
        // Also to find out whether the pipeline can be seen: its events would be left out silently.
        let runs = gofer.runs(watched, RUNS).await?;
        let is_missed = |run: &RunInfo| {
            let Some(ended) = run.ended().filter(|_| run.state() == RunState::Complete) else {
                return false;
            };
            let is_after_the_last = match self.last {
                None => self.since.is_some(),
                // A run with a smaller number may have ended in the same millisecond.
                Some((last, _)) if self.each_counts => ended >= last,
                Some(last) => (ended, run.id()) > last,
            };
            // What ended in the millisecond in which the pipeline subscribed counts.
            is_after_the_last
                && self.since.is_none_or(|since| ended >= since)
                && !self.handled.contains(&(run.started(), run.id()))
                && !self.started.contains(&key(watched, run))
        };
        let mut missed: Vec<_> = runs.into_iter().filter(is_missed).collect();
        missed.sort_by_key(|run| (run.ended(), run.id()));
        Ok(missed)
    }

    /// Remembers a run that is handled. Whether it had not been before.
    pub(super) fn handled(&mut self, run: &RunInfo) -> bool {
        let is_new = self.handled.insert((run.started(), run.id()));
        if is_new && let Some(ended) = run.ended() {
            self.last = self.last.max(Some((ended, run.id())));
        }
        if self.handled.len() > REMEMBERED {
            self.handled.pop_first();
        }
        is_new
    }
}
