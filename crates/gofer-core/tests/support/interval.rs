// The extension in the examples of the documentation of `src`, as an `include!`.

use gofer_sdk::{Extension, GoDuration, Gofer, Result, Subscription};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    /// The shortest interval.
    #[serde(default)]
    #[allow(dead_code)]
    min_interval: Option<GoDuration>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    every: GoDuration,
}

struct Interval;

impl Extension for Interval {
    type Config = Config;
    type Params = Params;

    async fn init(_: Config, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("the interval elapsed")).await?;
        }
        Ok(())
    }
}
