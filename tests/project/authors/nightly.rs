use gofer_sdk::{
    Cron, Error, Extension, GoDuration, Gofer, NoConfig, Result, Schedule, Subscription, TimeZone,
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    /// When to run, such as `30 2 * * * *` for 02:30 each night.
    at: Cron,
    /// The time zone of `at`.
    #[serde(default)]
    zone: TimeZone,
}

impl Params {
    fn schedule(&self) -> Cron {
        self.at.clone().in_zone(self.zone.clone())
    }
}

struct Nightly(Gofer);

impl Extension for Nightly {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, gofer: Gofer) -> Result<Self> {
        Ok(Self(gofer))
    }

    fn validate(&self, params: &Params) -> Result<()> {
        match params.schedule().next_after(self.0.now()) {
            Some(_) => Ok(()),
            None => Err(Error::invalid_parameter("at", "never comes again")),
        }
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let ticks = subscription.schedule(subscription.params().schedule())?;
        let mut ticks = ticks.max_lateness(GoDuration::from_hours(6));
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("it is time")).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Nightly;
    use gofer_core::{Core, NO_SETTINGS, hours};
    use gofer_sdk::Result;
    use std::time::{Duration, UNIX_EPOCH};

    #[tokio::test(start_paused = true)]
    async fn it_runs_each_night_but_that_which_has_no_half_past_two() -> Result<()> {
        let noon = UNIX_EPOCH + Duration::from_secs(1_774_695_600); // 2026-03-28, in Berlin
        let gofer = Core::builder().starts_at(noon).start().await?;
        let nightly = gofer.install::<Nightly>("nightly", NO_SETTINGS).await?;
        let params = [("at", "30 2 * * * *"), ("zone", "Europe/Berlin")];
        nightly.subscribe("ops/backup", "x", params).await?;
        let mut nights = Vec::new();
        for _ in 0..370 {
            gofer.elapse(hours(24)).await;
            nights.push(gofer.runs("ops/backup").len());
        }
        assert_eq!(nights[..3], [0, 1, 2]);
        assert_eq!(nights[369], 368, "two of them lack it");
        // Away for the whole night: a run at noon would help nobody.
        gofer.close_api().await;
        gofer.elapse(hours(24)).await;
        gofer.reopen_api().await?;
        gofer.elapse(hours(1)).await;
        assert_eq!(gofer.runs("ops/backup").len(), 368);
        let past = nightly.subscribe("ops/backup", "y", [("at", "0 0 1 1 * 2026")]).await;
        assert!(past.unwrap_err().to_string().contains("`at`: never comes again"));
        Ok(())
    }
}
