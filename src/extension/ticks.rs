//! When the next tick of a subscription is due.
//!
//! The guarantees: ticks are at the times of their schedule, and what is done for one never moves the
//! next, so they do not drift; ticks that could not be served become one, unless the author decides
//! otherwise; and all this survives a restart of the extension, because Gofer is asked (in the
//! background, by `resume`) what the label's last run was scheduled for.
//!
//! All times here are Unix nanoseconds, eight bytes each, because every live interval subscription
//! holds some of them. They are read from the wall clock, which may be set: a task that waits for
//! the next tick is woken then, by `server::clock_watch`.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use super::go_duration::GoDuration;
use super::live::{LastRun, LastTick, Live};
use super::schedule::{Every, Schedule};
use super::subscription::Subscription;
use crate::client::{Occurrence, Run, Scheduled, system_time, unix_nanos};
use crate::error::{Error, Result};
use next::{Next, WaitsFor};

mod next;

/// The ticks of one subscription; made by [`Subscription::every`] and [`Subscription::schedule`].
///
/// ```
/// use gofer_sdk::{Declared, GoDuration, Result, Subscription};
///
/// async fn hourly<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let mut ticks = subscription.every(GoDuration::from_hours(1))?;
///     while let Some(tick) = ticks.next().await {
///         subscription.start_run(tick.run("an hour has passed")).await?;
///     }
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: hourly);
/// # core.elapse(gofer_core::minutes(150)).await;
/// # restarts_and_unsubscribes(&core, &docs).await?;
/// # assert_eq!(core.runs("ops/nightly").len(), 2);
/// # Ok(()) }
/// ```
pub struct Ticks<P, S = Every> {
    subscription: Subscription<P>,
    timeline: Timeline<S>,
}

/// What becomes of ticks that were missed: that fell due while `serve` was busy, Gofer could not be
/// reached or the extension did not run.
///
/// ```
/// use gofer_sdk::{Declared, GoDuration, MissedTicks, Result, Subscription};
///
/// async fn hourly<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let hourly = subscription.every(GoDuration::from_hours(1))?;
///     let mut ticks = hourly.missed(MissedTicks::Each { at_most: 24 });
///     while let Some(tick) = ticks.next().await {
///         subscription.start_run(tick.run("an hour has passed")).await?;
///         tokio::time::sleep(std::time::Duration::from_secs(150 * 60)).await; // busy
///     }
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: hourly);
/// # core.elapse(gofer_core::hours(5)).await;
/// # let runs = core.runs("ops/nightly");
/// # let [second, first] = &runs[..] else { panic!("{runs:?}") };
/// # let apart = second.scheduled().unwrap().duration_since(first.scheduled().unwrap())?;
/// # assert_eq!(apart.as_secs(), 60 * 60, "the tick that was missed has a run of its own");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissedTicks {
    /// They become one, for the latest of them. A run that started late counts for all ticks until
    /// then. The default.
    #[default]
    Coalesce,
    /// Each is a tick of its own, the oldest first. If more than this are due, the older ones become
    /// one; at least 1.
    Each {
        /// How many.
        at_most: u8,
    },
    /// They are dropped: a [largest lateness](Ticks::max_lateness) of one second.
    Skip,
}

/// One tick: a time that a schedule fell due, or several that became one.
///
/// ```
/// use gofer_sdk::{Declared, GoDuration, Result, Subscription};
///
/// async fn daily<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let mut ticks = subscription.every(GoDuration::from_hours(24))?;
///     while let Some(tick) = ticks.next().await {
///         if tick.count() > 1 {
///             tracing::warn!(missed = tick.count() - 1, "late");
///         }
///         let run = tick.run("a day has passed").variable("DAY", format!("{:?}", tick.scheduled()));
///         subscription.start_run(run).await?;
///     }
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: daily);
/// # core.elapse(gofer_core::hours(25)).await;
/// # restarts_and_unsubscribes(&core, &docs).await?;
/// # assert!(core.runs("ops/nightly")[0].scheduled().is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a tick that starts no run is missed"]
pub struct Tick {
    scheduled: Scheduled,
    count: u16,
    dropped: u16,
}

impl Tick {
    /// The time that it was scheduled for; of several that became one, the last. By the clock of
    /// the extension.
    pub fn scheduled(&self) -> SystemTime {
        system_time(self.scheduled.at)
    }

    /// How many ticks it stands for: 1, unless some were missed. 1,000 means that many or more.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// How many ticks before it were dropped because they were [too late](Ticks::max_lateness). 1,000
    /// means that many or more.
    pub fn dropped(&self) -> u64 {
        self.dropped.into()
    }

    /// A run for this tick, with a reason for people who look at it. Its key is made from the
    /// scheduled time, so it is started once, also if the extension is restarted in between; and it
    /// carries that time, as the variable `GOFER_EXTENSION_SCHEDULED_AT`, from which a restarted
    /// extension continues.
    pub fn run(&self, reason: impl Into<Cow<'static, str>>) -> Run {
        Run::scheduled(reason.into(), self.scheduled)
    }
}

impl<P: Send + Sync + 'static, S: Schedule> Ticks<P, S> {
    pub(super) fn new(subscription: Subscription<P>, schedule: S) -> Result<Self> {
        let live = subscription.live();
        if live.last_run().scheduled == LastTick::Unknown {
            subscription.ask_for_last_run();
        }
        let origin = live.origin(subscription.gofer().now_nanos());
        Ok(Self { timeline: Timeline::new(schedule, origin)?, subscription })
    }

    /// Delays every tick by an offset between zero and `spread`, always the same for the same
    /// subscription, so that subscriptions with the same schedule are not all due at the same
    /// instant.
    ///
    /// A `spread` of zero or less has no effect.
    #[must_use]
    pub fn jitter(mut self, spread: GoDuration) -> Self {
        let key = &self.subscription.live().key;
        let offset = stable_fraction(key.path(), key.label(), spread.as_nanos().max(0));
        self.timeline.delay(offset);
        self
    }

    /// Sets what becomes of ticks that were missed; by default they [become
    /// one](MissedTicks::Coalesce).
    #[must_use]
    pub fn missed(mut self, missed: MissedTicks) -> Self {
        self.timeline.each = match missed {
            MissedTicks::Coalesce | MissedTicks::Skip => 0,
            MissedTicks::Each { at_most } => at_most.max(1),
        };
        if missed == MissedTicks::Skip && self.timeline.max_lateness == ANY {
            self.timeline.max_lateness = 1;
        }
        self
    }

    /// Drops ticks that cannot be served within this time, since they would help nobody: the run at
    /// 02:00 of the day before yesterday, for example. They are counted by
    /// [`Tick::dropped`], and logged. A run for a tick that cannot be started in time, since Gofer
    /// cannot be reached, fails with [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded).
    ///
    /// Counted in whole seconds, at least one. By default, a tick is never too late.
    #[must_use]
    pub fn max_lateness(mut self, lateness: GoDuration) -> Self {
        let seconds = lateness.as_nanos() / SECOND;
        self.timeline.max_lateness = u32::try_from(seconds.max(1)).unwrap_or(ANY);
        self
    }

    /// Waits for the next tick; `None` once the subscription is cancelled, and if the schedule has no
    /// further one.
    ///
    /// Several ticks that fell due since the last call, or since the last run that the subscription
    /// started, become one, unless [`missed`](Self::missed) says otherwise. No tick is returned while
    /// the run of the last one is pending, as at the limit of its pipeline's parallelism; those that
    /// fall due meanwhile are covered by that run.
    ///
    /// If the future is dropped, no tick is lost: the next call returns it.
    #[expect(clippy::should_implement_trait, reason = "it is asynchronous")]
    pub fn next(&mut self) -> impl Future<Output = Option<Tick>> + Send {
        Next::new(self)
    }

    /// Takes the tick that is due; otherwise returns what to wait for before the next attempt.
    fn take_due(&mut self) -> ControlFlow<Option<Tick>, WaitsFor> {
        let Self { subscription, timeline } = self;
        let live: &Live = subscription.live();
        if live.is_cancelled() {
            return ControlFlow::Break(None);
        }
        // First, so that none that follows is missed.
        let changes = live.changes();
        let now = subscription.gofer().now_nanos();
        match timeline.poll_for(live, now) {
            Due::Now(_) if live.queued_run().is_some() => {
                let live = subscription.shared();
                let started = async move { live.queued_run_has_started().await };
                ControlFlow::Continue(WaitsFor::Other(Box::pin(started)))
            }
            Due::Now(tick) => {
                timeline.take(&tick);
                live.tick_taken(timeline.after(tick.scheduled.at));
                let late = now.saturating_sub(tick.scheduled.at);
                live.context.metrics.tick(tick.count, late);
                ControlFlow::Break(Some(tick))
            }
            Due::Never => {
                live.expect_tick(i64::MAX);
                ControlFlow::Break(None)
            }
            Due::Unknown => ControlFlow::Continue(WaitsFor::Change { changes, alarm: None }),
            Due::At(at) => {
                live.expect_tick(at);
                let wait = Duration::from_nanos(at.abs_diff(now));
                let alarm = Some(live.context.alarms.key_after(wait));
                ControlFlow::Continue(WaitsFor::Change { changes, alarm })
            }
        }
    }
}

/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// How long it takes at most until it is noticed that the clock was set, in nanoseconds.
pub(crate) const NOTICED_WITHIN: i64 = 30 * SECOND;

/// The most that is counted of ticks that were missed or dropped.
const MOST: u16 = 1_000;

/// The largest lateness if there is none, in seconds.
const ANY: u32 = u32::MAX;

/// What a timeline says of the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Now(Tick),
    At(i64),
    /// There is none before it is known what the last run was scheduled for.
    Unknown,
    Never,
}

/// The times of a schedule, and which of them have been served.
struct Timeline<S> {
    schedule: S,
    /// How much later each tick is than its time in the schedule.
    offset: i64,
    /// The last tick that was returned or dropped. Before the first, where the schedule starts, which
    /// is no tick.
    base: i64,
    /// How late a tick may be, in seconds.
    max_lateness: u32,
    /// Ticks that were dropped since the last that was returned.
    dropped: u16,
    /// How many of the ticks that were missed are ticks of their own; 0 if all become one.
    each: u8,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It may still have to go on from the last run that Gofer reports.
    Resuming,
    /// There has been no tick.
    Started,
    /// `base` is a tick.
    Ticking,
}

impl<S: Schedule> Timeline<S> {
    fn new(schedule: S, origin: i64) -> Result<Self> {
        let start = system_time(origin);
        if schedule.next_from(start, start).is_some_and(|next| next <= start) {
            let why = "the schedule has a next time that is not after the given one";
            return Err(Error::internal(why));
        }
        Ok(Self {
            schedule,
            offset: 0,
            base: origin,
            max_lateness: ANY,
            dropped: 0,
            each: 0,
            progress: Progress::Resuming,
        })
    }

    /// Moves each tick, before the first.
    fn delay(&mut self, offset: i64) {
        self.base = self.base.saturating_sub(self.offset).saturating_add(offset);
        self.offset = offset;
    }

    /// The first tick after a time, which need not be one.
    fn next(&self, time: i64) -> Option<i64> {
        let in_schedule = |time: i64| system_time(time.saturating_sub(self.offset));
        let next = self.schedule.next_from(in_schedule(self.base), in_schedule(time))?;
        let next = unix_nanos(next).saturating_add(self.offset);
        if next <= time {
            tracing::error!("the schedule has a next time that is not after the given one");
            return None;
        }
        (next < i64::MAX).then_some(next)
    }

    /// The same; the end of time if there is none.
    fn after(&self, time: i64) -> i64 {
        self.next(time).unwrap_or(i64::MAX)
    }

    /// What is due for a subscription.
    fn poll_for(&mut self, live: &Live, now: i64) -> Due {
        let last = live.last_run();
        let before = self.dropped;
        let due = self.poll(last, now);
        if self.dropped > before {
            let dropped = self.dropped - before;
            let _entered = live.key.span().entered();
            tracing::info!(dropped, "ticks were dropped: they were too late");
            live.context.metrics.ticks_dropped(dropped);
        }
        if let Due::At(_) = due
            && let LastTick::At(at) = last.scheduled
            && at > now
            && self.base <= now
        {
            // The clock was set back. Another `serve` goes on from here too, so that the tick at which
            // this one fails is not lost.
            live.rewind(last, now, self.base);
        }
        due
    }

    /// What is due. A tick stays due until it is taken.
    fn poll(&mut self, last: LastRun, now: i64) -> Due {
        if self.progress == Progress::Resuming {
            match last.scheduled {
                // A tick now might not be one of those that follow. What falls due meanwhile is
                // missed.
                LastTick::Unknown => return Due::Unknown,
                LastTick::Never => self.progress = Progress::Started,
                LastTick::At(at) => {
                    // It was a tick, including the offset.
                    self.base = at;
                    self.progress = Progress::Ticking;
                }
            }
        }
        self.notice_set_back(now);
        // A run that started late, after an outage, counts for all ticks that fell due until then.
        // Not one that started later than now, by a clock that was ahead.
        let covers = self.each == 0 && last.covered <= now;
        let covered = if covers { self.base.max(last.covered) } else { self.base };
        let Some(first) = self.next(covered) else { return Due::Never };
        if first > now {
            return Due::At(first);
        }
        let first = match self.drop_late(first, now) {
            Some(first) if first <= now => first,
            Some(first) => return Due::At(first),
            None => return Due::Never,
        };
        let (at, count) = self.missed(first, now);
        let occurrence = match (self.schedule.is_repeated(), at <= last.latest) {
            (false, _) => Occurrence::Only,
            (true, false) => Occurrence::First,
            (true, true) => Occurrence::Again,
        };
        let scheduled = Scheduled { at, occurrence, max_lateness: self.max_lateness };
        Due::Now(Tick { scheduled, count, dropped: self.dropped })
    }

    /// A tick is returned.
    fn take(&mut self, tick: &Tick) {
        self.base = tick.scheduled.at;
        self.dropped = 0;
        self.progress = Progress::Ticking;
    }

    /// If the clock was ahead and has been set back by more than the time between two ticks, goes on
    /// from now.
    fn notice_set_back(&mut self, now: i64) {
        // Before the first tick, `base` is later than now by the offset.
        let now = match self.progress {
            Progress::Ticking => now,
            Progress::Resuming | Progress::Started => now.saturating_add(self.offset),
        };
        if self.base <= now {
            return;
        }
        // What fell due since, before this was noticed, is due. If it was before too, it has a run,
        // which its key is for.
        let may_have_run = self.progress == Progress::Ticking && !self.schedule.is_repeated();
        let unnoticed = if may_have_run { NOTICED_WITHIN } else { 0 };
        let since = now.saturating_sub(unnoticed);
        if self.after(since) < self.base {
            self.base = self.latest(since);
        }
    }

    /// Drops the ticks that are too late, of which `first` is the first that is due. Returns the first
    /// that remains.
    fn drop_late(&mut self, first: i64, now: i64) -> Option<i64> {
        if self.max_lateness == ANY {
            return Some(first);
        }
        let earliest = now.saturating_sub(i64::from(self.max_lateness).saturating_mul(SECOND));
        if first >= earliest {
            return Some(first);
        }
        let (last, count) = self.count(first, earliest - 1);
        (self.base, self.progress) = (last, Progress::Ticking);
        self.dropped = (self.dropped + count).min(MOST);
        self.next(last)
    }

    /// The tick to be served of those from `first` until now, and for how many it stands.
    fn missed(&self, first: i64, now: i64) -> (i64, u16) {
        let each = u16::from(self.each);
        let (last, count) = self.count(first, now);
        if each == 0 {
            return (last, count);
        }
        if count <= each {
            return (first, 1);
        }
        if count == MOST {
            return (self.all_but(each, first, now), MOST);
        }
        let mut at = first;
        for _ in each + 1..count {
            at = self.after(at);
        }
        // Cannot pass `now`: it is as many as were counted.
        (at.min(now), count - each)
    }

    /// The last tick until a time, and how many there are from the first, at most [`MOST`].
    fn count(&self, first: i64, until: i64) -> (i64, u16) {
        let (mut last, mut count) = (first, 1);
        while let Some(next) = self.next(last).filter(|next| *next <= until) {
            if count == MOST {
                return (self.last(next, until), MOST);
            }
            (last, count) = (next, count + 1);
        }
        (last, count)
    }

    /// The last tick until a time, given an earlier one; with few steps, however many are between.
    fn last(&self, known: i64, until: i64) -> i64 {
        let (mut last, mut high) = (known, until);
        while let Some(next) = self.next(last).filter(|next| *next <= until) {
            last = next;
            let middle = last + (high - last) / 2;
            match self.next(middle).filter(|next| *next <= until) {
                Some(next) => last = next,
                // There is none from here on.
                None => high = middle,
            }
        }
        last
    }

    /// The last tick until now; now, if there has been none for as long as can be said.
    fn latest(&self, now: i64) -> i64 {
        let mut distance = SECOND;
        loop {
            let time = now.saturating_sub(distance);
            if let Some(known) = self.next(time).filter(|next| *next <= now) {
                return self.last(known, now);
            }
            match distance.checked_mul(2) {
                Some(further) => distance = further,
                None => return now,
            }
        }
    }

    /// The last of the ticks from `first` until now, so many excepted.
    fn all_but(&self, newest: u16, first: i64, now: i64) -> i64 {
        let remain = |time| {
            let mut last = time;
            let mut more = 0;
            while more <= newest
                && let Some(next) = self.next(last).filter(|next| *next <= now)
            {
                (last, more) = (next, more + 1);
            }
            more
        };
        // More remain after `low`, and no more after `high`.
        let (mut low, mut high) = (first, now);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if remain(middle) > newest { low = middle } else { high = middle }
        }
        self.last(first, high)
    }
}

impl<P, S> fmt::Debug for Ticks<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticks({:?})", self.subscription)
    }
}

/// A number in `0..spread` that depends only on the names, the same in every process and on every
/// machine (FNV-1a: it has to spread evenly, not to resist an attack).
fn stable_fraction(path: &str, label: &str, spread: i64) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in path.bytes().chain([0]).chain(label.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The high bits of FNV vary little for short inputs: mix them once.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let scaled = (u128::from(hash) * u128::from(spread.unsigned_abs())) >> 64;
    i64::try_from(scaled).unwrap_or(0)
}

#[cfg(test)]
mod tests;
