//! Something there is only so much of, divided among the extensions.
//!
//! An extension may hold no more than it leaves free. One alone gets half, two
//! get a third each, and however many hold all that they may, there is something
//! left for the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::sync::lock;

pub(super) struct Shares {
    /// Held to look at it and to change it; never across an await.
    state: Mutex<State>,
    /// Notified when something comes back.
    returned: Notify,
}

struct State {
    free: usize,
    /// Only of extensions that hold something or wait for it.
    of: HashMap<Arc<str>, Of>,
}

#[derive(Default)]
struct Of {
    held: usize,
    waiting: usize,
}

/// A part of it, given back when this is dropped.
pub(super) struct Share {
    all: Arc<Shares>,
    extension: Arc<str>,
    amount: usize,
}

impl Shares {
    pub(super) fn new(amount: usize) -> Arc<Self> {
        let state = State { free: amount, of: HashMap::new() };
        Arc::new(Self { state: Mutex::new(state), returned: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// So much of it for an extension; `None` where that is more than its share.
    pub(super) fn take(self: &Arc<Self>, extension: &Arc<str>, amount: usize) -> Option<Share> {
        let mut state = self.state();
        let held = state.of.get(extension).map_or(0, |of| of.held);
        let left = state.free.checked_sub(amount)?;
        if held + amount > left {
            return None;
        }
        state.free = left;
        state.of.entry(Arc::clone(extension)).or_default().held += amount;
        drop(state);
        Some(Share { all: Arc::clone(self), extension: Arc::clone(extension), amount })
    }

    /// So much of it, as soon as it is there. Whoever asks for all that it needs
    /// at once, and waits while it holds none, cannot be waited for in turn.
    pub(super) async fn wait(self: &Arc<Self>, extension: &Arc<str>, amount: usize) -> Share {
        let _waiting = Waiting::new(self, extension);
        loop {
            let mut returned = std::pin::pin!(self.returned.notified());
            // What comes back from here on is not missed.
            returned.as_mut().enable();
            if let Some(share) = self.take(extension, amount) {
                return share;
            }
            returned.await;
        }
    }

    /// Whether somebody waits whom this extension's giving back may help: one of
    /// its own, or one whose extension holds nothing and waits because of the
    /// others.
    pub(super) fn is_wanted_of(&self, extension: &str) -> bool {
        let state = self.state();
        state.of.iter().any(|(name, of)| of.waiting > 0 && (of.held == 0 || **name == *extension))
    }
}

impl State {
    /// Extensions may be uninstalled: what they no longer need is not kept.
    fn tidy(&mut self, extension: &str) {
        if self.of.get(extension).is_some_and(|of| of.held == 0 && of.waiting == 0) {
            self.of.remove(extension);
        }
    }
}

impl Share {
    /// Gives back what is more than `amount`.
    pub(super) fn shrink(&mut self, amount: usize) {
        let back = self.amount.saturating_sub(amount);
        if back == 0 {
            return;
        }
        self.amount -= back;
        let mut state = self.all.state();
        state.free += back;
        if let Some(of) = state.of.get_mut(&self.extension) {
            of.held -= back;
        }
        state.tidy(&self.extension);
        drop(state);
        self.all.returned.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Counts one who waits, for as long as he does.
struct Waiting<'a>(&'a Shares, &'a Arc<str>);

impl<'a> Waiting<'a> {
    fn new(all: &'a Shares, extension: &'a Arc<str>) -> Self {
        all.state().of.entry(Arc::clone(extension)).or_default().waiting += 1;
        Self(all, extension)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(of) = state.of.get_mut(self.1) {
            of.waiting -= 1;
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
        let shares = Shares::new(12);
        let (a, b, c) = (named("a"), named("b"), named("c"));
        let six = shares.take(&a, 6).expect("half is for one alone");
        assert!(shares.take(&a, 1).is_none());
        let three = shares.take(&b, 3).expect("half of what is left is for the next");
        assert!(shares.take(&b, 1).is_none());
        assert!(shares.take(&c, 2).is_none());
        let one = shares.take(&c, 1).expect("and something for a third");
        drop(six);
        assert!(shares.take(&b, 1).is_some(), "what came back can be taken again");
        drop((three, one));
        assert!(shares.state().of.is_empty(), "nothing is kept of who holds nothing");
        assert_eq!(shares.state().free, 12);
    }

    #[test]
    fn what_is_not_needed_goes_back_at_once() {
        let shares = Shares::new(100);
        let mut share = shares.take(&named("a"), 50).unwrap();
        share.shrink(10);
        assert_eq!(shares.state().free, 90);
        share.shrink(20);
        assert_eq!(shares.state().free, 90, "it does not grow");
        drop(share);
        assert_eq!(shares.state().free, 100);
    }

    #[tokio::test]
    async fn who_waits_is_served_and_seen() {
        let shares = Shares::new(10);
        let (a, b) = (named("a"), named("b"));
        let held = shares.take(&a, 5).unwrap();
        let waiting = tokio::spawn({
            let (shares, a) = (Arc::clone(&shares), Arc::clone(&a));
            async move { shares.wait(&a, 4).await }
        });
        while !shares.is_wanted_of("a") {
            tokio::task::yield_now().await;
        }
        assert!(!shares.is_wanted_of("b"), "it would not help");
        let other = tokio::spawn({
            let (shares, b) = (Arc::clone(&shares), Arc::clone(&b));
            async move { shares.wait(&b, 5).await }
        });
        while !shares.is_wanted_of("c") {
            tokio::task::yield_now().await;
        }
        drop(held);
        drop(waiting.await.unwrap());
        drop(other.await.unwrap());
        assert!(!shares.is_wanted_of("a") && shares.state().of.is_empty());
    }
}
