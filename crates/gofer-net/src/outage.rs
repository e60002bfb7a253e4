//! Whether the calls to a server work: an outage is logged once when it begins, with its reason, and
//! once when it is over, however many calls and subscriptions it concerns.

use std::error::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::BoxError;
use crate::channel::NotSent;
use crate::clock::Clock;
use crate::framed::failure;
use crate::throttle::Throttle;

/// As much is kept of a reason. A server may have put a whole page into it.
const MAX_REASON_CHARS: usize = 500;

/// A call that is given up sooner says nothing about the server.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// So many failures in a row are an outage if each could also be of that one call: a proxy lost one
/// connection, or the token does not suffice for one pipeline.
const IN_A_ROW: u32 = 3;

/// A time in which the calls to a server fail.
#[derive(Clone, Debug)]
pub struct Outage {
    since: Instant,
    /// When it began.
    pub began: SystemTime,
    /// Why the last call failed, with the reasons of the reason.
    pub reason: Arc<str>,
}

/// The outages of one server, as the calls of one client notice them.
pub struct Outages {
    /// The server, for the log.
    server: String,
    clock: Clock,
    /// How many calls have worked so far.
    worked: AtomicU64,
    /// How many have failed since one worked.
    failed: AtomicU32,
    current: watch::Sender<Option<Outage>>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// Servers that work every other second must not fill the log.
    throttle: Throttle,
    /// Whether the current outage was logged.
    logged: bool,
}

/// Whether a failure alone shows that all calls fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Concerns {
    /// Each call.
    All,
    /// Maybe this one only, unless none has worked yet.
    Maybe,
    /// This method, which not every server has.
    Method,
}

impl Outages {
    pub fn new(server: String, clock: Clock) -> Self {
        Self {
            server,
            clock,
            worked: AtomicU64::new(0),
            failed: AtomicU32::new(0),
            current: watch::Sender::new(None),
            log: Mutex::default(),
        }
    }

    /// The current one.
    pub fn current(&self) -> Option<Outage> {
        self.current.borrow().clone()
    }

    pub fn is_current(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// The current one, and each change.
    pub fn watch(&self) -> watch::Receiver<Option<Outage>> {
        self.current.subscribe()
    }

    /// A call begins.
    pub(crate) fn call(self: &Arc<Self>) -> Call {
        let worked = self.worked.load(Ordering::Acquire);
        Call { outages: Arc::clone(self), worked, since: Instant::now(), is_over: false }
    }

    fn worked(&self) {
        self.worked.fetch_add(1, Ordering::AcqRel);
        if self.failed.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut log = self.log();
        self.failed.store(0, Ordering::Release);
        let Some(outage) = self.current.send_replace(None) else { return };
        let is_news = std::mem::take(&mut log.logged);
        drop(log);
        if is_news {
            let seconds = outage.since.elapsed().as_secs();
            tracing::info!(gofer = self.server, seconds, "calls to Gofer work again");
        }
    }

    fn failed(&self, concerns: Concerns, reason: impl FnOnce() -> String) {
        let mut log = self.log();
        let in_a_row = self.failed.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let has_worked = self.worked.load(Ordering::Acquire) > 0;
        let is_outage = self.is_current()
            || match concerns {
                Concerns::All => true,
                Concerns::Maybe => !has_worked || in_a_row >= IN_A_ROW,
                Concerns::Method => in_a_row >= IN_A_ROW,
            };
        if !is_outage {
            return;
        }
        let reason: Arc<str> = shorten(&reason()).into();
        let logged = Arc::clone(&reason);
        self.current.send_if_modified(|current| match current {
            Some(current) if current.reason == reason => false,
            Some(current) => {
                current.reason = reason;
                true
            }
            None => {
                let began = crate::clock::from_unix_millis(self.clock.unix_millis());
                *current = Some(Outage { since: Instant::now(), began, reason });
                true
            }
        });
        let is_news = !log.logged && log.throttle.record().is_some();
        log.logged |= is_news;
        drop(log);
        if is_news {
            tracing::warn!(
                gofer = self.server,
                error = &*logged,
                "calls to Gofer fail; trying again until they work"
            );
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing panics while it is held.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose outcome is not known yet.
pub(crate) struct Call {
    outages: Arc<Outages>,
    /// How many had worked before.
    worked: u64,
    since: Instant,
    is_over: bool,
}

impl Call {
    /// It says nothing about the server.
    pub(crate) fn ignore(mut self) {
        self.is_over = true;
    }

    /// A response has arrived: its head and, if they have been read, its trailers.
    pub(crate) fn answered(mut self, head: &HeaderMap, trailers: Option<&HeaderMap>) {
        self.is_over = true;
        let status = [Some(head), trailers].into_iter().flatten().find_map(failure);
        let Some(status) = status else { return self.outages.worked() };
        let concerns = match status.code() {
            Code::Unauthenticated => Concerns::All,
            Code::PermissionDenied
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded => Concerns::Maybe,
            Code::Unimplemented => Concerns::Method,
            // The answer to what was asked.
            _ => return self.outages.worked(),
        };
        self.failed(concerns, || {
            format!("the answer is {:?}: {}", status.code(), status.message())
        });
    }

    /// There is no response.
    pub(crate) fn unanswered(mut self, error: &BoxError) {
        self.is_over = true;
        let concerns = if error.is::<NotSent>() { Concerns::All } else { Concerns::Maybe };
        self.failed(concerns, || match error.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => chain(&**error),
        });
    }

    fn failed(&self, concerns: Concerns, reason: impl FnOnce() -> String) {
        // Others have worked meanwhile: it is not the server.
        if self.outages.worked.load(Ordering::Acquire) == self.worked {
            self.outages.failed(concerns, reason);
        }
    }
}

/// It was given up.
impl Drop for Call {
    fn drop(&mut self) {
        let waited = self.since.elapsed();
        if !self.is_over && waited >= GIVEN_UP_AFTER {
            self.failed(Concerns::Maybe, || format!("no answer within {} s", waited.as_secs()));
        }
    }
}

/// An error with its reasons, as far as each is not part of the message before.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        next = error.source();
    }
    text
}

/// On one line, and bounded.
fn shorten(reason: &str) -> String {
    let chars = reason.chars().map(|char| if char.is_control() { ' ' } else { char });
    let mut short: String = chars.take(MAX_REASON_CHARS).collect();
    if reason.chars().nth(MAX_REASON_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
