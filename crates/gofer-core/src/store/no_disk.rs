//! Stands in for the store's file if the feature `store` is off: there is none.

use std::sync::Arc;

use super::journal::Journal;

pub(super) enum Disk {}

#[expect(clippy::unused_async, reason = "as with the feature")]
impl Disk {
    pub(super) fn submit(&self, _: &mut Journal, _: i64) {
        match *self {}
    }

    pub(super) async fn durable(&self) -> Result<(), Arc<str>> {
        match *self {}
    }

    pub(super) async fn close(&self) {
        match *self {}
    }
}
