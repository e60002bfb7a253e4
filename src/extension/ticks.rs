//! When the next tick of a subscription is due.
//!
//! The guarantees: ticks lie on a grid that is computed from its first point, so they do not drift;
//! ticks that could not be served become one; and the grid survives a restart of the extension,
//! because Gofer is asked (in the background, by `resume`) when the last run of this label started.
//!
//! All times here are nanoseconds of [`Gofer::monotonic`](crate::Gofer), eight bytes each, because
//! every live interval subscription holds some of them.

use std::fmt;
use std::time::Duration;

use super::go_duration::GoDuration;
use super::live::LastRun;
use super::subscription::Subscription;
use crate::error::{Error, ErrorKind, Result};

/// The ticks of one subscription; made by [`Subscription::every`].
///
/// ```
/// use gofer_sdk::{Declared, GoDuration, Result, Run, Subscription};
///
/// async fn hourly<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let mut ticks = subscription.every(GoDuration::from_hours(1))?;
///     while ticks.next().await {
///         subscription.start_run(Run::because("an hour has passed")).await?;
///     }
///     Ok(())
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(serve: hourly);
/// # core.elapse(gofer_core::minutes(150)).await;
/// # assert_eq!(core.runs("ops/nightly").len(), 2);
/// # Ok(()) }
/// ```
pub struct Ticks<P> {
    subscription: Subscription<P>,
    grid: Grid,
}

impl<P: Send + Sync + 'static> Ticks<P> {
    pub(super) fn new(subscription: Subscription<P>, period: GoDuration) -> Result<Self> {
        if !period.is_positive() {
            let why = "the time between two ticks must be longer than 0s";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        if subscription.live().last_run() == LastRun::Unknown {
            subscription.ask_for_last_run();
        }
        let grid = Grid::new(period.as_nanos(), subscription.gofer().monotonic());
        Ok(Self { subscription, grid })
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
        self.grid.origin = self.grid.origin.saturating_add(offset);
        self
    }

    /// Waits for the next tick; `false` once the subscription is cancelled.
    ///
    /// Several ticks that fell due since the last call, or since the last run that the subscription
    /// started, become one.
    ///
    /// Cancel safe: a future dropped before it completes loses no tick.
    #[expect(clippy::should_implement_trait, reason = "it is asynchronous")]
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would store `self` twice, for each waiting subscription"
    )]
    pub fn next(&mut self) -> impl Future<Output = bool> + Send {
        async move {
            loop {
                if self.subscription.is_cancelled() {
                    return false;
                }
                let last = self.subscription.live().last_run();
                let now = self.subscription.gofer().monotonic();
                let due = self.grid.due(last);
                if now >= due {
                    self.grid.serve(now);
                    // With a tiny period the next tick is always due: let other tasks run
                    // nevertheless.
                    tokio::task::consume_budget().await;
                    return true;
                }
                let wait = Duration::from_nanos(due.abs_diff(now));
                let changed = self.subscription.live().changed_since(last);
                let _either = tokio::time::timeout(wait, changed).await;
            }
        }
    }
}

/// Where the ticks lie, and which of them have been served.
struct Grid {
    period: i64,
    /// A tick is due at every `origin + n * period`, for n from one.
    origin: i64,
    /// Ticks up to here have been returned.
    served: i64,
    /// Whether the grid may still be moved to the last run that Gofer reports.
    resuming: bool,
}

impl Grid {
    fn new(period: i64, now: i64) -> Self {
        Self { period, origin: now, served: now, resuming: true }
    }

    /// The first tick that has not been served yet.
    fn due(&mut self, last: LastRun) -> i64 {
        if self.resuming {
            match last {
                LastRun::Unknown => {}
                LastRun::Never => self.resuming = false,
                LastRun::At(at) => {
                    // That run started on the grid, including the offset.
                    self.origin = at;
                    self.served = at;
                    self.resuming = false;
                }
            }
        }
        let covered = match last {
            // A run that started late, after an outage, counts for all ticks that fell due until
            // then.
            LastRun::At(at) => self.served.max(at),
            LastRun::Unknown | LastRun::Never => self.served,
        };
        next_on_grid(self.origin, self.period, covered)
    }

    fn serve(&mut self, now: i64) {
        self.served = now;
        self.resuming = false;
    }
}

impl<P> fmt::Debug for Ticks<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = GoDuration::from_nanos(self.grid.period);
        write!(f, "Ticks({:?} every {period})", self.subscription)
    }
}

/// The first point after `covered` on the grid that starts at `origin`; the origin itself is not a
/// tick.
fn next_on_grid(origin: i64, period: i64, covered: i64) -> i64 {
    let passed = covered.saturating_sub(origin).max(0) / period;
    origin.saturating_add(period.saturating_mul(passed.saturating_add(1)))
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
