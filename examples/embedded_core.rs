//! A Gofer inside your own program: a core, an extension of this process, and a
//! pipeline that the extension runs. What happens in a run is a function of yours.
//!
//! `cargo run --example embedded_core` prints five runs and ends; Ctrl-C ends it sooner.

use gofer_core::{Core, NO_SETTINGS};
use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription};

/// Runs a pipeline every so often.
struct Every;

/// What a pipeline sets when it subscribes.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    /// The time between two runs, such as `500ms` or `5m`.
    every: GoDuration,
}

impl Extension for Every {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let mut ticks = subscription.every(subscription.params().every)?;
        while ticks.next().await {
            subscription.start_run(Run::because("the interval elapsed")).await?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // Everything is in memory, and nothing outside of this process can reach it.
    // `.store("gofer.redb")` keeps it in a file, `.listen(([127, 0, 0, 1], 8080))`
    // opens the API to other programs.
    let (runs, mut started) = tokio::sync::mpsc::unbounded_channel();
    let core = Core::builder()
        .run_handler(move |run| {
            // The run succeeds if this is `Ok`. Nobody is listening after the fifth.
            let _ = runs.send(run);
            async { Ok(()) }
        })
        .start()
        .await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "often", [("every", "500ms")]).await?;

    let five_runs = async {
        for _ in 0..5 {
            let Some(run) = started.recv().await else { return };
            println!("run {} of {}: {}", run.id(), run.pipeline(), run.reason());
        }
    };
    tokio::select! {
        () = five_runs => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    core.stop().await;
    Ok(())
}
