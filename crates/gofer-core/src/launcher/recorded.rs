//! A launch that the store records, since it may outlive its core.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use super::owner;
use crate::sync::lock;

/// The digests of the keys of all launches of this process that have not ended.
static ALIVE: LazyLock<Mutex<HashSet<[u8; 32]>>> = LazyLock::new(Mutex::default);

/// A launch that was recorded and of which something may be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Of the key that it was launched with.
    pub(crate) digest: [u8; 32],
    /// Whether it is a container; `None` if an earlier version recorded it.
    pub(crate) is_container: Option<bool>,
    /// The process of the core that launched it; empty if that is not known.
    pub(crate) owner: String,
}

impl Recorded {
    /// Of this process.
    pub(crate) fn new(digest: [u8; 32], is_container: bool) -> Self {
        let owner = owner::this().unwrap_or_default();
        Self { digest, is_container: Some(is_container), owner }
    }

    /// Whether the core that launched it may still be running, and so it is no orphan: the store may be
    /// a copy of the one that the core uses.
    pub(super) fn may_have_owner(&self) -> bool {
        if owner::this().is_some_and(|this| this == self.owner) {
            return is_alive(&self.digest);
        }
        !self.owner.is_empty() && !owner::has_ended(&self.owner, false)
    }
}

/// Whether a core of this process has launched this, and it has not ended.
pub(super) fn is_alive(digest: &[u8; 32]) -> bool {
    lock(&ALIVE).contains(digest)
}

/// Calls a function once nothing of a launch is left, which is when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct UntilGone(Arc<Guard>);

/// Told the digest of a launch's key.
type Gone = Box<dyn Fn(&[u8; 32]) + Send + Sync>;

struct Guard {
    digest: [u8; 32],
    gone: Gone,
    leaves: AtomicBool,
}

impl UntilGone {
    pub(crate) fn new(digest: [u8; 32], gone: impl Fn(&[u8; 32]) + Send + Sync + 'static) -> Self {
        lock(&ALIVE).insert(digest);
        Self(Arc::new(Guard { digest, gone: Box::new(gone), leaves: AtomicBool::new(false) }))
    }

    /// Whether something is left of it now that does not end with its task.
    #[cfg_attr(
        not(any(test, feature = "containers")),
        expect(dead_code, reason = "only a container is")
    )]
    pub(super) fn leaves(&self, something: bool) {
        self.0.leaves.store(something, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&ALIVE).remove(&self.digest);
        if !*self.leaves.get_mut() {
            (self.gone)(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_has_a_core_that_runs_or_may_run_may_have_an_owner() {
        let owned = Recorded::new([1; 32], false);
        // This process has no core any more that launched it.
        assert!(!owned.may_have_owner());
        let until_gone = UntilGone::new(owned.digest, |_| {});
        assert!(owned.may_have_owner());
        drop(until_gone);
        assert!(!owned.may_have_owner());
        let by = |owner: String| Recorded { owner, ..owned.clone() }.may_have_owner();
        let [boot, namespace, id, started] =
            owned.owner.split('.').collect::<Vec<_>>().try_into().unwrap_or_default();
        assert!(!by(format!("{boot}.{namespace}.{id}.1{started}")), "another has its ID");
        assert!(!by(format!("another.{namespace}.{id}.{started}")), "before the machine started");
        assert!(by(format!("{boot}.1{namespace}.{id}.{started}")), "it cannot be seen");
        assert!(!by(String::new()), "an earlier version recorded it");
    }

    #[test]
    fn a_launch_is_gone_once_nothing_is_left_of_it() {
        let count = Arc::new(AtomicUsize::new(0));
        let begin = || {
            let count = Arc::clone(&count);
            UntilGone::new([2; 32], move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
        };
        let first = begin();
        let second = first.clone();
        drop(first);
        assert_eq!(count.load(Ordering::Relaxed), 0);
        drop(second);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let third = begin();
        third.leaves(true);
        drop(third);
        assert_eq!(count.load(Ordering::Relaxed), 1, "its container is left");
    }
}
