//! One clock for all code that compares its own time with Gofer's.
//!
//! Timers use tokio's clock, run records contain Unix time. In production the two are independent,
//! and the system clock is read each time because it may be set. In a test with paused time the
//! system clock would stand still while timers of days fire, so an embedded core derives Unix time
//! from tokio's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// Unix time at `origin` if it is derived; `None` to read the system's.
    derived: Option<Duration>,
}

impl Clock {
    /// With the system's Unix time.
    pub fn system() -> Self {
        Self { origin: Instant::now(), derived: None }
    }

    /// With Unix time derived from tokio's clock, paused or not.
    pub fn derived() -> Self {
        Self { origin: Instant::now(), derived: Some(system_unix()) }
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
        match self.derived {
            Some(at_origin) => at_origin + self.origin.elapsed(),
            None => system_unix(),
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

fn system_unix() -> Duration {
    // A clock before 1970 reads as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
