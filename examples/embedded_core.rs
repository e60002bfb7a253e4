//! A Gofer inside your own program: a core, the interval extension in this process, and a pipeline
//! that it runs. A function of yours executes the runs.
//!
//! `cargo run --example embedded_core` prints five runs and ends; Ctrl-C ends it sooner.

#![allow(clippy::print_stdout, reason = "it shows what happens")]

#[path = "interval/interval.rs"]
mod interval;

use gofer_core::Core;
use interval::Interval;

#[tokio::main(flavor = "current_thread")]
async fn main() -> gofer_sdk::Result<()> {
    // Everything is in memory, and nothing outside of this process can reach it.
    // `.store("gofer.redb")` keeps it in a file, `.listen(([127, 0, 0, 1], 8080))` opens the API to
    // other programs.
    let (runs, mut started) = tokio::sync::mpsc::unbounded_channel();
    let core = Core::builder()
        .run_handler(move |run| {
            // Fails after the fifth run, when the receiver is gone. The run succeeds nevertheless.
            let _ = runs.send(run);
            async { Ok(()) }
        })
        .start()
        .await?;
    let interval = core.install::<Interval>("interval", [("min_interval", "500ms")]).await?;
    interval.subscribe("default/nightly", "often", [("every", "500ms")]).await?;

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
