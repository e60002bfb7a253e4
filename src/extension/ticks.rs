//! When the next tick of a subscription is due.
//!
//! The guarantees: ticks lie on a grid that is computed from one of its points, so they do not
//! drift; ticks that could not be served become one; and the grid survives a restart of the
//! extension, because Gofer is asked (in the background, by `resume`) what the label's last run was
//! scheduled for.
//!
//! All times here are Unix nanoseconds, eight bytes each, because every live interval subscription
//! holds some of them. They are read from the wall clock, which may be set: a task that waits for
//! the next tick is woken then, by `server::clock_watch`.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::go_duration::GoDuration;
use super::live::{LastRun, LastTick, Live};
use super::subscription::Subscription;
use crate::client::{Run, Scheduled, time};
use crate::error::{Error, ErrorKind, Result};

/// The ticks of one subscription; made by [`Subscription::every`].
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
pub struct Ticks<P> {
    subscription: Subscription<P>,
    grid: Grid,
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
    count: u64,
}

impl Tick {
    /// The time that it was scheduled for; of several that became one, the last. By the clock of
    /// the extension.
    pub fn scheduled(&self) -> SystemTime {
        time(self.scheduled.at)
    }

    /// How many ticks it stands for: 1, unless some were missed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A run for this tick, with a reason for people who look at it. Its key is made from the
    /// scheduled time, so it is started once, also if the extension is restarted in between; and it
    /// carries that time, as the variable `GOFER_EXTENSION_SCHEDULED_AT`, from which a restarted
    /// extension continues.
    pub fn run(&self, reason: impl Into<Cow<'static, str>>) -> Run {
        Run::scheduled(reason.into(), self.scheduled)
    }
}

impl<P: Send + Sync + 'static> Ticks<P> {
    pub(super) fn new(subscription: Subscription<P>, period: GoDuration) -> Result<Self> {
        if !period.is_positive() {
            let why = "the time between two ticks must be longer than 0s";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        let live = subscription.live();
        if live.last_run().scheduled == LastTick::Unknown {
            subscription.ask_for_last_run();
        }
        let origin = live.origin(subscription.gofer().now());
        Ok(Self { grid: Grid::new(period.as_nanos(), origin), subscription })
    }

    /// Delays every tick by an offset between zero and `spread`, always the same for the same
    /// subscription, so that subscriptions with the same period are not all due at the same
    /// instant.
    ///
    /// A `spread` of zero or less has no effect.
    #[must_use]
    pub fn jitter(mut self, spread: GoDuration) -> Self {
        let key = &self.subscription.live().key;
        let offset = stable_fraction(key.path(), key.label(), spread.as_nanos().max(0));
        self.grid.base = self.grid.base.saturating_add(offset);
        self
    }

    /// Waits for the next tick; `None` once the subscription is cancelled.
    ///
    /// Several ticks that fell due since the last call, or since the last run that the subscription
    /// started, become one. No tick is returned while the run of the last one is pending, as at the
    /// limit of its pipeline's parallelism; those that fall due meanwhile are covered by that run.
    ///
    /// If the future is dropped, no tick is lost: the next call returns it.
    #[expect(clippy::should_implement_trait, reason = "it is asynchronous")]
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would store `self` twice, for each waiting subscription"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Tick>> + Send {
        async move {
            // With a tiny period the next tick is always due: let other tasks run nevertheless.
            // Before the tick is taken, so that none is lost if this is dropped here.
            tokio::task::consume_budget().await;
            loop {
                let live = self.subscription.live();
                if live.is_cancelled() {
                    return None;
                }
                // First, so that none that follows is missed.
                let changes = live.changes();
                let last = live.last_run();
                let now = self.subscription.gofer().now();
                if live.queued_run().is_some() && self.grid.clone().poll(last, now).is_ok() {
                    let live: &Live = live;
                    live.queued_run_has_started().await;
                    continue;
                }
                let due = match self.grid.poll(last, now) {
                    Ok(tick) => {
                        live.set_next_tick(tick.scheduled.at.saturating_add(self.grid.period));
                        return Some(tick);
                    }
                    Err(due) => due,
                };
                if let LastTick::At(at) = last.scheduled
                    && at > now
                    && self.grid.base <= now
                {
                    // The clock was set back. Another `serve` goes on from here too, so that the tick
                    // at which this one fails is not lost.
                    live.rewind(last, now, self.grid.base);
                }
                let wait = Duration::from_nanos(due.abs_diff(now));
                let _either = tokio::time::timeout(wait, live.changed_since(changes)).await;
            }
        }
    }
}

/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// Where the ticks lie, and which of them have been returned.
#[derive(Clone)]
struct Grid {
    period: i64,
    /// A point of the grid: the last tick that was returned, or where the grid starts, which is no
    /// tick. The ticks are at `base + n * period`.
    base: i64,
    /// Up to here, runs have been scheduled. Later than now if the clock was ahead.
    used: i64,
    /// Whether the grid may still be moved to the last run that Gofer reports.
    resuming: bool,
}

impl Grid {
    fn new(period: i64, origin: i64) -> Self {
        Self { period, base: origin, used: i64::MIN, resuming: true }
    }

    /// The tick that is due, or when the next one will be.
    fn poll(&mut self, last: LastRun, now: i64) -> Result<Tick, i64> {
        if self.resuming {
            match last.scheduled {
                // A tick now might not be on the grid. What falls due meanwhile becomes one.
                LastTick::Unknown => return Err(now.saturating_add(self.period.max(SECOND))),
                LastTick::Never => self.resuming = false,
                LastTick::At(at) => {
                    // It was on the grid, including the offset.
                    (self.base, self.used) = (at, last.latest);
                    self.resuming = false;
                }
            }
        }
        if self.base.saturating_sub(now) >= self.period {
            // The clock was ahead and has been set back: the grid stays, and goes on from now.
            self.base = next_on_grid(self.base, self.period, now) - self.period;
        }
        // A run that started late, after an outage, counts for all ticks that fell due until then.
        // Not one that started later than now, by a clock that was ahead.
        let covered = if last.covered > now { self.base } else { self.base.max(last.covered) };
        let first = next_on_grid(self.base, self.period, covered);
        if first > now {
            return Err(first);
        }
        let more = (now - first) / self.period;
        let at = first + more * self.period;
        let again = at <= self.used;
        self.base = at;
        self.used = self.used.max(at);
        self.resuming = false;
        Ok(Tick { scheduled: Scheduled { at, again }, count: more.unsigned_abs() + 1 })
    }
}

impl<P> fmt::Debug for Ticks<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = GoDuration::from_nanos(self.grid.period);
        write!(f, "Ticks({:?} every {period})", self.subscription)
    }
}

/// The first point after `covered` on the grid through `base`.
fn next_on_grid(base: i64, period: i64, covered: i64) -> i64 {
    let passed = covered.saturating_sub(base).div_euclid(period);
    base.saturating_add(period.saturating_mul(passed.saturating_add(1)))
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
