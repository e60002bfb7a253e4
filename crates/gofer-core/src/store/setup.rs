//! Where the store is: the builder's part.

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
pub(crate) struct Setup {
    #[cfg(feature = "store")]
    path: Option<PathBuf>,
    #[cfg(feature = "store")]
    key: Option<String>,
}

/// Without the key.
impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "store")]
        return self.path.fmt(f);
        #[cfg(not(feature = "store"))]
        f.write_str("None")
    }
}

impl Setup {
    /// The file that the store is kept in, if it is kept.
    #[cfg_attr(not(feature = "store"), expect(clippy::unused_self, reason = "there is none"))]
    pub(crate) fn path(&self) -> Option<&Path> {
        #[cfg(feature = "store")]
        return self.path.as_deref();
        #[cfg(not(feature = "store"))]
        None
    }

    /// Opens the store. Reads a file as a whole, so not on a thread of the runtime.
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
    /// Keeps everything in this file, which is made where there is none: what
    /// has been acknowledged is there again after the process ended, however it
    /// did. Extensions that are enabled are started again, and their
    /// subscriptions restored, in the background.
    ///
    /// Runs and events are kept as in memory, the newest of them.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store.path = Some(path.into());
        self
    }

    /// Encrypts the secrets in the store with this key, 64 hexadecimal digits.
    ///
    /// Without it, a key is made and kept in a file beside the store, of the same
    /// name with `.key` added, which its owner alone can read.
    pub fn encryption_key(mut self, key: impl Into<String>) -> Self {
        self.store.key = Some(key.into());
        self
    }
}
