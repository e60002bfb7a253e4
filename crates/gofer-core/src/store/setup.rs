//! The options of the store.

#![cfg_attr(
    not(feature = "store"),
    expect(dead_code, clippy::unused_self, reason = "nothing sets them")
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gofer_net::Clock;
use gofer_sdk::Result;

use super::Store;
#[cfg(feature = "store")]
use super::backing::Backing;
#[cfg(feature = "store")]
use super::seal::key_from_hex;
use crate::essential::EssentialTasks;

/// What errors call a store that is no file.
#[cfg(feature = "store")]
const NOWHERE: &str = "in memory";

#[derive(Clone, Default)]
pub(crate) struct StoreSetup {
    pub(crate) path: Option<PathBuf>,
    pub(crate) key: Option<String>,
    /// What the file is in, if it is no file of the system.
    #[cfg(feature = "store")]
    pub(crate) backing: Option<Arc<dyn Backing>>,
}

impl StoreSetup {
    /// The file of the store, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file of the store, or what errors call it if it is none.
    #[cfg(feature = "store")]
    fn place(&self) -> Option<PathBuf> {
        self.path.clone().or_else(|| self.backing.as_ref().map(|_| NOWHERE.into()))
    }

    /// Opens the store. Reads all that is alive, so not on a thread of the runtime.
    #[cfg_attr(not(feature = "store"), expect(unused_variables, reason = "as with the feature"))]
    pub(crate) fn open(self, clock: Clock, essential: &EssentialTasks) -> Result<Arc<Store>> {
        #[cfg(feature = "store")]
        {
            let wrong = || {
                let why = "must be 64 hexadecimal digits";
                gofer_sdk::Error::invalid_configuration("encryption_key", why)
            };
            let key = self.key.as_deref().map(|key| key_from_hex(key).ok_or_else(wrong));
            let key = key.transpose()?;
            if let Some(path) = self.place() {
                return Store::open(clock, &path, key, self.backing, essential);
            }
        }
        Store::new(clock)
    }
}
