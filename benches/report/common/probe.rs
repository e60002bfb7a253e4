//! The interval extension once more, for the row that is about time: each
//! run's reason says when it was due, for who receives it.

use std::time::{SystemTime, UNIX_EPOCH};

use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a pipeline sets when it subscribes.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
}

pub(crate) struct Probe;

impl Extension for Probe {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let every = subscription.params().every;
        let mut due = unix_nanos();
        let mut ticks = subscription.every(every)?;
        while ticks.next().await {
            // The first tick that nothing has answered yet; where several have
            // fallen due, the later ones are missing and are counted so.
            due += every.as_nanos();
            let missed = (unix_nanos() - due) / every.as_nanos();
            subscription.start_run(Run::because(reason(due))).await?;
            due += missed * every.as_nanos();
        }
        Ok(())
    }
}

/// Now, in nanoseconds of Unix time: the clock that processes share.
#[must_use]
pub(crate) fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What a run that was due at this time says of itself.
#[must_use]
pub(crate) fn reason(due: i64) -> String {
    format!("the interval elapsed at {due}")
}

/// Reads a reason back.
#[must_use]
pub(crate) fn due(reason: &str) -> Option<i64> {
    reason.rsplit_once(' ')?.1.parse().ok()
}
