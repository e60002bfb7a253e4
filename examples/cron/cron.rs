//! What the cron extension does.

use std::borrow::Cow;
use std::time::Duration;

use gofer_sdk::{
    Cron as Expression, Error, ErrorKind, Extension, Gofer, NoConfig, Result, Schedule,
    Subscription, TimeZone,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a pipeline sets when it subscribes.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// When to run: minute, hour, day of the month, month, day of the week (0 is
    /// Sunday) and year, such as `30 2 * * 1-5 *` for 02:30 on weekdays. All
    /// six must match.
    expression: Expression,
    /// The time zone of the expression, such as `Europe/Berlin`.
    #[serde(default)]
    timezone: TimeZone,
}

impl Params {
    fn schedule(&self) -> Expression {
        self.expression.clone().in_zone(self.timezone.clone())
    }
}

/// An expression whose last time is no longer ago than this is accepted.
const LATELY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The extension, which has nothing to configure.
pub(crate) struct Cron {
    gofer: Gofer,
}

impl Extension for Cron {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, gofer: Gofer) -> Result<Self> {
        Ok(Self { gofer })
    }

    // What cannot be read as an expression or a time zone has been refused
    // before. This is the rest: `0 0 1 1 * 2020`, for example. Gofer subscribes
    // again after each restart, when the last time may have passed without its
    // run, so what was due lately is accepted.
    fn validate(&self, params: &Params) -> Result<()> {
        let lately = self.gofer.now() - LATELY;
        if params.schedule().next_after(lately).is_none() {
            let message = "has no further time: all that match are in the past";
            return Err(Error::invalid_parameter("expression", message));
        }
        Ok(())
    }

    // Runs as long as the subscription, or until the last tick that there is.
    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let mut ticks = subscription.schedule(subscription.params().schedule())?;
        while let Some(tick) = ticks.next().await {
            // Waits out an outage of Gofer; the ticks that fall due meanwhile
            // become this one run.
            match subscription.start_run(tick.run("the expression matches")).await {
                Ok(run) => tracing::debug!(run = run.id(), "started a run"),
                // A disabled pipeline, for example: the next tick may find it
                // enabled, so keep ticking.
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {
                    tracing::debug!(%error, "the pipeline cannot run at the moment");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn documentation() -> Cow<'static, str> {
        include_str!("documentation.md").into()
    }
}
