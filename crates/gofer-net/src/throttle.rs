//! Limits how often a warning is logged: peers can cause some of them at will.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Each kind of warning is logged at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// For one kind of warning.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    logged: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// Counts one occurrence. If it is time to log, returns the number of occurrences since the
    /// last time.
    pub(crate) fn record(&self) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.since += 1;
        if counts.logged.is_some_and(|logged| logged.elapsed() < WARN_EVERY) {
            return None;
        }
        counts.logged = Some(Instant::now());
        Some(std::mem::take(&mut counts.since))
    }
}

#[cfg(test)]
mod tests;
