//! Replaces `container` if the feature `containers` is off: rejects container images.

use std::sync::Weak;

use async_trait::async_trait;
use tonic::Status;

use super::{LaunchSpec, Launched, Launcher};
use crate::serving::Serving;

pub(crate) struct Containers;

impl Containers {
    pub(crate) fn new(_: Option<String>, _: Weak<Serving>) -> Self {
        Self
    }

    /// They are left to a core that can tell whether there are any.
    #[expect(clippy::unused_async, reason = "as with the feature")]
    pub(crate) async fn remove_orphans(&self, _: Vec<[u8; 32]>, _: impl Fn(&[u8; 32])) {}

    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn close(&self) {}
}

#[async_trait]
impl Launcher for Containers {
    async fn launch(&self, image: &str, _: &LaunchSpec) -> Result<Launched, Status> {
        check_image_name(image)?;
        Err(unsupported())
    }
}

pub(super) fn check_image_name(_: &str) -> Result<(), Status> {
    Err(unsupported())
}

fn unsupported() -> Status {
    Status::failed_precondition(
        "this core cannot run container images: it was built without the feature `containers` of \
         gofer-core; install a program on this machine as `exec:<path>`",
    )
}
