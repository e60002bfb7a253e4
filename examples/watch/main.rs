//! The watch extension: runs a pipeline because a run of another one has ended.
//!
//! `cargo run --example watch` shows it at work on an embedded core: one pipeline runs every three
//! seconds, and another one watches it. Started by Gofer, it is the extension itself.
//!
//! - [`watch`] is the extension: what it is configured with, what a pipeline subscribes with, and
//!   what it does for one subscription.
//! - This file is the program: the extension, or the demo.
//! - `image.rs` and Cargo.toml beside it are for an image: the same extension without the demo, and
//!   so without the core.

#![allow(clippy::print_stdout, reason = "it shows what happens")]

mod watch;

use std::time::Duration;

use gofer_core::{Core, DemoError, Grant, InstallOptions, NO_SETTINGS};
use gofer_sdk::api::{
    CreateNamespaceRequest, RegisterPipelineConfigRequest, UserPipelineConfig, tonic,
};
use gofer_sdk::{Error, EventFilter, Result, Run, SystemConfig};
use watch::Watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    if SystemConfig::is_in_env() {
        return gofer_sdk::run::<Watch>().await.map_err(DemoError::Run);
    }
    if std::env::args_os().len() > 1 {
        println!(
            "Shows the extension `watch` at work on an embedded Gofer core. It takes no arguments."
        );
        return Ok(());
    }
    demo().await.map_err(DemoError::Demo)
}

/// The pipeline that is watched, and the one that watches it.
const NIGHTLY: &str = "ops/nightly";
const REPORT: &str = "default/report";

async fn demo() -> Result<()> {
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).start().await?;
    let outcome = show(&core).await;
    core.stop().await;
    outcome
}

async fn show(core: &Core) -> Result<()> {
    let gofer = core.client();
    add_nightly(core).await?;
    // To see a pipeline of a namespace without a subscription to it, the extension needs a grant.
    // Pipelines of one namespace could watch each other without.
    let options = InstallOptions::new().grant(Grant::Everything);
    let program = std::env::current_exe()?;
    let watch = core.install_program_with("watch", &program, NO_SETTINGS, options).await?;
    watch.subscribe(REPORT, "demo", [("pipeline", NIGHTLY)]).await?;
    println!("{REPORT} watches {NIGHTLY}, which runs every three seconds. Press Ctrl-C to stop.\n");

    let mut started = gofer.follow(EventFilter::all().kind("RUN_STARTED")).await?;
    let show_runs = async {
        loop {
            let event = started.next().await?;
            let (Some(pipeline), Some(id)) = (event.pipeline(), event.run()) else { continue };
            let run = gofer.run(&pipeline, id).await?;
            println!("run {id} of {pipeline}: {}", run.reason());
        }
    };
    let run_nightly = async {
        let mut every = tokio::time::interval(Duration::from_secs(3));
        loop {
            every.tick().await;
            gofer.start_run(NIGHTLY, "demo", Run::because("three seconds have passed")).await?;
        }
    };
    tokio::select! {
        outcome = show_runs => outcome,
        outcome = run_nightly => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn add_nightly(core: &Core) -> Result<()> {
    let (namespace, pipeline) = NIGHTLY.split_once('/').unwrap_or_default();
    let namespace_to_create = CreateNamespaceRequest {
        id: namespace.to_owned(),
        name: namespace.to_owned(),
        ..Default::default()
    };
    let config = UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let pipeline_request = RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    let mut api = core.client().api();
    let failed = |status: tonic::Status| Error::internal(status.to_string());
    api.create_namespace(namespace_to_create).await.map_err(failed)?;
    api.register_pipeline_config(pipeline_request).await.map_err(failed)?;
    Ok(())
}
