//! Wakes tasks that wait for a subscription to change.
//!
//! A million subscriptions may wait at once, nearly all of them in one task each, the one that runs
//! `serve`. Its waker is stored here, so that waiting adds nothing to the waiting future; a second
//! task is woken by a [`Notify`], at the usual cost.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker, ready};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Default)]
pub(crate) struct Signal {
    /// The first task that waits. It may have been dropped: then it is woken once for nothing.
    first: Mutex<Option<Waker>>,
    others: Notify,
}

impl Signal {
    /// Wakes all waiting tasks; call it after the change.
    pub(crate) fn notify(&self) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(first) = first {
            first.wake();
        }
        self.others.notify_waiters();
    }

    /// Completes once `changed` is true of what the signal is part of; checked at first and after
    /// each [`notify`](Self::notify).
    ///
    /// The signal is taken from `whole` instead of passed separately: each word here is one for
    /// each waiting subscription.
    pub(crate) fn wait<T: AsRef<Self> + ?Sized>(
        whole: &T,
        changed: impl Fn(&T) -> bool,
    ) -> impl Future<Output = ()> {
        let mut notified: Option<Pin<Box<Notified<'_>>>> = None;
        poll_fn(move |context| {
            loop {
                // Registered before the check, so that no change is missed.
                let registered = whole.as_ref().register(context.waker());
                if !registered && notified.is_none() {
                    notified = Some(Box::pin(whole.as_ref().others.notified()));
                }
                if changed(whole) {
                    return Poll::Ready(());
                }
                match &mut notified {
                    Some(notified) if !registered => ready!(notified.as_mut().poll(context)),
                    _ => return Poll::Pending,
                }
                notified = None;
            }
        })
    }

    /// Stores the waker of a task that is woken by the next [`notify`](Self::notify); false if another
    /// task has its own there. A future that calls this in each poll need not hold that of
    /// [`wait`](Self::wait).
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| waker.clone()).will_wake(waker)
    }
}

#[cfg(test)]
mod tests;
