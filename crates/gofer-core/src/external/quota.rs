//! A limited resource, divided among the extensions.
//!
//! An extension may hold at most as much as it leaves free: the first can get half, the second half
//! of the rest, and so on, so that something is left for the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::sync::lock;

pub(super) struct Quota {
    /// Locked briefly; never across an await.
    state: Mutex<State>,
    /// Notified when something is released.
    released: Notify,
}

struct State {
    free: usize,
    /// Only extensions that hold or wait for something.
    usage: HashMap<Arc<str>, Usage>,
}

#[derive(Default)]
struct Usage {
    held: usize,
    waiting: usize,
}

/// An amount that an extension holds. Released on drop.
pub(super) struct Reservation {
    quota: Arc<Quota>,
    extension: Arc<str>,
    amount: usize,
}

impl Quota {
    pub(super) fn new(amount: usize) -> Arc<Self> {
        let state = State { free: amount, usage: HashMap::new() };
        Arc::new(Self { state: Mutex::new(state), released: Notify::new() })
    }

    /// Reserves an amount for an extension; `None` if the extension may not hold that much now.
    pub(super) fn try_reserve(
        self: &Arc<Self>,
        extension: &Arc<str>,
        amount: usize,
    ) -> Option<Reservation> {
        let mut state = lock(&self.state);
        let held = state.usage.get(extension).map_or(0, |usage| usage.held);
        let left = state.free.checked_sub(amount)?;
        if held + amount > left {
            return None;
        }
        state.free = left;
        state.usage.entry(Arc::clone(extension)).or_default().held += amount;
        drop(state);
        Some(Reservation { quota: Arc::clone(self), extension: Arc::clone(extension), amount })
    }

    /// Reserves an amount as soon as the extension may hold it. To rule out deadlocks, callers
    /// reserve all that they need at once.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        extension: &Arc<str>,
        amount: usize,
    ) -> Reservation {
        let _waiting = Waiting::new(self, extension);
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Releases from here on are not missed.
            released.as_mut().enable();
            if let Some(reservation) = self.try_reserve(extension, amount) {
                return reservation;
            }
            released.await;
        }
    }

    /// Whether a release by this extension may help a waiting one: itself, or one that holds
    /// nothing and therefore waits because of the others.
    pub(super) fn is_contended(&self, extension: &str) -> bool {
        let state = lock(&self.state);
        let mut usage = state.usage.iter();
        usage.any(|(name, usage)| usage.waiting > 0 && (usage.held == 0 || **name == *extension))
    }
}

impl State {
    /// Extensions may be uninstalled: an entry that is no longer needed is removed.
    fn tidy(&mut self, extension: &str) {
        if self.usage.get(extension).is_some_and(|usage| usage.held == 0 && usage.waiting == 0) {
            self.usage.remove(extension);
        }
    }
}

impl Reservation {
    /// Releases what exceeds `amount`.
    pub(super) fn shrink(&mut self, amount: usize) {
        let excess = self.amount.saturating_sub(amount);
        if excess == 0 {
            return;
        }
        self.amount -= excess;
        let mut state = lock(&self.quota.state);
        state.free += excess;
        if let Some(usage) = state.usage.get_mut(&self.extension) {
            usage.held -= excess;
        }
        state.tidy(&self.extension);
        drop(state);
        self.quota.released.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Counts a waiting caller until it is dropped.
struct Waiting<'a>(&'a Quota, &'a Arc<str>);

impl<'a> Waiting<'a> {
    fn new(quota: &'a Quota, extension: &'a Arc<str>) -> Self {
        lock(&quota.state).usage.entry(Arc::clone(extension)).or_default().waiting += 1;
        Self(quota, extension)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        if let Some(usage) = state.usage.get_mut(self.1) {
            usage.waiting -= 1;
        }
        state.tidy(self.1);
    }
}

#[cfg(test)]
mod tests;
