//! Replaces the options of the store if the feature `store` is off: it is in memory.

use std::path::Path;
use std::sync::Arc;

use gofer_net::Clock;
use gofer_sdk::Result;

use super::Store;

#[derive(Clone, Debug, Default)]
pub(crate) struct StoreSetup {}

#[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with the feature")]
impl StoreSetup {
    pub(crate) fn path(&self) -> Option<&Path> {
        None
    }

    pub(crate) fn open(self, clock: Clock) -> Result<Arc<Store>> {
        Ok(Store::new(clock))
    }
}
