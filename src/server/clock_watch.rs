//! Notices that the wall clock was set, or went on while the machine was suspended, and lets every
//! subscription compute anew when its next tick is due.
//!
//! Timers are tokio's, which know of neither. One watch for all subscriptions: if each looked at the
//! clock from time to time, a million that wait would not let the machine rest.

use std::time::Duration;

use super::registry::Registry;
use crate::client::Gofer;
use crate::extension::NOTICED_WITHIN;

/// How long it takes at most until it is noticed.
const LOOK_EVERY: Duration = Duration::from_nanos(NOTICED_WITHIN.unsigned_abs());

/// In nanoseconds; less than this is nothing unusual while a clock is being corrected.
const TOLERANCE: u64 = 1_000_000_000;

/// Does not return.
pub(super) async fn watch_clock(gofer: &Gofer, registry: &Registry) {
    if !gofer.clock_may_be_set() {
        return std::future::pending().await;
    }
    let ahead = || gofer.now_nanos().saturating_sub(gofer.monotonic());
    let mut known = ahead();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = ahead();
        let by = found.saturating_sub(known);
        if by.unsigned_abs() >= TOLERANCE {
            tracing::info!(
                seconds = by / 1_000_000_000,
                "the clock was set, or the machine was suspended; ticks are scheduled anew"
            );
            known = found;
            registry.reschedule();
        }
    }
}
