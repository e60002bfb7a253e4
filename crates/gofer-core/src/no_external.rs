//! Replaces the listener for external events if the feature `webhooks` is off.

use std::sync::Arc;

use gofer_sdk::Result;

use super::essential::EssentialTasks;
use super::extensions::Extensions;

#[derive(Clone, Default)]
pub(super) struct Options {}

pub(super) enum External {}

#[expect(clippy::unused_async, reason = "as with the feature")]
impl External {
    pub(super) async fn open(
        _: Options,
        _: &Arc<Extensions>,
        _: &EssentialTasks,
    ) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(super) fn begin(&self) {
        match *self {}
    }

    pub(super) async fn close(&self) {
        match *self {}
    }
}
