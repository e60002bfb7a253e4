//! What must be true of a history.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gofer_core::Core;
use gofer_sdk::api::pipeline_extension_subscription::Status;
use gofer_sdk::{Error, RunInfo};
use tokio::runtime::Handle;

use crate::facts::{Asked, Cause, Facts, Key, Life, Who, facts, violated};
use crate::network::Net;
use crate::world::{HOUR, MINUTE, SECOND, UNIX, World, stored};

/// After a disturbance it may take this long until everything is as usual: pauses of backoffs are at
/// most five minutes, questions to Gofer are given up after ten.
pub const RECOVERY: Duration = Duration::from_secs(15 * 60);

/// In this time an extension notices that the clock was set.
const NOTICED: Duration = Duration::from_secs(30);

/// How late a run may be that nothing has disturbed.
const LATE: Duration = SECOND.saturating_mul(3);

/// How much later it may be if its author has dropped a start, and its key is looked up.
const LOOKED_UP: Duration = SECOND.saturating_mul(3);

/// Tasks of a core with its extensions, and of each subscription.
const TASKS: usize = 40;
const TASKS_EACH: usize = 2;

/// A run that an extension has started.
struct Found {
    id: i64,
    key: Key,
    number: u32,
    /// When it was asked for.
    asked: Duration,
    /// In Unix nanoseconds.
    scheduled: Option<i64>,
    started: i64,
}

/// Checks everything, once nothing has been disturbed for long enough.
pub async fn check(world: &World) {
    let host = world.host().await;
    let parallelism = world.plan.parallelism.unwrap_or(0);
    check_runs_and_ticks(&world.pipelines, Keys::Enforced, parallelism, |it| host.core.runs(it));
    check_subscriptions(world, &host.core).await;
    world.check_acknowledged(&host.core).await;
    check_events(world, &host.core).await;
    check_resources(world, &host.fate.net);
}

/// What is promised about the keys of runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// By a Gofer that enforces them.
    Enforced,
    /// By an extension that looks them up among the newest runs. It cannot know of `delays`:
    /// requests that are on their way although nobody waits for them.
    LookedUp { delays: bool },
}

impl Keys {
    /// Whether a key may have a second run.
    fn may_repeat(self) -> bool {
        self == Self::LookedUp { delays: true }
    }

    /// How late a run may be that nothing has disturbed.
    fn late(self) -> Duration {
        if self == Self::Enforced { LATE } else { LATE + LOOKED_UP }
    }
}

/// How many runs of a pipeline are looked through for a key.
const LOOKED_THROUGH: i64 = 1000;

/// `runs_of` is all runs of a pipeline.
pub fn check_runs_and_ticks(
    pipelines: &[(String, String)],
    keys: Keys,
    parallelism: i64,
    runs_of: impl Fn(&str) -> Vec<RunInfo>,
) {
    let started = check_runs(pipelines, keys, runs_of);
    let lives = facts(|facts| facts.lives.clone());
    for (key, lives) in &lives {
        check_ticks(key, lives, &started, keys, parallelism);
    }
}

/// None is left of those that were cut or replaced.
pub fn check_connections(net: &Net) {
    for ((from, to), count) in net.connections() {
        if count > 1 {
            violated(format!("{count} connections from `{from}` to `{to}`"));
        }
    }
}

/// What was replaced or has failed is gone.
fn check_resources(world: &World, net: &Net) {
    check_connections(net);
    let tasks = Handle::current().metrics().num_alive_tasks();
    let most = TASKS + TASKS_EACH * world.expected.borrow().len();
    if tasks > most {
        violated(format!("{tasks} tasks instead of {most} at most"));
    }
}

fn nanos(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Each run has one cause, each cause one run.
fn check_runs(
    pipelines: &[(String, String)],
    keys: Keys,
    runs_of: impl Fn(&str) -> Vec<RunInfo>,
) -> Vec<Found> {
    let asked = facts(|facts| facts.asked.clone());
    let mut causes: BTreeMap<(&Key, &Cause), Vec<&Asked>> = BTreeMap::new();
    for one in &asked {
        causes.entry((&one.key, &one.cause)).or_default().push(one);
    }
    // A time comes again if the clock is set back.
    let backs = facts(|facts| facts.ahead.windows(2).filter(|two| two[1].1 < two[0].1).count());
    let mut all = Vec::new();
    for (namespace, pipeline) in pipelines {
        let path = format!("{namespace}/{pipeline}");
        let (of_extensions, by_hand): (Vec<_>, Vec<_>) =
            runs_of(&path).into_iter().partition(|run| run.initiator().starts_with("ext"));
        let pair = (namespace.clone(), pipeline.clone());
        let expected = facts(|facts| facts.by_api.get(&pair).copied().unwrap_or_default());
        if !(expected.0..=expected.0 + expected.1).contains(&by_hand.len()) {
            violated(format!("{path}: {} runs by hand instead of {expected:?}", by_hand.len()));
        }
        let mut earlier = BTreeMap::new();
        for run in &of_extensions {
            let Some((key, cause)) = cause(run, namespace, pipeline) else {
                violated(format!("{path}: run {} has no key", run.id()));
                continue;
            };
            let before = earlier.insert((key.clone(), run.key().map(str::to_owned)), run.id());
            if let Some(before) = before
                && !keys.may_repeat()
                && (keys == Keys::Enforced || run.id() - before <= LOOKED_THROUGH)
            {
                violated(format!("{key}: run {} has the key of run {before}", run.id()));
            }
            let Some(causes) = causes.get(&(&key, &cause)) else {
                violated(format!("{key}: run {} has no cause: {cause:?}", run.id()));
                continue;
            };
            let asked =
                causes.iter().find(|it| it.answer == Some(run.id())).or(causes.first()).unwrap();
            let scheduled = match cause {
                Cause::Tick(at) => Some(at),
                Cause::Key(_) => None,
            };
            all.push(Found {
                id: run.id(),
                number: asked.number,
                asked: asked.at,
                scheduled,
                started: nanos(run.started()),
                key,
            });
        }
        let mut runs: BTreeMap<(&Key, i64), usize> = BTreeMap::new();
        for run in
            all.iter().filter(|it| (&it.key.namespace, &it.key.pipeline) == (namespace, pipeline))
        {
            if let Some(at) = run.scheduled {
                *runs.entry((&run.key, at)).or_default() += 1;
            }
        }
        for ((key, at), count) in runs {
            if count > 1 + backs && !keys.may_repeat() {
                violated(format!("{key}: {count} runs for the tick at {at}"));
            }
        }
    }
    let existing: BTreeMap<(&Key, i64), Option<i64>> =
        all.iter().map(|run| ((&run.key, run.id), run.scheduled)).collect();
    for Asked { key, cause, answer, .. } in &asked {
        let Some(id) = answer else { continue };
        let scheduled = match cause {
            Cause::Tick(at) => Some(*at),
            Cause::Key(_) => None,
        };
        match existing.get(&(key, *id)) {
            None => violated(format!("{key}: run {id} was acknowledged and does not exist")),
            Some(found) if *found != scheduled => {
                violated(format!("{key}: run {id} is not that of {cause:?}"));
            }
            Some(_) => {}
        }
    }
    all
}

fn cause(run: &RunInfo, namespace: &str, pipeline: &str) -> Option<(Key, Cause)> {
    let (extension, label) = run.initiator().strip_suffix(')')?.split_once(" (")?;
    let key = Key {
        extension: extension.to_owned(),
        namespace: namespace.to_owned(),
        pipeline: pipeline.to_owned(),
        label: label.to_owned(),
    };
    let own = run.key()?;
    let cause = match run.scheduled() {
        Some(at) => Cause::Tick(nanos(at)),
        None => Cause::Key(own.to_owned()),
    };
    Some((key, cause))
}

/// A tick that fell due while nothing was disturbed has a run of its own, in time. All others lie
/// on the grid, and each counts for those that fell due until it started.
fn check_ticks(key: &Key, lives: &[Life], all: &[Found], keys: Keys, parallelism: i64) {
    let steps = facts(|facts| facts.ahead.len() > 1);
    let end = facts(|facts| facts.end);
    let mut chain: Vec<i64> = Vec::new();
    for (at, life) in lives.iter().enumerate() {
        // Enabled again, it has the parameters that it had.
        let next = lives[at + 1..].iter().find(|it| it.number == life.number).map(|it| it.from);
        let mut runs: Vec<&Found> = all
            .iter()
            .filter(|run| run.key == *key && run.number == life.number && run.scheduled.is_some())
            .filter(|run| run.asked >= life.from && next.is_none_or(|next| run.asked < next))
            .collect();
        runs.sort_by_key(|run| run.asked);
        if keys.may_repeat() {
            runs.dedup_by_key(|run| run.scheduled);
        }
        if !life.continues {
            chain.clear();
        }
        let period = i64::try_from(life.every.as_nanos()).unwrap();
        let base = runs.first().and_then(|run| run.scheduled);
        if let (Some(base), Some(before)) = (base, chain.last())
            && (base - before) % period != 0
        {
            violated(format!(
                "{key} #{}: its first tick at {base} is not on the grid of its last one at {before}",
                life.number
            ));
        }
        for run in &runs {
            let (Some(scheduled), Some(base)) = (run.scheduled, base) else { continue };
            if (scheduled - base) % period != 0 {
                violated(format!("{key}: run {} at {scheduled} is beside the grid", run.id));
            }
            if !steps && scheduled / 1_000_000 > run.started / 1_000_000 {
                violated(format!("{key}: run {} has started before it was due", run.id));
            }
        }
        for two in runs.windows(2).filter(|_| !steps) {
            let [before, after] = two else { continue };
            // The start is known in milliseconds.
            if after.scheduled.unwrap_or(0) + 1_000_000 <= before.started {
                violated(format!(
                    "{key}: run {} is for a tick that run {} counts for",
                    after.id, before.id
                ));
            }
        }
        chain.extend(runs.iter().filter_map(|run| run.scheduled));
        let until = life.until.unwrap_or(end);
        // There is no tick while the last run is pending.
        if parallelism == 0 {
            check_in_time(key, life, &runs, until, keys.late());
        }
    }
}

fn check_in_time(key: &Key, life: &Life, runs: &[&Found], until: Duration, most: Duration) {
    for (from, to) in facts(|facts| facts.calm(key, life.from, until, life.every)) {
        let runs_then = runs.iter().filter(|run| (from..to).contains(&run.asked));
        let first = runs_then.clone().next();
        let Some(base) = first.and_then(|run| run.scheduled) else {
            if to > from + life.every + most {
                violated(format!("{key} #{}: no run from {from:?} to {to:?}", life.number));
            }
            continue;
        };
        // All points of the grid from the first that is due.
        let period = i64::try_from(life.every.as_nanos()).unwrap();
        let begin = facts(|facts| facts.unix(from));
        let calm = to.saturating_sub(from + most);
        let end = begin + i64::try_from(calm.as_nanos()).unwrap();
        let mut due = base - (base - begin).div_euclid(period) * period;
        while due < end {
            let run = runs_then.clone().find(|run| run.scheduled == Some(due));
            let late = run.map(|run| run.started - due);
            if late.is_none_or(|late| late > i64::try_from(most.as_nanos()).unwrap()) {
                let at = Duration::from_nanos((due - begin).unsigned_abs()) + from;
                violated(format!(
                    "{key} #{}: the run of the tick at {due} ({at:?}) is late or missing: {late:?}",
                    life.number
                ));
            }
            facts(|facts| facts.in_time += 1);
            due += period;
        }
    }
}

impl Facts {
    /// The extensions' clock then, in Unix nanoseconds.
    fn unix(&self, at: Duration) -> i64 {
        let ahead = self.ahead.iter().rev().find(|(from, _)| *from <= at).map_or(0, |it| it.1);
        i64::try_from((UNIX + at).as_nanos()).unwrap() + ahead
    }

    /// When nothing concerned a subscription, and had not for a while. If the clock is set back,
    /// there is a tick within two periods.
    fn calm(
        &self,
        key: &Key,
        from: Duration,
        until: Duration,
        every: Duration,
    ) -> Vec<(Duration, Duration)> {
        let mut disturbed: Vec<_> = self
            .disturbances
            .iter()
            .filter(|it| it.who.includes(key))
            .map(|it| {
                let more = match it.who {
                    Who::SetForward => NOTICED,
                    Who::SetBack => NOTICED + 2 * every,
                    _ => RECOVERY,
                };
                (it.from, it.until.map_or(Duration::MAX, |until| until + more))
            })
            .collect();
        disturbed.sort_unstable();
        let (mut calm, mut at) = (Vec::new(), from + RECOVERY);
        for (from, to) in disturbed {
            if from > at {
                calm.push((at, from.min(until)));
            }
            at = at.max(to);
        }
        calm.push((at, until));
        calm.retain(|(from, to)| from < to);
        calm
    }
}

/// Whether nothing concerns a subscription, and has not for a while.
fn is_calm(key: &Key) -> bool {
    facts(|facts| {
        facts
            .calm(key, Duration::ZERO, facts.end, Duration::ZERO)
            .last()
            .is_some_and(|it| it.1 == facts.end)
    })
}

/// A subscription that is active is served.
pub fn check_serving(key: &Key, number: u32) {
    let serving = facts(|facts| facts.serving.get(key).cloned().unwrap_or_default());
    // Or `serve` has failed, and is about to be called again.
    if serving != [number] && (!serving.is_empty() || is_calm(key)) {
        violated(format!("{key}: is active as #{number}, but {serving:?} run"));
    }
}

/// What was acknowledged is stored, and is what the extensions do.
async fn check_subscriptions(world: &World, core: &Core) {
    let expected = world.expected.borrow().clone();
    for (key, expected) in &expected {
        let Some(stored) = stored(core, key).await else {
            violated(format!("{key}: is not stored"));
            continue;
        };
        let number = stored.settings.get("number").cloned().unwrap_or_default();
        if number != expected.number.to_string() {
            violated(format!("{key}: #{number} is stored instead of #{}", expected.number));
        }
        match (stored.status(), expected.is_enabled) {
            (Status::Active, true) => check_serving(key, expected.number),
            (Status::Disabled, false) => {}
            (status, is_enabled) => {
                violated(format!("{key}: has status {status:?}, enabled: {is_enabled}"));
            }
        }
    }
    for (namespace, pipeline) in &world.pipelines {
        let stored = World::list(core, namespace, pipeline).await;
        for key in stored.iter().filter(|key| !expected.contains_key(key)) {
            violated(format!("{key}: is stored"));
        }
    }
}

/// Who follows the events and resumes has seen each once.
async fn check_events(world: &World, core: &Core) {
    let mut all = Vec::new();
    let read = async {
        let mut events = core.client().events().await?;
        while let Some(event) = events.next().await? {
            all.push((event.id, event.details));
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = read.await {
        violated(format!("the events cannot be read: {error}"));
    }
    let followed = world.followed.borrow();
    let count = followed.len().min(all.len());
    if followed[..] != all[..count] {
        violated(format!("{} events were followed, not those that happened", followed.len()));
    }
    // It may just be about to resume.
    if world.is_following.get() && followed.len() != all.len() {
        violated(format!("{} of {} events were followed", followed.len(), all.len()));
    }
}

/// Beyond what is calm, so that the last disturbances are over.
pub const REST: Duration = HOUR.saturating_add(MINUTE);
