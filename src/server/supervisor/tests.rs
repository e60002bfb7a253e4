use super::*;
use crate::extension::{GoDuration, NoConfig};
use crate::{Gofer, Result};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    every: GoDuration,
}

struct Ticking;

impl Extension for Ticking {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
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

fn size_of_output<A, R>(_: fn(A) -> R) -> usize {
    size_of::<R>()
}

#[test]
fn a_subscription_that_ticks_fits_into_256_bytes_of_task() {
    // The task around it takes 104 bytes, and tokio rounds to 128.
    let size = size_of_output(Supervised::<Ticking>::supervise);
    assert!(size <= 152, "the future has grown to {size} bytes");
}

#[cfg(feature = "cron")]
struct Clocked;

#[cfg(feature = "cron")]
impl Extension for Clocked {
    type Config = NoConfig;
    type Params = crate::NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<crate::NoParams>) -> Result<()> {
        let cron = crate::Cron::new("* * * * * *")?;
        let mut ticks = subscription.schedule(cron)?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("the interval elapsed")).await?;
        }
        Ok(())
    }
}

#[cfg(feature = "cron")]
#[test]
fn a_subscription_by_the_clock_fits_into_256_bytes_of_task_too() {
    let size = size_of_output(Supervised::<Clocked>::supervise);
    assert!(size <= 152, "the future has grown to {size} bytes");
}
