//! In place of the listener for external events, if the feature `webhooks` is off: there is none.

use std::sync::Arc;

use gofer_sdk::Result;

use super::extensions::Extensions;

#[derive(Clone, Default)]
pub(super) struct Setup;

pub(super) enum External {}

impl External {
    #[expect(clippy::unused_async, clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(super) async fn open(_: Setup, _: &Arc<Extensions>) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn begin(&self) {
        match *self {}
    }

    pub(super) async fn close(&self) {
        match *self {}
    }
}
