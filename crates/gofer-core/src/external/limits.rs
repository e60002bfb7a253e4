//! Every bound of the listener for external events that may be changed, with
//! its reason.

use std::time::Duration;

/// The bounds within which a core takes external events.
///
/// The defaults suit a core that takes webhooks from the internet, behind a
/// reverse proxy or not:
///
/// ```
/// use gofer_core::ExternalEventLimits;
///
/// let limits = ExternalEventLimits::default().with_body_bytes(1024 * 1024);
/// assert_eq!(limits.body_bytes(), 1024 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct ExternalEventLimits {
    body_bytes: usize,
    memory_bytes: usize,
    connections: usize,
    calls_per_extension: usize,
    header_timeout: Duration,
    body_timeout: Duration,
    patience: Duration,
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
            patience: Duration::from_secs(10),
        }
    }
}

const MIB: usize = 1024 * 1024;

/// Room beside a body, for its line and headers; more than is accepted of them.
const BESIDE_A_BODY: usize = 64 * 1024;

/// Times longer than this are cut to it: the sum of two still is a time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl ExternalEventLimits {
    /// The largest body, in bytes; default 32 MiB. A larger one is answered 413.
    ///
    /// An extension that is written with this crate takes messages of
    /// [40 MiB](gofer_sdk::Limits::message_bytes) unless it says otherwise; one that
    /// finds an event too large makes its sender be told 413, too.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Sets [`body_bytes`](Self::body_bytes).
    #[must_use]
    pub fn with_body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes.min(usize::MAX / 16);
        self
    }

    /// What all bodies of more than 32 KiB may take together, in bytes, from
    /// their arrival to their answers; default 256 MiB, and never less than four
    /// of the largest bodies. The message that an extension is sent takes the
    /// same again until it is sent.
    ///
    /// An extension's events have no more of it than they leave free, so that one
    /// extension that hangs has half of it at most. A body that finds no room
    /// waits for [`patience`](Self::patience).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // An extension may have half of it, and then one body still fits twice.
        self.memory_bytes.max(4 * (self.body_bytes + BESIDE_A_BODY))
    }

    /// Sets [`memory_bytes`](Self::memory_bytes).
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Connections open at once; default 2048, and each takes some 64 KiB at
    /// most. At the limit, or where the process has no more open files, the one
    /// that has kept the core waiting longest for the rest of its request gives
    /// way to the new one.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Sets [`connections`](Self::connections); at least 1.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Events that are with one extension at once; default 128, half of the
    /// calls that an extension takes on a connection, so that it can still be
    /// subscribed to and watched. More wait for [`patience`](Self::patience).
    #[must_use]
    pub fn calls_per_extension(&self) -> usize {
        self.calls_per_extension
    }

    /// Sets [`calls_per_extension`](Self::calls_per_extension); at least 1.
    #[must_use]
    pub fn with_calls_per_extension(mut self, calls: usize) -> Self {
        self.calls_per_extension = calls.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// The time for a TLS handshake, and then for a request's line and headers,
    /// counted from the end of the request before; default 30 s. A request that
    /// has begun by then is answered 408.
    #[must_use]
    pub fn header_timeout(&self) -> Duration {
        self.header_timeout
    }

    /// Sets [`header_timeout`](Self::header_timeout).
    #[must_use]
    pub fn with_header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout.min(LONGEST);
        self
    }

    /// The time for a body, to which each 64 KiB that have arrived add a second;
    /// default 20 s. A slower one is answered 408.
    ///
    /// Where memory is short a body of more than 32 KiB has to keep a pace of
    /// 256 KiB a second, or it gives way in the same manner.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        self.body_timeout
    }

    /// Sets [`body_timeout`](Self::body_timeout).
    #[must_use]
    pub fn with_body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout.min(LONGEST);
        self
    }

    /// How long an event waits for memory, and then for its turn with the
    /// extension, before it is answered 503; default 10 s.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sets [`patience`](Self::patience).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(LONGEST);
        self
    }
}
