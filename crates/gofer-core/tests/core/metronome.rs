//! The extension that the tests install, in this process or as a program.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::files::write_script;
use gofer_sdk::{Error, Extension, GoDuration, Gofer, Result, Subscription, SystemConfig};
use schemars::JsonSchema;
use serde::Deserialize;

/// The program: a script that starts this test program again.
pub(crate) fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let write = || {
        let tests = std::env::current_exe().unwrap();
        let test = "metronome::extension_under_test";
        let name = format!("{}-metronome", tests.file_name().unwrap().display());
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Another process may be using the one of an earlier run.
        let new = program.with_extension(std::process::id().to_string());
        let start =
            format!("exec '{}' --exact {test} --ignored --nocapture >/dev/null", tests.display());
        write_script(&new, &start);
        std::fs::rename(new, &program).unwrap();
        program
    };
    PROGRAM.get_or_init(write).clone()
}

/// The program's process. Not a test of its own.
#[tokio::test]
#[ignore = "started by other tests"]
async fn extension_under_test() {
    if SystemConfig::is_in_env() {
        gofer_sdk::run::<Metronome>().await.unwrap();
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Config {
    /// The shortest time between two runs.
    #[serde(default = "one_second")]
    min_interval: GoDuration,
}

fn one_second() -> GoDuration {
    GoDuration::from_secs(1)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The time between two runs.
    every: GoDuration,
    /// How long it continues after it was asked to stop.
    linger: Option<GoDuration>,
}

/// Starts a run at each tick.
pub(crate) struct Metronome {
    min_interval: GoDuration,
}

impl Extension for Metronome {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        Ok(Self { min_interval: config.min_interval })
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.every < self.min_interval {
            let message = format!("must be at least {}", self.min_interval);
            return Err(Error::invalid_parameter("every", message));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let params = subscription.params();
        let mut ticks = subscription.every(params.every)?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("it ticked")).await?;
        }
        if let Some(linger) = params.linger {
            tokio::time::sleep(Duration::try_from(linger).unwrap_or_default()).await;
        }
        Ok(())
    }
}
