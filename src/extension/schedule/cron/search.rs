//! The next time at which the clocks of a zone show a minute that matches.
//!
//! Between two changes, what clocks show and the time go on together. So each stretch between two is
//! searched on its own, and a minute that is skipped or shown twice is no special case: nothing shows
//! the one, and two stretches show the other.

use super::Cron;
use super::fields::{LAST_YEAR, WallClock};

const HOUR: i64 = 60 * 60;

/// Clocks are never as far from UTC. The farthest are 16 hours away, and jiff allows less than this.
const FARTHEST: i64 = 26 * HOUR;

/// Clocks that are set back show nothing again that is longer ago than this.
const SHOWN_AGAIN: i64 = 2 * FARTHEST;

/// After all years that there are.
const END: i64 = (LAST_YEAR + 1 - 1970) * 366 * 24 * HOUR;

impl Cron {
    /// In Unix seconds.
    pub(super) fn next_second_after(&self, time: i64) -> Option<i64> {
        let mut from = time.clamp(-FARTHEST, END) + 1;
        loop {
            // One stretch, from `from` on.
            let offset = self.zone.offset_at(from);
            let end = self.zone.change_after(from).unwrap_or(i64::MAX);
            let next = self.fields.next(from + offset);
            match next {
                Some(shown) if shown - offset < end => {
                    let time = shown - offset;
                    match self.new_after(shown, time, offset) {
                        Some(new) => from = new.min(end),
                        None => return Some(time),
                    }
                }
                // The next stretch may show again what is before `from` in this one.
                _ if end < from + SHOWN_AGAIN => from = end,
                // All that follows is later on the clock than `from`: no need to look at each stretch.
                Some(shown) => from = end.max(shown - FARTHEST),
                None => return None,
            }
        }
    }

    /// When the clocks no longer show what they have shown before, if at `time` they do and it does
    /// not count twice.
    fn new_after(&self, shown: WallClock, time: i64, offset: i64) -> Option<i64> {
        if !self.fields.names_hours {
            return None;
        }
        // Each stretch that ends at `time` or a little before. Forwards, since jiff's way back misses
        // the latest change of a few zones.
        let mut start = time - SHOWN_AGAIN;
        while let Some(end) = self.zone.change_after(start).filter(|end| *end <= time) {
            let before = self.zone.offset_at(start);
            if (start..end).contains(&(shown - before)) {
                return Some(end + before - offset);
            }
            start = end;
        }
        None
    }
}
