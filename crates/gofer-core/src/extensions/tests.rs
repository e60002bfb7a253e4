//! Changes of extensions that cannot be stored.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use gofer_sdk::{ErrorKind, Extension, Gofer, NoParams, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::files::tests::Scratch;
use crate::{Core, NO_SETTINGS};

/// The instances of all tests that have come up and not been shut down.
static UP: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn is_up(id: &str) -> bool {
    lock(&UP).iter().any(|it| it == id)
}

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Tells the instances of all tests apart.
    id: String,
}

struct Counted(Config);

impl Extension for Counted {
    type Config = Config;
    type Params = NoParams;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        lock(&UP).push(config.id.clone());
        Ok(Self(config))
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }

    async fn shutdown(&self) {
        lock(&UP).retain(|it| *it != self.0.id);
    }
}

#[tokio::test]
async fn an_installation_that_cannot_be_stored_leaves_nothing() {
    let directory = Scratch::new();
    let core = Core::builder().store(directory.path("store.redb")).start().await.unwrap();
    // From here on, nothing reaches the disk.
    core.store().close().await;
    let refused = core.install::<Counted>("counted", [("id", "unstored")]).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(!is_up("unstored"), "it still runs");
    assert!(core.inner.extensions.status("counted").is_none(), "the name is not free");
    core.stop().await;
}

#[tokio::test]
async fn after_an_update_that_cannot_be_stored_the_old_one_goes_on() {
    let directory = Scratch::new();
    let core = Core::builder().store(directory.path("store.redb")).start().await.unwrap();
    let counted = core.install::<Counted>("counted", [("id", "old")]).await.unwrap();
    counted.subscribe("default/nightly", "l", NO_SETTINGS).await.unwrap();
    core.store().close().await;
    let refused = counted.update([("id", "new")]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(is_up("old") && !is_up("new"));
    let status = counted.status().unwrap();
    assert_eq!(status.state, ExtensionState::Running);
    assert!(status.reason.contains("the update failed"), "{}", status.reason);
    assert_eq!(counted.info().await.unwrap().registered, ["default/nightly"]);
    core.stop().await;
}
