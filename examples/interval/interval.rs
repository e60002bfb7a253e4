//! What the interval extension does.

use std::borrow::Cow;

use gofer_sdk::{Error, ErrorKind, Extension, GoDuration, Gofer, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

/// What the administrator sets at install time. Each doc comment is the
/// installer's question and a line of the documentation.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Config {
    /// The shortest interval that a pipeline may ask for.
    #[serde(default = "one_minute")]
    min_interval: GoDuration,
}

fn one_minute() -> GoDuration {
    GoDuration::from_mins(1)
}

/// What a pipeline sets when it subscribes.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
    /// Spreads the runs of many pipelines: each is moved later by a time
    /// between zero and this, always the same for the same subscription.
    #[serde(default)]
    jitter: GoDuration,
}

/// The extension, once the administrator's configuration is known.
pub(crate) struct Interval {
    min_interval: GoDuration,
}

impl Extension for Interval {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, _gofer: Gofer) -> Result<Self> {
        // What a type cannot say is checked by hand. Zero would let a pipeline
        // run itself without a pause.
        if !config.min_interval.is_positive() {
            return Err(Error::invalid_configuration("min_interval", "must be longer than 0s"));
        }
        Ok(Self { min_interval: config.min_interval })
    }

    // Refuses invalid parameters before Subscribe is acknowledged, with
    // messages that complete "parameter `every`: …" for the pipeline's owner.
    fn validate(&self, params: &Params) -> Result<()> {
        if params.every < self.min_interval {
            let message =
                format!("must be at least {}, the administrator's minimum", self.min_interval);
            return Err(Error::invalid_parameter("every", message));
        }
        if params.jitter.is_negative() || params.jitter > params.every {
            let message = "must be between 0s and the time between two runs";
            return Err(Error::invalid_parameter("jitter", message));
        }
        Ok(())
    }

    // Runs as long as the subscription: `next` returns `None` when that
    // has ended. After an error, which is logged, `serve` is called again.
    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let Params { every, jitter } = *subscription.params();
        let mut ticks = subscription.every(every)?.jitter(jitter);
        while let Some(tick) = ticks.next().await {
            // Waits out an outage of Gofer; the ticks that fall due meanwhile
            // become this one run.
            match subscription.start_run(tick.run("the interval elapsed")).await {
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
        "Starts a run of the pipeline each time an interval has passed, the first one interval \
         after subscribing. A restart of Gofer or of the extension does not reset the interval, \
         and runs that fell due while Gofer was away become one."
            .into()
    }
}
