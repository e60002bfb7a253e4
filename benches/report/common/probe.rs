//! The interval extension once more, for the section `ticks`: the reason of each run has the time
//! that it was due.

use std::time::{SystemTime, UNIX_EPOCH};

use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, Subscription};
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
        while let Some(tick) = ticks.next().await {
            // The first tick without a run. If several have fallen due, the later ones count as
            // missing.
            due += every.as_nanos();
            let missed = (unix_nanos() - due) / every.as_nanos();
            subscription.start_run(tick.run(reason(due))).await?;
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

/// The reason of a run that was due at this time.
#[must_use]
pub(crate) fn reason(due: i64) -> String {
    format!("the interval elapsed at {due}")
}

/// The time in a reason.
#[must_use]
pub(crate) fn due(reason: &str) -> Option<i64> {
    reason.rsplit_once(' ')?.1.parse().ok()
}
