//! The shortest complete extension: it runs a pipeline at an interval.
//!
//! `cargo run --example quickstart` shows it at work.

use gofer_core::{Demo, DemoError, run_or_demo};
use gofer_sdk::{Error, Extension, GoDuration, Gofer, NoConfig, Result, Subscription};

/// What a pipeline sets when it subscribes.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
}

struct Every;

impl Extension for Every {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    // Refuses the subscription with "parameter `every`: must be at least 1s".
    fn validate(&self, params: &Params) -> Result<()> {
        if params.every < GoDuration::from_secs(1) {
            return Err(Error::invalid_parameter("every", "must be at least 1s"));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("the time has come")).await?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    run_or_demo::<Every>(Demo::new("every").param("every", "2s").cadence("every")).await
}
