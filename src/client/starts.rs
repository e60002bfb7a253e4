//! What all starts of one client share: limits, what is known of the Gofer that it is connected to,
//! and of the keys that were used.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use gofer_net::{Promised, promise};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;

use super::pipelines::{Pipelines, lock};
use super::start::Wanted;

/// Calls to start a run that may be in flight at once. Fewer saturate one connection, and after an
/// outage, not every subscription calls Gofer at once.
const IN_FLIGHT: usize = 64;

/// Starts beyond those in flight whose response a full Gofer is holding back. Together they are
/// fewer than the calls that servers and proxies allow on one connection.
const HELD: usize = 32;

/// Keys of authors that are remembered, with the runs that have them.
const SEEN: usize = 1024;

/// How long it is assumed that keys are not enforced, if the answer does not say.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// What all starts of one client share.
pub(super) struct Starts {
    pub(super) permits: Semaphore,
    pub(super) held: Semaphore,
    learned: Mutex<Learned>,
    pub(super) pipelines: Pipelines,
    seen: Mutex<Seen>,
}

/// Whether keys are enforced.
#[derive(Default)]
struct Learned {
    /// The number of the connection that this is about.
    connection: u64,
    enforced: bool,
    /// If it is an assumption.
    until: Option<Instant>,
    /// The question that is under way, or was last.
    question: Option<(u64, Answer)>,
}

/// The outcome of asking whether keys are enforced.
pub(super) type Answer = Promised<Result<bool, Status>>;

#[derive(Default)]
struct Seen {
    runs: HashMap<String, i64>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Default for Starts {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(IN_FLIGHT),
            held: Semaphore::new(HELD),
            learned: Mutex::default(),
            pipelines: Pipelines::default(),
            seen: Mutex::default(),
        }
    }
}

impl Starts {
    /// Whether keys are enforced on this connection, if that is known.
    pub(super) fn enforces_keys(&self, connection: u64) -> Option<bool> {
        let learned = lock(&self.learned);
        let is_over = learned.until.is_some_and(|until| until <= Instant::now());
        (learned.connection == connection && !is_over).then_some(learned.enforced)
    }

    pub(super) fn learned(&self, connection: u64, enforced: bool) -> bool {
        let mut learned = lock(&self.learned);
        (learned.connection, learned.enforced, learned.until) = (connection, enforced, None);
        enforced
    }

    /// Assumes for a while what is right on every Gofer.
    pub(super) fn assumed(&self, connection: u64) -> bool {
        let mut learned = lock(&self.learned);
        let until = Some(Instant::now() + ASSUMED_FOR);
        (learned.connection, learned.enforced, learned.until) = (connection, false, until);
        false
    }

    /// Asks in a task, unless that is under way for this connection.
    pub(super) fn ask<F>(&self, connection: u64, ask: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Result<bool, Status>> + Send + 'static,
    {
        let mut learned = lock(&self.learned);
        let is_under_way = |(of, answer): &&(u64, Answer)| *of == connection && answer.is_pending();
        if let Some((_, answer)) = learned.question.as_ref().filter(is_under_way) {
            return answer.clone();
        }
        let (outcome, answer) = promise();
        learned.question = Some((connection, answer.clone()));
        let ask = ask();
        tokio::spawn(async move { outcome.keep(ask.await) });
        answer
    }

    /// The run of an author's key, as far as it is remembered.
    pub(super) fn seen(&self, wanted: &Wanted) -> Option<i64> {
        lock(&self.seen).runs.get(&wanted.name()).copied()
    }

    /// Remembers the run of an author's key.
    pub(super) fn remember(&self, wanted: &Wanted, run: i64) {
        let name = wanted.name();
        let Seen { runs, order } = &mut *lock(&self.seen);
        if runs.insert(name.clone(), run).is_none() {
            order.push_back(name);
        }
        if order.len() > SEEN
            && let Some(oldest) = order.pop_front()
        {
            runs.remove(&oldest);
        }
    }
}
