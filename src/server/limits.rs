//! Every limit of the server, with its reason.

use std::time::Duration;

/// The limits of a server.
///
/// The defaults suit an extension in a container; a test or an unusual deployment changes some of
/// them:
///
/// ```
/// use std::time::Duration;
/// use gofer_sdk::Limits;
///
/// let limits = Limits::default().with_stop_grace(Duration::from_secs(1));
/// assert_eq!(limits.stop_grace(), Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Limits {
    connections: gofer_net::Limits,
    message_bytes: usize,
    conversations: usize,
    external_events: usize,
    stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: gofer_net::Limits::default(),
            message_bytes: 40 * 1024 * 1024,
            conversations: 64,
            external_events: 128,
            stop_grace: Duration::from_secs(3),
        }
    }
}

/// Longer times are cut to this: a century is as good as no limit, and the sum of two does not
/// overflow.
const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Limits {
    pub(super) fn connection_limits(&self) -> gofer_net::Limits {
        self.connections.clone()
    }

    /// Connections open at once; default 1024, a common limit of open files.
    ///
    /// Gofer needs one. At the limit, a new connection replaces the oldest one that has not shown a
    /// valid token, or else the one that has had no open call for longest. So neither a flood of
    /// unauthenticated peers nor connections that Gofer forgot keep it out. A quarter of the places
    /// is for peers that connected less than 2 s ago and have made no call: while there are fewer of
    /// them, none is closed for another connection. If nothing can be closed, 16 more are accepted,
    /// and closed unless their first call, within 2 s, has the token. Refusals are logged once a
    /// minute.
    ///
    /// Without the token, a peer can only ask for the extension's health: up to 8 calls of `Check`
    /// and 8 of `Watch` at a time on each connection, and 512 of `Watch` on all of them. A `Watch`
    /// ends after 5 minutes with `UNAVAILABLE`, and can then be made again.
    pub fn connections(&self) -> usize {
        self.connections.connections
    }

    /// Sets [`connections`](Self::connections); at least 1.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections.connections = connections.max(1);
        self
    }

    /// Calls in flight on one connection; default 256. Further calls wait in the caller's HTTP/2
    /// implementation.
    pub fn calls_per_connection(&self) -> u32 {
        self.connections.calls_per_connection
    }

    /// Sets [`calls_per_connection`](Self::calls_per_connection); at least 1.
    pub fn with_calls_per_connection(mut self, calls: u32) -> Self {
        self.connections.calls_per_connection = calls.max(1);
        self
    }

    /// The largest message accepted, in bytes; default 40 MiB, enough for an external event of 32
    /// MiB. Only callers with the token can send one.
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Sets [`message_bytes`](Self::message_bytes).
    pub fn with_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// The number of concurrent installer conversations, and separately of configurator
    /// conversations; default 64. Further ones are refused with `RESOURCE_EXHAUSTED`.
    pub fn conversations(&self) -> usize {
        self.conversations
    }

    /// Sets [`conversations`](Self::conversations).
    pub fn with_conversations(mut self, conversations: usize) -> Self {
        self.conversations = conversations.min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// External events that are handled at a time; default 128, so that as many calls of Gofer's one
    /// connection are left for everything else. Further ones are refused with
    /// `UNAVAILABLE`, for which an embedded core tells the sender to try again.
    pub fn external_events(&self) -> usize {
        self.external_events
    }

    /// Sets [`external_events`](Self::external_events).
    pub fn with_external_events(mut self, events: usize) -> Self {
        self.external_events = events.min(tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// The time for a TLS handshake; default 5 s.
    pub fn handshake_timeout(&self) -> Duration {
        self.connections.handshake_timeout
    }

    /// Sets [`handshake_timeout`](Self::handshake_timeout).
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.connections.handshake_timeout = timeout.min(MAX_TIME);
        self
    }

    /// The time from the handshake to the complete headers of the first call; default 30 s. A
    /// connection that makes no call in this time is closed. The message of a call that does not
    /// stream its request has to arrive in this time too.
    pub fn first_call_timeout(&self) -> Duration {
        self.connections.first_call_timeout
    }

    /// Sets [`first_call_timeout`](Self::first_call_timeout).
    pub fn with_first_call_timeout(mut self, timeout: Duration) -> Self {
        self.connections.first_call_timeout = timeout.min(MAX_TIME);
        self
    }

    /// The time that a cancelled `serve` has before it is dropped, and the time that the author's
    /// `shutdown` has; default 3 s each. By default a stop takes at most 7 s, or 9 s if something
    /// blocks its thread: less than the 10 s after which Docker kills a container.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace
    }

    /// Sets [`stop_grace`](Self::stop_grace).
    pub fn with_stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace.min(MAX_TIME);
        self
    }
}
