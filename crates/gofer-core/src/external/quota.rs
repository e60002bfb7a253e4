//! A limited resource, divided among the extensions.
//!
//! An extension may hold no more than it leaves free. A single one gets half, two get a third
//! each, and however many hold all they may, some is left for the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

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

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Reserves an amount for an extension; `None` if the extension may not hold that much now.
    pub(super) fn try_reserve(
        self: &Arc<Self>,
        extension: &Arc<str>,
        amount: usize,
    ) -> Option<Reservation> {
        let mut state = self.state();
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
        let state = self.state();
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
        let mut state = self.quota.state();
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
        quota.state().usage.entry(Arc::clone(extension)).or_default().waiting += 1;
        Self(quota, extension)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(usage) = state.usage.get_mut(self.1) {
            usage.waiting -= 1;
        }
        state.tidy(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn an_extension_holds_no_more_than_it_leaves_free() {
        let quota = Quota::new(12);
        let (a, b, c) = (named("a"), named("b"), named("c"));
        let six = quota.try_reserve(&a, 6).expect("a single one may hold half");
        assert!(quota.try_reserve(&a, 1).is_none());
        let three = quota.try_reserve(&b, 3).expect("the next may hold half of the rest");
        assert!(quota.try_reserve(&b, 1).is_none());
        assert!(quota.try_reserve(&c, 2).is_none());
        let one = quota.try_reserve(&c, 1).expect("and something is left for a third");
        drop(six);
        assert!(quota.try_reserve(&b, 1).is_some(), "what was released can be reserved again");
        drop((three, one));
        assert!(quota.state().usage.is_empty(), "no entry is left of extensions that hold nothing");
        assert_eq!(quota.state().free, 12);
    }

    #[test]
    fn a_reservation_that_shrinks_releases_the_excess_at_once() {
        let quota = Quota::new(100);
        let mut reservation = quota.try_reserve(&named("a"), 50).unwrap();
        reservation.shrink(10);
        assert_eq!(quota.state().free, 90);
        reservation.shrink(20);
        assert_eq!(quota.state().free, 90, "it does not grow");
        drop(reservation);
        assert_eq!(quota.state().free, 100);
    }

    #[tokio::test]
    async fn waiting_callers_are_counted_and_served() {
        let quota = Quota::new(10);
        let (a, b) = (named("a"), named("b"));
        let held = quota.try_reserve(&a, 5).unwrap();
        let waiting = tokio::spawn({
            let (quota, a) = (Arc::clone(&quota), Arc::clone(&a));
            async move { quota.reserve(&a, 4).await }
        });
        while !quota.is_contended("a") {
            tokio::task::yield_now().await;
        }
        assert!(!quota.is_contended("b"), "it would not help");
        let other = tokio::spawn({
            let (quota, b) = (Arc::clone(&quota), Arc::clone(&b));
            async move { quota.reserve(&b, 5).await }
        });
        while !quota.is_contended("c") {
            tokio::task::yield_now().await;
        }
        drop(held);
        drop(waiting.await.unwrap());
        drop(other.await.unwrap());
        assert!(!quota.is_contended("a") && quota.state().usage.is_empty());
    }
}
