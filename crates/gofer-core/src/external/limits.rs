//! The configurable limits of the listener for external events, with their reasons.

use std::time::Duration;

/// The limits of external events.
///
/// The defaults are made for a core that accepts webhooks from the internet, with or without a
/// reverse proxy:
///
/// ```
/// use gofer_core::ExternalEventLimits;
///
/// let limits = ExternalEventLimits::default().with_body_bytes(1024 * 1024);
/// assert_eq!(limits.body_bytes(), 1024 * 1024);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ExternalEventLimits {
    body_bytes: usize,
    memory_bytes: usize,
    connections: usize,
    calls_per_extension: usize,
    header_timeout: Duration,
    body_timeout: Duration,
    queue_timeout: Duration,
}

impl Default for ExternalEventLimits {
    fn default() -> Self {
        Self {
            body_bytes: 32 * MIB,
            memory_bytes: 256 * MIB,
            connections: 2048,
            calls_per_extension: 128,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(20),
            queue_timeout: Duration::from_secs(10),
        }
    }
}

const MIB: usize = 1024 * 1024;

/// Memory for the request line and headers of a body; more than is accepted of them.
const HEAD_BYTES: usize = 64 * 1024;

/// Longer durations are cut to this, so that sums of two don't overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl ExternalEventLimits {
    /// The largest body, in bytes; default 32 MiB. A larger one is answered 413.
    ///
    /// An extension that uses this SDK accepts messages of up to [40
    /// MiB](gofer_sdk::Limits::message_bytes) by default. If an event is too large for its
    /// extension, the answer is 413, too.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Sets [`body_bytes`](Self::body_bytes).
    pub fn with_body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes.min(usize::MAX / 16);
        self
    }

    /// The memory in bytes for all bodies of more than 32 KiB, each held until its event is
    /// answered; default 256 MiB, at least that of four of the largest bodies. Sending an event to
    /// its extension takes the same amount once more.
    ///
    /// The events of an extension can reserve at most half of it, less if other extensions hold
    /// some. A body waits for memory for up to [`queue_timeout`](Self::queue_timeout).
    pub fn memory_bytes(&self) -> usize {
        // An extension may hold half of it, which then fits two bodies.
        self.memory_bytes.max(4 * (self.body_bytes + HEAD_BYTES))
    }

    /// Sets [`memory_bytes`](Self::memory_bytes).
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// The number of open connections; default 2048, each of which takes about 200 KiB at most. At
    /// the limit, or if the process has too many open files, the connection that has kept the core
    /// waiting longest for the rest of its request is closed in favor of the new one.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Sets [`connections`](Self::connections); at least 1.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// The number of events that an extension handles at once; default 128, half of the calls that
    /// an extension accepts on a connection, so that subscriptions and health checks still get
    /// through. Further events wait for up to [`queue_timeout`](Self::queue_timeout).
    pub fn calls_per_extension(&self) -> usize {
        self.calls_per_extension
    }

    /// Sets [`calls_per_extension`](Self::calls_per_extension); at least 1.
    pub fn with_calls_per_extension(mut self, calls: usize) -> Self {
        self.calls_per_extension = calls.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// The time for a TLS handshake, and then for the request line and headers, counted from the
    /// end of the previous request; default 30 s. An incomplete request is then answered 408.
    pub fn header_timeout(&self) -> Duration {
        self.header_timeout
    }

    /// Sets [`header_timeout`](Self::header_timeout).
    pub fn with_header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout.min(LONGEST);
        self
    }

    /// The time for a body to arrive, plus a second for each 64 KiB received; default 20 s. After
    /// that, the request is answered 408.
    ///
    /// While other bodies wait for memory, one of more than 32 KiB must arrive at 256 KiB per
    /// second, after the first 2 s, or it is answered 408 too.
    pub fn body_timeout(&self) -> Duration {
        self.body_timeout
    }

    /// Sets [`body_timeout`](Self::body_timeout).
    pub fn with_body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout.min(LONGEST);
        self
    }

    /// How long an event waits for memory, and again for a call to its extension, before it is
    /// answered 503; default 10 s for each wait.
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout
    }

    /// Sets [`queue_timeout`](Self::queue_timeout).
    pub fn with_queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = timeout.min(LONGEST);
        self
    }
}
