//! Limits how often something is logged: peers can cause some of it at will.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The limit is of lines in this time.
const PERIOD: Duration = Duration::from_secs(60);

/// For one kind of line; by default one in a minute.
#[derive(Debug)]
pub struct Throttle {
    lines: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// When the current minute began.
    began: Option<Instant>,
    /// Lines in it.
    lines: u32,
    since: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::lines(1)
    }
}

impl Throttle {
    /// So many lines in a minute, for what differs from line to line.
    pub fn lines(lines: u32) -> Self {
        Self { lines, counts: Mutex::default() }
    }

    /// Counts one occurrence. If it may be logged, returns the number of occurrences since the last
    /// that was, with this one.
    pub fn record(&self) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.since += 1;
        if counts.began.is_none_or(|began| began.elapsed() >= PERIOD) {
            (counts.began, counts.lines) = (Some(Instant::now()), 0);
        }
        if counts.lines >= self.lines {
            return None;
        }
        counts.lines += 1;
        Some(std::mem::take(&mut counts.since))
    }
}

#[cfg(test)]
mod tests;
