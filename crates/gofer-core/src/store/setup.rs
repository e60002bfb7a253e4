//! The options of the store.

#![cfg_attr(
    not(feature = "store"),
    expect(
        dead_code,
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "nothing sets them"
    )
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gofer_net::Clock;
use gofer_sdk::Result;

use super::Store;
#[cfg(feature = "store")]
use super::seal::key_from_hex;

#[derive(Clone, Default)]
pub(crate) struct StoreSetup {
    pub(crate) path: Option<PathBuf>,
    pub(crate) key: Option<String>,
}

impl StoreSetup {
    /// The file of the store, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Opens the store. Reads the whole file, so not on a thread of the runtime.
    pub(crate) fn open(self, clock: Clock) -> Result<Arc<Store>> {
        #[cfg(feature = "store")]
        {
            let wrong = || {
                let why = "must be 64 hexadecimal digits";
                gofer_sdk::Error::invalid_configuration("encryption_key", why)
            };
            let key = self.key.as_deref().map(|key| key_from_hex(key).ok_or_else(wrong));
            let key = key.transpose()?;
            if let Some(path) = self.path {
                return Store::open(clock, &path, key);
            }
        }
        Ok(Store::new(clock))
    }
}
