//! The state of a connection, by which it is chosen to be closed in favor of a new one.
//!
//! A connection that keeps the core waiting (for a handshake, for a request, for the rest of one)
//! can be closed; one whose event its extension is handling cannot. So half-sent requests, however
//! many, keep no sender out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gofer_net::admission::Evictable;
use tokio::time::Instant;

pub(super) struct ConnectionState {
    epoch: Instant,
    /// Since when the core has been waiting for the peer, in milliseconds since the epoch, or
    /// [`WAITING_FOR_CORE`].
    waiting_since: AtomicU64,
    /// The peer waits for no response: it has not begun a request.
    idle: AtomicBool,
    /// Its last request has not been read to the end, and will not be.
    pub(super) cut_off: AtomicBool,
}

/// The peer waits for the core.
const WAITING_FOR_CORE: u64 = u64::MAX;

impl ConnectionState {
    pub(super) fn new(epoch: Instant) -> Arc<Self> {
        let state = Self {
            epoch,
            waiting_since: AtomicU64::new(WAITING_FOR_CORE),
            idle: AtomicBool::new(true),
            cut_off: AtomicBool::new(false),
        };
        state.expect_request();
        Arc::new(state)
    }

    /// The peer is expected to send a request.
    pub(super) fn expect_request(&self) {
        self.idle.store(true, Ordering::Relaxed);
        self.expect_body(Instant::now(), Duration::ZERO);
    }

    /// The peer is expected to send a body, since the given time. What has arrived of the body
    /// counts as time in its favor: a long upload is not an attack.
    pub(super) fn expect_body(&self, since: Instant, credit: Duration) {
        let since = (since + credit).saturating_duration_since(self.epoch);
        let since = u64::try_from(since.as_millis()).unwrap_or(WAITING_FOR_CORE - 1);
        self.waiting_since.store(since, Ordering::Relaxed);
    }

    /// The peer has begun a request, to which it gets a response.
    pub(super) fn request_begun(&self) {
        self.idle.store(false, Ordering::Relaxed);
    }

    /// The peer waits for the core.
    pub(super) fn expect_nothing(&self) {
        self.waiting_since.store(WAITING_FOR_CORE, Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }
}

impl Evictable for ConnectionState {
    const PURPOSE: &'static str = "external events";
    const FULL: &'static str = "too many external events are in progress; refusing a connection";

    type Rank = u64;

    /// The one that has kept the core waiting longest is closed first.
    fn rank(&self) -> Option<u64> {
        let since = self.waiting_since.load(Ordering::Relaxed);
        (since != WAITING_FOR_CORE).then_some(since)
    }
}
