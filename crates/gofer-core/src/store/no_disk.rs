//! Stands in for the store's file if the feature `store` is off: there is none.

use gofer_proto::Run;
use tonic::Status;

use super::journal::Journal;

pub(super) enum Disk {}

#[derive(Clone, Copy, Default)]
pub(crate) struct Mark(());

#[expect(clippy::unused_async, reason = "as with the feature")]
impl Disk {
    pub(super) fn check_writable(&self) -> Result<(), Status> {
        match *self {}
    }

    pub(super) fn submit(&self, _: &mut Journal, _: i64, _: &mut Vec<Run>) {
        match *self {}
    }

    pub(super) fn mark(&self) -> Mark {
        match *self {}
    }

    pub(super) async fn durable(&self, _: Mark) -> Result<(), Status> {
        match *self {}
    }

    pub(super) async fn close(&self, _: u64) {
        match *self {}
    }
}
