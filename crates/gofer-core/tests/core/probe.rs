//! An extension that hands its client to the test that installs it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gofer_core::{Core, Installed};
use gofer_sdk::{Error, Extension, Gofer, Result, Run, RunInfo, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

/// The clients of the last instances, by their `id`.
static CLIENTS: Mutex<Option<HashMap<String, Gofer>>> = Mutex::new(None);

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Config {
    /// Tells the probes of all tests apart.
    id: String,
    /// Whether it refuses all subscriptions.
    #[serde(default)]
    refuses: bool,
    /// Whether it does not come up.
    #[serde(default)]
    fails: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// Refused.
    #[serde(default)]
    is_wrong: bool,
    /// A run that it starts as soon as it serves.
    first: Option<String>,
    /// A run that it starts while it is being unsubscribed.
    last: Option<String>,
}

pub(crate) struct Probe {
    refuses: bool,
}

impl Extension for Probe {
    type Config = Config;
    type Params = Params;

    async fn init(Config { id, refuses, fails }: Config, gofer: Gofer) -> Result<Self> {
        if fails {
            return Err(Error::invalid_parameter("fails", "must be false"));
        }
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get_or_insert_default().insert(id, gofer);
        Ok(Self { refuses })
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.is_wrong || self.refuses {
            return Err(Error::invalid_parameter("is_wrong", "must be false"));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        if let Some(reason) = &subscription.params().first {
            start(subscription.gofer(), subscription.pipeline(), reason).await?;
        }
        subscription.cancelled().await;
        if let Some(reason) = &subscription.params().last {
            start(subscription.gofer(), subscription.pipeline(), reason).await?;
        }
        Ok(())
    }
}

/// Starts a run of a pipeline of `default`.
pub(crate) async fn start(gofer: &Gofer, pipeline: &str, reason: &str) -> Result<RunInfo> {
    gofer.start_run(pipeline, "probe", Run::because(reason.to_owned())).await
}

/// Installs one as `probe`, and returns it with its client. `id` is the test's own.
pub(crate) async fn install(core: &Core, id: &str) -> (Installed, Gofer) {
    let installed = core.install::<Probe>("probe", [("id", id)]).await.unwrap();
    (installed, client(id))
}

/// The client of the last instance.
pub(crate) fn client(id: &str) -> Gofer {
    let clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.as_ref().unwrap()[id].clone()
}
