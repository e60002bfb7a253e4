//! The options for the store.

use std::path::PathBuf;
use std::sync::Arc;

use super::CoreBuilder;
use crate::store::Backing;

/// The store.
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
impl CoreBuilder {
    /// Keeps everything in this file, which is created if it does not exist. Every acknowledged
    /// change survives, even a crash. The next core on the file starts the enabled extensions and
    /// restores their subscriptions in the background.
    ///
    /// As in memory, only the newest runs and events are kept.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store.path = Some(path.into());
        self
    }

    /// Keeps the store in something else than a file, and writes it as a task of this runtime. The
    /// encryption key has to be set.
    #[doc(hidden)]
    pub fn store_backing(mut self, backing: Arc<dyn Backing>) -> Self {
        self.store.backing = Some(backing);
        self
    }

    /// Encrypts the secrets and the extensions' registrations in the store with this key, 64
    /// hexadecimal digits.
    ///
    /// By default, a key is generated and kept beside the store, in a file of the same name with
    /// `.key` appended that only its owner can read.
    pub fn encryption_key(mut self, key: impl Into<String>) -> Self {
        self.store.key = Some(key.into());
        self
    }
}
