//! One clock for everything that compares its own time with Gofer's.
//!
//! Timers run on tokio's clock, run records carry Unix time. In production the
//! two are independent and the wall clock is asked each time, since it may be
//! set. In a test with paused time the wall clock would stand still while days
//! of timers pass, so the harness hands out a clock that derives Unix time from
//! tokio's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// Unix time at `origin` where Unix time is derived; `None` asks the system.
    derived: Option<Duration>,
}

impl Clock {
    /// Unix time is the system's.
    pub fn system() -> Self {
        Self { origin: Instant::now(), derived: None }
    }

    /// Unix time passes as tokio's clock does, paused or not.
    pub fn derived() -> Self {
        Self { origin: Instant::now(), derived: Some(system_unix()) }
    }

    /// Nanoseconds of tokio's clock since this clock was made.
    pub fn monotonic(&self) -> i64 {
        nanos(self.origin.elapsed())
    }

    /// Now, in Unix milliseconds.
    pub fn unix_millis(&self) -> i64 {
        let unix = match self.derived {
            Some(at_origin) => at_origin + self.origin.elapsed(),
            None => system_unix(),
        };
        i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
    }

    /// The time in [`monotonic`](Self::monotonic) that a Unix time in the past
    /// corresponds to. One in the future, by a clock that is ahead, is now.
    pub fn monotonic_at(&self, unix_millis: i64) -> i64 {
        let ago = self.unix_millis().saturating_sub(unix_millis).max(0);
        self.monotonic().saturating_sub(ago.saturating_mul(1_000_000))
    }
}

fn system_unix() -> Duration {
    // A clock before 1970 is not worth an error path: it reads as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
