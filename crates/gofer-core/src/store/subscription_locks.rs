//! One change of a subscription at a time.
//!
//! A change has two steps, one in the extension and one in the store, with a call over the network
//! between them. Two changes at once could leave the extension with the outcome of one and the
//! store with that of the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::OwnedMutexGuard;

use super::Store;
use crate::sync::lock;
use gofer_proto as proto;

/// Namespace, pipeline, extension, label.
type Key = [String; 4];

/// A lock for each subscription that is being changed.
#[derive(Default)]
pub(super) struct SubscriptionLocks(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>);

/// The right to change a subscription, until it is dropped.
pub(crate) struct SubscriptionGuard {
    locks: Arc<SubscriptionLocks>,
    key: Key,
    _guard: OwnedMutexGuard<()>,
}

impl SubscriptionLocks {
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<()>>>> {
        lock(&self.0)
    }
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        let mut table = self.locks.table();
        // The table's reference and this guard's: nothing else is waiting.
        if table.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 2) {
            table.remove(&self.key);
        }
    }
}

impl Store {
    /// Waits for the lock of this subscription, whether the subscription exists or not.
    pub(crate) async fn lock_subscription(
        &self,
        subscription: &proto::PipelineExtensionSubscription,
    ) -> SubscriptionGuard {
        let key = [
            subscription.namespace.clone(),
            subscription.pipeline.clone(),
            subscription.name.clone(),
            subscription.label.clone(),
        ];
        let locks = Arc::clone(&self.subscription_locks);
        let lock = Arc::clone(locks.table().entry(key.clone()).or_default());
        SubscriptionGuard { locks, key, _guard: lock.lock_owned().await }
    }

    #[cfg(test)]
    pub(super) fn locked_subscriptions(&self) -> usize {
        self.subscription_locks.table().len()
    }
}
