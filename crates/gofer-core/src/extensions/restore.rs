//! Gives an extension that has come up its stored subscriptions.
//!
//! Only a refusal is final, and is marked as such. Whatever else keeps an extension from accepting a
//! subscription may be over a moment later, so that is tried again for as long as the extension runs:
//! the next one is given all of them anyway. Meanwhile the subscription is active, and whoever asks
//! for it is told why it is not in effect.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Code;

use super::held::{Key, key};
use super::{Extensions, Running};
use crate::store::{By, Store, status_reason};
use crate::sync::lock;
use gofer_net::{Backoff, Effect, effect};
use gofer_proto::PipelineExtensionSubscription as Subscription;
use gofer_proto::pipeline_extension_subscription::Status as State;

/// Subscriptions of one extension that are restored concurrently: enough to keep it busy.
const IN_FLIGHT: usize = 16;

/// Between attempts to restore a subscription. The first pause is short: most failures are transient.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(60));

/// How long whoever brings an extension up waits for subscriptions that it does not accept yet.
const AWAITED: Duration = Duration::from_secs(5);

/// The outcome of an attempt to restore a subscription.
pub(super) enum Restored {
    /// Held, or not to be restored.
    Done,
    /// Marked as refused, for this reason.
    Refused(String),
    /// To be tried again, for this reason.
    Later(String),
}

/// The subscriptions that an extension should have and does not.
#[derive(Default)]
pub(super) struct Unrestored {
    /// Those that are being restored in the background, each by one task, and why they are not in
    /// effect yet: empty before the first attempt, or if the extension has accepted a change
    /// meanwhile.
    restoring: Mutex<HashMap<Key, String>>,
    /// Whether all that are stored have been among them.
    begun: AtomicBool,
    replacements: Arc<Replacements>,
}

/// Of subscriptions that end in the extension, to begin anew with other settings.
#[derive(Default)]
struct Replacements {
    under_way: AtomicUsize,
    /// How many there have been.
    begun: AtomicUsize,
}

impl Unrestored {
    /// All that are stored are being restored, or there are none.
    pub(super) fn set_begun(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether the extension has every subscription that is stored and that it has not refused.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.load(Ordering::Acquire)
            && self.replacements.under_way.load(Ordering::SeqCst) == 0
            && lock(&self.restoring).is_empty()
    }

    /// One ends in the extension, and begins anew before what is returned is dropped.
    pub(super) fn replace(&self) -> Replaced {
        // In this order: what has seen `begun` as it is now sees this one under way.
        self.replacements.under_way.fetch_add(1, Ordering::SeqCst);
        self.replacements.begun.fetch_add(1, Ordering::SeqCst);
        Replaced(Arc::clone(&self.replacements))
    }

    /// How many replacements have begun, to be read before [`is_empty`](Self::is_empty).
    pub(super) fn replacements(&self) -> usize {
        self.replacements.begun.load(Ordering::SeqCst)
    }

    /// Returns whether it is a new one.
    fn begin(&self, subscription: &Subscription) -> bool {
        match lock(&self.restoring).entry(key(subscription)) {
            Entry::Vacant(entry) => {
                entry.insert(String::new());
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn end(&self, subscription: &Subscription) {
        lock(&self.restoring).remove(&key(subscription));
    }

    /// Returns what it was before; `None` if it is not being restored.
    pub(super) fn set_why(&self, subscription: &Subscription, why: &str) -> Option<String> {
        let mut all = lock(&self.restoring);
        all.get_mut(&key(subscription)).map(|before| std::mem::replace(before, why.to_owned()))
    }

    fn why(&self, subscription: &Subscription) -> Option<String> {
        lock(&self.restoring).get(&key(subscription)).filter(|why| !why.is_empty()).cloned()
    }
}

/// While a subscription is replaced, during which external events for its extension are refused.
pub(crate) struct Replaced(Arc<Replacements>);

impl Drop for Replaced {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Extensions {
    /// Restores an extension's stored subscriptions concurrently. One that is refused is marked and
    /// does not affect the others; returns how many were refused. Those that are not accepted yet are
    /// tried again in the background.
    pub(super) async fn restore_subscriptions(&self, name: &str, running: &Arc<Running>) -> usize {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        let (refused, mut refusals) = mpsc::unbounded_channel();
        for subscription in self.store.subscriptions_of_extension(name) {
            let (permits, refused) = (Arc::clone(&permits), Some(refused.clone()));
            self.keep_restoring(running, subscription, permits, refused);
        }
        drop(refused);
        running.unrestored.set_begun();
        let mut count = 0;
        while refusals.recv().await.is_some() {
            count += 1;
        }
        count
    }

    /// Restores a subscription in the background, unless that is being done already. `refused` is told
    /// of a refusal, and dropped when there is an outcome or it is no longer waited for.
    fn keep_restoring(
        &self,
        running: &Arc<Running>,
        subscription: Subscription,
        permits: Arc<Semaphore>,
        mut refused: Option<mpsc::UnboundedSender<()>>,
    ) {
        if !running.unrestored.begin(&subscription) {
            return;
        }
        let ended = running.handle.process.watch();
        // Must keep neither alive between attempts.
        let (this, running) = (Weak::clone(&self.this), Arc::downgrade(running));
        let attempts = async move {
            let (begun, mut backoff) = (Instant::now(), BACKOFF);
            loop {
                let outcome = {
                    let Ok(_permit) = permits.acquire().await else { return };
                    let (Some(this), Some(running)) = (this.upgrade(), running.upgrade()) else {
                        return;
                    };
                    // Boxed, so that one that waits is small.
                    Box::pin(this.restore(&running, &subscription)).await
                };
                match outcome {
                    Restored::Done => return,
                    Restored::Refused(_) => {
                        // Fails if nobody waits for it.
                        let _ = refused.map(|refused| refused.send(()));
                        return;
                    }
                    Restored::Later(_) => {
                        refused = refused.filter(|_| begun.elapsed() < AWAITED);
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = ended => {}
                () = attempts => {}
            }
        });
    }

    /// Tries to restore a stored subscription, if it still exists and is neither disabled nor marked
    /// as refused.
    async fn restore(&self, running: &Arc<Running>, stored: &Subscription) -> Restored {
        let _lock = self.store.lock_subscription(stored).await;
        let Subscription { namespace, pipeline, name, label, .. } = stored;
        let outcome = match self.store.subscription(namespace, pipeline, name, label) {
            Ok(current) if current.status() == State::Active => {
                self.restore_once(running, &current).await
            }
            _ => Restored::Done,
        };
        if !matches!(outcome, Restored::Later(_)) {
            running.unrestored.end(stored);
        }
        outcome
    }

    /// Makes the extension hold a stored, active subscription; goes on in the background if it does
    /// not accept it yet. The lock of the subscription is held.
    pub(super) async fn restore_stored(
        &self,
        running: &Arc<Running>,
        current: &Subscription,
    ) -> Restored {
        let outcome = self.restore_once(running, current).await;
        if let Restored::Later(why) = &outcome {
            self.keep_restoring(running, current.clone(), Arc::new(Semaphore::new(1)), None);
            running.unrestored.set_why(current, why);
        }
        outcome
    }

    /// The lock of the subscription is held.
    async fn restore_once(&self, running: &Arc<Running>, current: &Subscription) -> Restored {
        let Subscription { namespace, pipeline, name, label, .. } = current;
        // Also between attempts: the response to one that succeeded may have been lost.
        let access = running.handle.key.begin_access(current);
        let Err(status) = self.subscribe_to(running, current).await else {
            access.keep();
            return Restored::Done;
        };
        // An error from an extension that is being stopped or is gone is not a refusal: the
        // subscription is restored when the next one is up.
        if !self.slots.is_current(name, running) || running.handle.process.ended().is_some() {
            return Restored::Done;
        }
        let (shown, code, error) =
            (format!("{namespace}/{pipeline}"), status.code(), status.message());
        if effect(&status) != Effect::Refused {
            access.keep();
            let before = running.unrestored.set_why(current, error);
            if before.is_none_or(|before| before.is_empty()) {
                tracing::warn!(
                    extension = %name, pipeline = shown, label, ?code, error,
                    "a stored subscription cannot be restored yet"
                );
            }
            return Restored::Later(error.to_owned());
        }
        tracing::warn!(
            extension = %name, pipeline = shown, label, ?code, error,
            "a stored subscription is refused"
        );
        drop(access);
        self.store.end_access(current);
        let names = [namespace, pipeline, name, label].map(String::as_str);
        let mark =
            |store: &Store| store.set_subscription_status(names, State::Error, error, &By::Core);
        match self.store.committed(mark).await {
            // It is active still.
            Err(status) if status.code() == Code::Unavailable => {
                running.unrestored.set_why(current, error);
                Restored::Later(error.to_owned())
            }
            // It fails otherwise if its pipeline was deleted meanwhile: nothing to mark then.
            Ok(()) | Err(_) => {
                running.unrestored.set_why(current, "");
                Restored::Refused(error.to_owned())
            }
        }
    }

    /// Says of a stored subscription that is active but not in effect why that is.
    pub(crate) fn explain(&self, subscription: &mut Subscription) {
        if subscription.status() != State::Active {
            return;
        }
        let Ok(running) = self.slots.running(&subscription.name) else { return };
        if let Some(why) = running.unrestored.why(subscription) {
            let why = format!("not in effect yet, and tried again: {why}");
            subscription.status_reason = Some(status_reason(State::Active, &why));
        }
    }
}
