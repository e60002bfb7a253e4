//! One clock for all code that compares its own time with Gofer's.
//!
//! Timers use tokio's clock, run records contain Unix time. In production the two are independent,
//! and the system clock is read each time because it may be set. In a test with paused time the
//! system clock would stand still while timers of days fire, so an embedded core derives Unix time
//! from tokio's clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The year 2200. A system clock that is later is wrong, and nanoseconds in 64 bits end in 2262.
const LATEST: Duration = Duration::from_secs(7_258_118_400);

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    source: Source,
}

/// Where Unix time comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    System,
    /// Tokio's clock, from this Unix time at `origin`.
    Derived(Duration),
    /// The same, and so many nanoseconds ahead.
    Set(Duration, &'static AtomicI64),
}

impl Clock {
    /// With the system's Unix time.
    pub fn system() -> Self {
        Self { origin: Instant::now(), source: Source::System }
    }

    /// With Unix time derived from tokio's clock, paused or not.
    pub fn derived() -> Self {
        Self::derived_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The same from another time, so that nothing depends on when it runs.
    pub fn derived_from(unix: Duration) -> Self {
        Self { origin: Instant::now(), source: Source::Derived(unix) }
    }

    /// With Unix time derived from tokio's clock and set by a test: it is so many nanoseconds
    /// ahead.
    pub fn set_by(ahead: &'static AtomicI64) -> Self {
        let Self { origin, source } = Self::derived();
        match source {
            Source::Derived(now) => Self { origin, source: Source::Set(now, ahead) },
            source => Self { origin, source },
        }
    }

    /// The same from a Unix time of the test's, so that nothing depends on when it runs.
    pub fn set_by_from(ahead: &'static AtomicI64, unix: Duration) -> Self {
        Self { origin: Instant::now(), source: Source::Set(unix, ahead) }
    }

    /// Whether Unix time may pass otherwise than tokio's: someone may set the clock, and while a
    /// machine is suspended, tokio's stands still.
    pub fn may_be_set(&self) -> bool {
        !matches!(self.source, Source::Derived(_))
    }

    /// Nanoseconds of tokio's clock since this clock was made.
    pub fn monotonic(&self) -> i64 {
        nanos(self.origin.elapsed())
    }

    /// Now, in Unix milliseconds.
    pub fn unix_millis(&self) -> i64 {
        i64::try_from(self.unix().as_millis()).unwrap_or(i64::MAX)
    }

    /// Now, in Unix nanoseconds.
    pub fn unix_nanos(&self) -> i64 {
        nanos(self.unix())
    }

    fn unix(&self) -> Duration {
        let running = self.origin.elapsed();
        let unix = match self.source {
            Source::Derived(at_origin) => return at_origin + running,
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).ok(),
            Source::Set(at_origin, ahead) => {
                let ahead = ahead.load(Ordering::Relaxed);
                let by = Duration::from_nanos(ahead.unsigned_abs());
                let unset = at_origin + running;
                if ahead < 0 { unset.checked_sub(by) } else { Some(unset + by) }
            }
        };
        // Time goes on, also by a clock that shows an impossible one.
        match unix {
            Some(unix) if unix < LATEST => unix,
            Some(_) => LATEST + running,
            None => running,
        }
    }
}

/// A time as the contract has it. One before 1970 reads as 1970.
pub fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time from the contract. One before 1970 reads as 1970.
pub fn from_unix_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.max(0).unsigned_abs())
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
