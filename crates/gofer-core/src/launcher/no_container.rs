//! In place of containers, if the feature `containers` is off: their images are refused.

use std::sync::Weak;

use async_trait::async_trait;
use tonic::Status;

use super::{Launched, Launcher, Start};
use crate::serving::Serving;

pub(crate) struct Containers;

impl Containers {
    pub(crate) fn new(_: Option<String>, _: Weak<Serving>) -> Self {
        Self
    }

    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub(crate) async fn remove_left_behind(&self, _: Vec<[u8; 32]>) {}

    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn close(&self) {}
}

#[async_trait]
impl Launcher for Containers {
    async fn launch(&self, image: &str, _: &Start) -> Result<Launched, Status> {
        check(image)?;
        Err(unsupported())
    }
}

pub(super) fn check(_: &str) -> Result<(), Status> {
    Err(unsupported())
}

fn unsupported() -> Status {
    Status::failed_precondition(
        "this core cannot run container images: it was built without the feature `containers` of \
         gofer-core; a program of this machine is installed as `exec:<path>`",
    )
}
