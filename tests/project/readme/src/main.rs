use gofer_sdk::{Error, Extension, GoDuration, Gofer, NoConfig, Result, RunError, Subscription};

/// What a pipeline sets when it subscribes.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Params {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
}

pub struct Every;

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
async fn main() -> Result<(), RunError> {
    gofer_sdk::run::<Every>().await
}

#[cfg(test)]
mod tests {
    use super::Every;
    use gofer_core::{Core, NO_SETTINGS, hours};

    #[tokio::test(start_paused = true)]
    async fn fires_twice_in_three_hours() -> gofer_sdk::Result<()> {
        let gofer = Core::in_memory().await?;
        let every = gofer.install::<Every>("every", NO_SETTINGS).await?;
        every.subscribe("default/nightly", "hourly", [("every", "1h30m")]).await?;
        gofer.elapse(hours(3)).await;
        assert_eq!(gofer.runs("default/nightly").len(), 2);
        Ok(())
    }
}
