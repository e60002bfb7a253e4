//! The extension that the tests install.

use std::time::Duration;

use gofer_sdk::{Error, Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The time between two runs.
    every: GoDuration,
    /// How long it continues after it was asked to stop.
    linger: Option<GoDuration>,
}

/// Starts a run at each tick, at most once a second.
pub(crate) struct Metronome;

impl Extension for Metronome {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.every < GoDuration::from_secs(1) {
            return Err(Error::invalid_parameter("every", "must be at least 1s"));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let params = subscription.params();
        let mut ticks = subscription.every(params.every)?;
        while ticks.next().await {
            subscription.start_run(Run::because("it ticked")).await?;
        }
        if let Some(linger) = params.linger {
            tokio::time::sleep(Duration::try_from(linger).unwrap_or_default()).await;
        }
        Ok(())
    }
}
