//! Wakes subscriptions when their next tick is due.
//!
//! A million may wait, most of them for a minute or longer. If each has a timer of tokio's, nearly
//! all of these are moved at once whenever a wheel has turned, and every tick is late by most of a
//! second. So what waits is in an ordered map here, and one timer is for the first of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// So many are woken before other tasks have their turn.
const AT_ONCE: usize = 64;

pub(super) struct Alarms {
    /// Times are counted from here.
    epoch: Instant,
    set: Mutex<Set>,
    /// Notified when there is a new first alarm.
    new_first: Notify,
}

#[derive(Default)]
struct Set {
    wakers: BTreeMap<Key, Waker>,
    /// How many alarms there have been.
    number: u64,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { epoch: Instant::now(), set: Mutex::default(), new_first: Notify::new() }
    }
}

impl Alarms {
    /// When an alarm after this time is due. It is set once it is [polled](Self::poll).
    pub(super) fn key_after(&self, wait: Duration) -> Key {
        Key::at(self.epoch.elapsed().saturating_add(wait))
    }

    /// Completes when an alarm is due, while [`run`](Self::run) runs. One that is not waited for any
    /// longer is to be [unset](Self::unset).
    pub(super) fn poll(&self, key: &mut Key, context: &Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut set = self.set();
        if !key.has_number() {
            let is_first;
            (*key, is_first) = set.insert(*key, waker);
            drop(set);
            if is_first {
                self.new_first.notify_one();
            }
            return Poll::Pending;
        }
        let Some(known) = set.wakers.get_mut(key) else {
            *key = key.without_number();
            return Poll::Ready(());
        };
        let replaced = std::mem::replace(known, waker);
        drop(set);
        drop(replaced);
        Poll::Pending
    }

    /// Without effect if it is not set.
    pub(super) fn unset(&self, key: Key) {
        if key.has_number() {
            // Dropped after the lock.
            let _waker = self.set().wakers.remove(&key);
        }
    }

    /// Completes when an alarm is due, which is unset if this is dropped.
    pub(super) fn wait(&self, key: Key) -> impl Future<Output = ()> {
        Wait { alarms: self, key: key.without_number() }
    }

    /// Wakes what is due, when it is. Does not return.
    pub(super) async fn run(&self) {
        let mut due = Vec::with_capacity(AT_ONCE);
        loop {
            let next = self.take_due(&mut due);
            // What they call need not be this crate's or tokio's, so no lock is held.
            due.drain(..).for_each(Waker::wake);
            match next {
                Some(next) if next <= Instant::now() => tokio::task::yield_now().await,
                Some(next) => tokio::select! {
                    biased;
                    () = self.new_first.notified() => {}
                    () = sleep_until(next) => {}
                },
                None => self.new_first.notified().await,
            }
        }
    }

    /// Moves those that are due, at most as many as are woken at once. Returns when the first that
    /// remains is due.
    fn take_due(&self, taken: &mut Vec<Waker>) -> Option<Instant> {
        let now = self.epoch.elapsed();
        let mut set = self.set();
        while let Some(first) = set.wakers.first_entry() {
            let due = first.key().time();
            if due > now || taken.len() == AT_ONCE {
                return Some(self.epoch + due);
            }
            taken.push(first.remove());
        }
        None
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        // Nothing panics while it is held.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    /// Returns the key with the number that the alarm has got, and whether it is the first of all.
    fn insert(&mut self, key: Key, waker: Waker) -> (Key, bool) {
        self.number += 1;
        let mut key = key.numbered(self.number);
        // Of more than a million alarms for one time, some have the same number.
        while self.wakers.contains_key(&key) {
            key = key.one_step_later();
        }
        self.wakers.insert(key, waker);
        let first = self.wakers.first_key_value();
        (key, first.is_some_and(|(first, _)| *first == key))
    }
}

/// When an alarm is due and, once it is set, its number, since others may be due then too. In one
/// word, since each subscription that waits has two of these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

impl Key {
    /// Times are in steps of so many nanoseconds. Sixteen are a millisecond, so that nothing is woken
    /// later than by a timer of tokio's, which has milliseconds.
    const STEP: u64 = 62_500;

    /// Bits of the number.
    const NUMBER: u32 = 20;

    /// In steps, 17 years: half of what there is room for.
    const LAST: u64 = u64::MAX >> (Self::NUMBER + 1);

    /// Without a number. Not before the time, unless that is too far away.
    fn at(time: Duration) -> Self {
        let steps = time.as_nanos().div_ceil(Self::STEP.into());
        Self(u64::try_from(steps).unwrap_or(Self::LAST).min(Self::LAST) << Self::NUMBER)
    }

    fn numbered(self, number: u64) -> Self {
        let numbers = (1 << Self::NUMBER) - 1;
        Self(self.0 | (number % numbers + 1))
    }

    fn without_number(self) -> Self {
        Self(self.0 >> Self::NUMBER << Self::NUMBER)
    }

    fn one_step_later(self) -> Self {
        Self(self.0 + (1 << Self::NUMBER))
    }

    fn has_number(self) -> bool {
        self.0.trailing_zeros() < Self::NUMBER
    }

    fn time(self) -> Duration {
        Duration::from_nanos((self.0 >> Self::NUMBER).saturating_mul(Self::STEP))
    }
}

/// See [`Alarms::wait`].
struct Wait<'a> {
    alarms: &'a Alarms,
    key: Key,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.alarms.poll(&mut self.key, context)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.alarms.unset(self.key);
    }
}

#[cfg(test)]
mod tests;
