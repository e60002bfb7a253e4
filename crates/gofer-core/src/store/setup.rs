//! The options of the store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gofer_net::Clock;
use gofer_sdk::{Error, Result};

use super::Store;
use super::seal::key_from_hex;

#[derive(Clone, Default)]
pub(crate) struct StoreSetup {
    pub(crate) path: Option<PathBuf>,
    pub(crate) key: Option<String>,
}

/// Without the key.
impl fmt::Debug for StoreSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl StoreSetup {
    /// The file of the store, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Opens the store. Reads the whole file, so not on a thread of the runtime.
    pub(crate) fn open(self, clock: Clock) -> Result<Arc<Store>> {
        let key = match &self.key {
            None => None,
            Some(text) => Some(key_from_hex(text).ok_or_else(|| {
                let why = "must be 64 hexadecimal digits";
                Error::invalid_configuration("encryption_key", why)
            })?),
        };
        match self.path {
            Some(path) => Store::open(clock, &path, key),
            None => Ok(Store::new(clock)),
        }
    }
}
