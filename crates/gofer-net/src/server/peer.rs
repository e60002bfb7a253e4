//! The state of a connection.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::callers::{Callers, Membership};
use super::unauthenticated::Held;
use crate::admission::{Claim, Evictable, Place};
use crate::auth::{Class, Decision};

/// Time for a peer in an extra place to show the token of a manager.
const EXTRA_TIME: Duration = Duration::from_secs(2);

/// How long a peer that has made no call is a newcomer.
const NEWCOMER_TIME: Duration = Duration::from_secs(2);

pub(super) struct Peer {
    number: u64,
    opened: Instant,
    callers: Arc<Callers>,
    /// If it is in an extra place: when it has to have made its first call.
    must_call_by: Option<Instant>,
    /// It has made a call, authorized or not.
    called: AtomicBool,
    /// The first call had the token of a manager.
    has_shown: AtomicBool,
    /// Notified at the first call.
    first_call: Notify,
    /// Notified when the connection is to be closed.
    closing: Notify,
    state: Mutex<State>,
}

struct State {
    /// If it has shown a valid token.
    membership: Option<Membership>,
    /// Those with a token.
    open_calls: usize,
    /// When its last call ended.
    idle_since: Instant,
    close: Option<Close>,
    /// Its calls without a token.
    held: Held,
}

/// How a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Close {
    /// Once its calls are answered.
    Answered,
    Now,
}

/// Why a call does not begin.
pub(super) enum Refusal {
    Status(Status),
    /// The connection is being closed: the caller may send the call again on another one.
    Closing,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The order in which connections are closed for new ones.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is being closed anyway.
    Closing,
    Unauthenticated,
    /// It has had no time yet to make a call.
    Newcomer,
    /// Of the caller with the most connections, the longest idle one.
    Idle {
        of: Reverse<usize>,
        since: Instant,
    },
}

impl Peer {
    pub(super) fn new(callers: &Arc<Callers>, place: Place) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            number: callers.number(),
            opened: now,
            callers: Arc::clone(callers),
            must_call_by: (place == Place::Extra).then(|| now + EXTRA_TIME),
            called: AtomicBool::default(),
            has_shown: AtomicBool::default(),
            first_call: Notify::default(),
            closing: Notify::default(),
            state: Mutex::new(State {
                membership: None,
                open_calls: 0,
                idle_since: now,
                close: None,
                held: Held::default(),
            }),
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A new connection may take this long for something.
    pub(super) fn deadline(&self, timeout: Duration) -> Instant {
        let deadline = Instant::now() + timeout;
        self.must_call_by.map_or(deadline, |by| deadline.min(by))
    }

    /// Completes if no call arrives by the deadline, and never if one does.
    pub(super) async fn no_first_call(&self, deadline: Instant) {
        if tokio::time::timeout_at(deadline, self.first_call.notified()).await.is_ok()
            || self.called.load(Ordering::Relaxed)
        {
            std::future::pending::<()>().await;
        }
    }

    /// A call begins, and is open until the result is dropped.
    pub(super) fn begin(
        self: &Arc<Self>,
        decision: Result<Decision, Status>,
    ) -> Result<OpenCall, Refusal> {
        if !self.called.swap(true, Ordering::Relaxed) {
            self.first_call.notify_one();
            self.check_place(&decision);
        }
        let caller = match decision? {
            Decision::Open => None,
            Decision::Granted(caller) => Some(caller),
        };
        let authenticated = caller.is_some();
        let joins = {
            let mut state = self.state();
            match state.close {
                Some(_) if self.must_call_by.is_some() => return Err(full().into()),
                Some(_) => return Err(Refusal::Closing),
                None => {}
            }
            state.open_calls += usize::from(authenticated);
            let of = state.membership.as_ref();
            caller.filter(|caller| !of.is_some_and(|of| of.is_of(caller)))
        };
        let call = OpenCall { peer: Arc::clone(self), authenticated };
        if let Some(caller) = joins {
            self.callers.join(self, &caller)?;
        }
        Ok(call)
    }

    /// In an extra place, the first call has to be a manager's.
    fn check_place(&self, decision: &Result<Decision, Status>) {
        let is_manager = matches!(
            decision,
            Ok(Decision::Granted(caller)) if caller.class == Class::Manager
        );
        if is_manager {
            self.has_shown.store(true, Ordering::Relaxed);
        } else if self.must_call_by.is_some() {
            self.close(Close::Answered);
        }
    }

    /// False if it was in an extra place and has not shown the token of a manager.
    pub(super) fn has_place(&self) -> bool {
        self.must_call_by.is_none() || self.has_shown.load(Ordering::Relaxed)
    }

    /// Makes it a connection of another caller; returns what it was before. An error if it is being
    /// closed.
    pub(super) fn set_membership(&self, new: Membership) -> Result<Option<Membership>, Refusal> {
        let mut state = self.state();
        if state.close.is_some() {
            return Err(Refusal::Closing);
        }
        Ok(state.membership.replace(new))
    }

    /// Since when it has had no open call; `None` if it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.open_calls == 0).then_some(state.idle_since)
    }

    /// Closes it if it still has no open call, in a way that tells the peer which calls have not been
    /// processed. It no longer counts as its caller's.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.state();
        if state.open_calls > 0 {
            return false;
        }
        state.membership = None;
        state.close = state.close.max(Some(Close::Answered));
        self.closing.notify_one();
        true
    }

    pub(super) fn close(&self, how: Close) {
        let mut state = self.state();
        state.close = state.close.max(Some(how));
        self.closing.notify_one();
    }

    /// Waits until it is to be closed in this way, or a faster one.
    pub(super) async fn until_closed(&self, how: Close) {
        while self.state().close < Some(how) {
            self.closing.notified().await;
        }
    }

    /// The connection has ended.
    pub(super) fn ended(&self) {
        let membership = {
            let mut state = self.state();
            // A call that was read from it may still begin.
            state.close = Some(Close::Now);
            state.membership.take()
        };
        self.leave(membership);
    }

    fn leave(&self, membership: Option<Membership>) {
        if let Some(membership) = membership {
            self.callers.leave(&membership, self.number);
        }
    }

    /// Access to the number of its calls without a token.
    pub(super) fn with_held<T>(&self, access: impl FnOnce(&mut Held) -> T) -> T {
        access(&mut self.state().held)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full() -> Status {
    Status::resource_exhausted(
        "all connections are in use; only a call with a management token gets another one",
    )
}

impl Evictable for Peer {
    const PURPOSE: &'static str = "gRPC";
    const FULL: &'static str = "all connections are in use; refusing new ones";

    type Rank = Rank;

    fn rank(&self) -> Option<Rank> {
        let state = self.state();
        if state.close.is_some() {
            return Some(Rank::Closing);
        }
        let Some(membership) = &state.membership else {
            let called = self.called.load(Ordering::Relaxed);
            let is_new = !called && self.opened.elapsed() < NEWCOMER_TIME;
            return Some(if is_new { Rank::Newcomer } else { Rank::Unauthenticated });
        };
        if state.open_calls > 0 {
            return (!self.callers.is_valid(membership)).then_some(Rank::Unauthenticated);
        }
        let of = Reverse(membership.connections());
        Some(Rank::Idle { of, since: state.idle_since })
    }

    fn is_newcomer(rank: &Rank) -> bool {
        *rank == Rank::Newcomer
    }

    fn claim(&self) -> Claim {
        let (claim, membership) = {
            let mut state = self.state();
            let is_known = state.membership.as_ref().is_some_and(|of| self.callers.is_valid(of));
            if is_known && state.close.is_none() && state.open_calls > 0 {
                return Claim::Refused;
            }
            let ends = is_known || state.close == Some(Close::Answered);
            let (how, claim) =
                if ends { (Close::Answered, Claim::Ending) } else { (Close::Now, Claim::Dropped) };
            state.close = state.close.max(Some(how));
            (claim, state.membership.take())
        };
        self.closing.notify_one();
        self.leave(membership);
        claim
    }
}

/// A call that is in progress.
pub(super) struct OpenCall {
    peer: Arc<Peer>,
    /// It has a valid token.
    pub(super) authenticated: bool,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.authenticated {
            return;
        }
        let mut state = self.peer.state();
        state.open_calls -= 1;
        if state.open_calls == 0 {
            state.idle_since = Instant::now();
        }
    }
}
