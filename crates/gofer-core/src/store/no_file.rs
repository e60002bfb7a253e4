//! Stands in for the file of a store if the feature `store` is off: there is none.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use tonic::Status;

use super::history::{Found, Order};

pub(super) enum StoreFile {}

impl StoreFile {
    pub(super) fn get(&self, _: &[u8]) -> Result<Option<Bytes>, Status> {
        match *self {}
    }

    pub(super) fn visit(
        &self,
        _: &Range<Vec<u8>>,
        _: Order,
        _: impl FnMut(&[u8], Found<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Status> {
        match *self {}
    }
}
