//! The store's part of the builder.

use std::fmt;
use std::path::Path;
#[cfg(feature = "store")]
use std::path::PathBuf;
use std::sync::Arc;

use gofer_net::Clock;
#[cfg(feature = "store")]
use gofer_sdk::Error;
use gofer_sdk::Result;

use super::Store;
#[cfg(feature = "store")]
use super::seal::key_from_hex;
#[cfg(feature = "store")]
use crate::CoreBuilder;

#[derive(Clone, Default)]
pub(crate) struct StoreSetup {
    #[cfg(feature = "store")]
    path: Option<PathBuf>,
    #[cfg(feature = "store")]
    key: Option<String>,
}

/// Without the key.
impl fmt::Debug for StoreSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "store")]
        return self.path.fmt(f);
        #[cfg(not(feature = "store"))]
        f.write_str("None")
    }
}

impl StoreSetup {
    /// The file of the store, if it has one.
    #[cfg_attr(not(feature = "store"), expect(clippy::unused_self, reason = "there is no path"))]
    pub(crate) fn path(&self) -> Option<&Path> {
        #[cfg(feature = "store")]
        return self.path.as_deref();
        #[cfg(not(feature = "store"))]
        None
    }

    /// Opens the store. Reads the whole file, so not on a thread of the runtime.
    pub(crate) fn open(self, clock: Clock) -> Result<Arc<Store>> {
        #[cfg(feature = "store")]
        {
            let key = match &self.key {
                None => None,
                Some(text) => Some(key_from_hex(text).ok_or_else(|| {
                    let why = "must be 64 hexadecimal digits";
                    Error::invalid_configuration("encryption_key", why)
                })?),
            };
            if let Some(path) = self.path {
                return Store::open(clock, &path, key);
            }
        }
        Ok(Store::new(clock))
    }
}

/// The store.
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
impl CoreBuilder {
    /// Keeps everything in this file, which is created if it does not exist. Whatever a
    /// caller has received a response for survives the end of the process, even a crash.
    /// The next core on the file starts the enabled extensions and restores their
    /// subscriptions in the background.
    ///
    /// As in memory, only the newest runs and events are kept.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store.path = Some(path.into());
        self
    }

    /// Encrypts the secrets in the store with this key, 64 hexadecimal digits.
    ///
    /// By default, a key is generated and kept beside the store, in a file of the same
    /// name with `.key` appended that only its owner can read.
    pub fn encryption_key(mut self, key: impl Into<String>) -> Self {
        self.store.key = Some(key.into());
        self
    }
}
