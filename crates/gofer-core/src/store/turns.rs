//! Changes of one subscription take turns.
//!
//! Such a change is two steps, one in the extension and one in the store, with
//! a call over the network between them. Two changes at once could leave the
//! extension with one outcome and the store with the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::Store;
use gofer_proto as proto;

/// Namespace, pipeline, extension, label.
type Key = [String; 4];

/// Whose turn it is, for each subscription that is being changed.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>);

/// The right to change a subscription, until it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    key: Key,
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<()>>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        // The table's reference and this turn's own: nobody else waits.
        if turns.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 2) {
            turns.remove(&self.key);
        }
    }
}

impl Store {
    /// Waits for the turn to change this subscription, whether it exists or not.
    pub(crate) async fn turn(&self, subscription: &proto::PipelineExtensionSubscription) -> Turn {
        let key = [
            subscription.namespace.clone(),
            subscription.pipeline.clone(),
            subscription.name.clone(),
            subscription.label.clone(),
        ];
        let turn = Arc::clone(self.turns.lock().entry(key.clone()).or_default());
        Turn { turns: Arc::clone(&self.turns), key, _guard: turn.lock_owned().await }
    }

    #[cfg(test)]
    pub(super) fn turns_taken(&self) -> usize {
        self.turns.lock().len()
    }
}
