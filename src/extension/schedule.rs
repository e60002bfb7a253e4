//! Schedules: the times at which the ticks of a subscription fall due.
//!
//! A schedule only computes times. Which of them have been served, what becomes of those that were
//! missed, and clocks that are set are the business of [`super::ticks`].

use std::time::SystemTime;

use super::go_duration::GoDuration;
use crate::client::{system_time, unix_nanos};
use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "cron")]
mod cron;

#[cfg(feature = "cron")]
pub use cron::{Cron, ParseCronError};

/// The times at which something is due, such as every five minutes, or at 02:30 each night.
///
/// [`Every`] and, with the feature `cron`, `Cron` are schedules, and a type of your own can be one:
/// [`Subscription::schedule`](crate::Subscription::schedule) makes ticks of any of them.
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
///
/// use gofer_sdk::{Declared, Result, Schedule, Subscription};
///
/// /// At a few fixed times.
/// struct At(Vec<SystemTime>);
///
/// impl Schedule for At {
///     fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
///         self.0.iter().copied().filter(|at| *at > time).min()
///     }
/// }
///
/// async fn twice<P: Declared>(subscription: Subscription<P>) -> Result<()> {
///     let now = subscription.now();
///     let hours = |n: u64| now + Duration::from_secs(n * 60 * 60);
///     let mut ticks = subscription.schedule(At(vec![hours(1), hours(3)]))?;
///     while let Some(tick) = ticks.next().await {
///         subscription.start_run(tick.run("it is time")).await?;
///     }
///     Ok(()) // also after the last tick
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, docs, _) = documented!(serve: twice);
/// # core.elapse(gofer_core::hours(2)).await;
/// # assert_eq!(core.runs("ops/nightly").len(), 1);
/// # core.elapse(gofer_core::hours(2)).await;
/// # assert_eq!(core.runs("ops/nightly").len(), 2);
/// # docs.unsubscribe("ops/nightly", "docs").await?;
/// # Ok(()) }
/// ```
pub trait Schedule: Send + Sync + 'static {
    /// The first time after `time`; `None` if there is none ever again.
    ///
    /// It is later than `time`, and depends on nothing but `time` and the schedule. Called a few
    /// times for each tick, on the runtime's thread: it should take microseconds.
    fn next_after(&self, time: SystemTime) -> Option<SystemTime>;

    /// The same for a schedule that counts from a point in time, as [`Every`] does. `start` is a time
    /// at which it was due or, if there was none, at which the subscription was made.
    ///
    /// This is what is called for ticks. The default calls [`next_after`](Self::next_after).
    fn next_from(&self, start: SystemTime, time: SystemTime) -> Option<SystemTime> {
        let _ = start;
        self.next_after(time)
    }

    /// Whether a time that comes a second time, since the clock was set back, is due a second time.
    ///
    /// It is not by default: what is to be done at 02:30 has been done. It is for [`Every`], which
    /// measures how much time passes.
    fn is_repeated(&self) -> bool {
        false
    }
}

/// A schedule with the same time between any two ticks, counted from when the subscription was made.
///
/// [`Subscription::every`](crate::Subscription::every) is the short form.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use gofer_sdk::{Every, GoDuration, Schedule};
///
/// let hourly = Every::new(GoDuration::from_hours(1))?;
/// let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
/// assert_eq!(hourly.next_after(at(100)), Some(at(3700)));
/// assert_eq!(hourly.next_from(at(60), at(100)), Some(at(3660)));
/// assert!(Every::new(GoDuration::ZERO).is_err());
/// # Ok::<(), gofer_sdk::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// In nanoseconds; positive.
    period: i64,
}

impl Every {
    /// A schedule with a period.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](ErrorKind::InvalidParameter) if the period is not positive.
    pub fn new(period: GoDuration) -> Result<Self> {
        if !period.is_positive() {
            let why = "the time between two ticks must be longer than 0s";
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        Ok(Self { period: period.as_nanos() })
    }

    /// The time between two ticks.
    pub fn period(&self) -> GoDuration {
        GoDuration::from_nanos(self.period)
    }
}

impl Schedule for Every {
    fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        self.next_from(time, time)
    }

    fn next_from(&self, start: SystemTime, time: SystemTime) -> Option<SystemTime> {
        let next = next_on_grid(unix_nanos(start), self.period, unix_nanos(time));
        (next < i64::MAX).then(|| system_time(next))
    }

    fn is_repeated(&self) -> bool {
        true
    }
}

/// The first point after `time` on the grid through `base`.
fn next_on_grid(base: i64, period: i64, time: i64) -> i64 {
    let passed = time.saturating_sub(base).div_euclid(period);
    base.saturating_add(period.saturating_mul(passed.saturating_add(1)))
}

#[cfg(test)]
mod tests;
