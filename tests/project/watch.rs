//! The guarantees of the watch extension: each end of a run starts exactly one, whatever happens to
//! the connection, the extension and the core.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::stand_in::{StandIn, pipeline};
use crate::watch_extension::Watch;
use gofer_core::{Core, Grant, InstallOptions, Installed, NO_SETTINGS, minutes, seconds};
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use gofer_sdk::{Error, ErrorKind, Result, Run, RunInfo, RunStatus};

const NIGHTLY: &str = "default/nightly";
const REPORT: &str = "default/report";
const WATCH: [(&str, &str); 1] = [("pipeline", NIGHTLY)];

/// How a run goes is in its variables: `SECONDS` and `FAILS`.
async fn execute(run: RunInfo) -> Result<()> {
    let time = run.variable("SECONDS").map_or(0, |text| text.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(time)).await;
    if run.variable("FAILS").is_some() { Err(Error::internal("it fails")) } else { Ok(()) }
}

async fn register(core: &Core, pipeline: &str) {
    let (namespace, pipeline) = pipeline.split_once('/').unwrap();
    let mut api = core.client().api();
    let create = proto::CreateNamespaceRequest { id: namespace.to_owned(), ..Default::default() };
    // It may exist.
    let _ = api.create_namespace(create).await;
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    api.register_pipeline_config(request).await.unwrap();
}

async fn core() -> Result<(Core, Installed)> {
    let core = Core::builder().runs_at_a_time(1000).run_handler(execute).start().await?;
    register(&core, NIGHTLY).await;
    let watch = core.install::<Watch>("watch", NO_SETTINGS).await?;
    Ok((core, watch))
}

/// Starts a run of a pipeline that takes this long.
async fn run(core: &Core, pipeline: &str, seconds: u64) -> Result<i64> {
    let run = Run::because("of a test").variable("SECONDS", seconds.to_string());
    Ok(core.client().start_run(pipeline, "test", run).await?.id())
}

async fn fail(core: &Core) -> Result<i64> {
    let run = Run::because("of a test").variable("FAILS", "yes");
    Ok(core.client().start_run(NIGHTLY, "test", run).await?.id())
}

/// The runs that those of a pipeline were started for, in the order in which they were.
fn watched(core: &Core, pipeline: &str) -> Vec<i64> {
    let runs = core.runs(pipeline);
    let id = |run: &RunInfo| run.variable("GOFER_EXTENSION_WATCH_RUN_ID").unwrap().parse().unwrap();
    runs.iter().rev().map(id).collect()
}

async fn set_enabled(core: &Core, enabled: bool) {
    let mut api = core.client().api();
    let name = "watch".to_owned();
    if enabled {
        api.enable_extension(proto::EnableExtensionRequest { name }).await.unwrap();
    } else {
        api.disable_extension(proto::DisableExtensionRequest { name }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_run_starts_one_that_says_which() -> Result<()> {
    let (core, watch) = core().await?;
    run(&core, NIGHTLY, 0).await?;
    core.elapse(seconds(1)).await;
    watch.subscribe(REPORT, "l", WATCH).await?;
    core.elapse(minutes(1)).await;
    assert!(core.runs(REPORT).is_empty(), "it ended before");
    run(&core, NIGHTLY, 10).await?;
    core.elapse(seconds(9)).await;
    assert!(core.runs(REPORT).is_empty());
    core.elapse(seconds(1)).await;
    fail(&core).await?;
    core.elapse(minutes(60)).await;
    assert_eq!(watched(&core, REPORT), [2, 3]);
    let [failed, succeeded] = &core.runs(REPORT)[..] else { panic!() };
    assert_eq!(succeeded.initiator(), "watch (l)");
    assert_eq!(succeeded.reason(), "run 2 of default/nightly succeeded");
    let variable = |name: &str| {
        succeeded.variable(&format!("GOFER_EXTENSION_WATCH_{name}")).unwrap().to_owned()
    };
    assert_eq!((&*variable("NAMESPACE"), &*variable("PIPELINE")), ("default", "nightly"));
    assert_eq!((&*variable("RUN_ID"), &*variable("STATUS")), ("2", "successful"));
    assert!(succeeded.key().unwrap().starts_with("default/nightly#2@"));
    assert_eq!(failed.variable("GOFER_EXTENSION_WATCH_STATUS"), Some("failed"));
    assert_eq!(failed.reason(), "run 3 of default/nightly failed");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_as_soon_as_the_pipeline_has_subscribed_counts() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    run(&core, NIGHTLY, 0).await?;
    core.elapse(seconds(1)).await;
    assert_eq!(watched(&core, REPORT), [1]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_in_the_millisecond_of_the_subscription_counts_unseen_too() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    set_enabled(&core, false).await;
    run(&core, NIGHTLY, 0).await?;
    while core.runs(NIGHTLY)[0].ended().is_none() {
        tokio::task::yield_now().await;
    }
    set_enabled(&core, true).await;
    core.elapse(seconds(1)).await;
    assert_eq!(watched(&core, REPORT), [1]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_gofer_is_away_is_made_up_for() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    for seconds in [1, 50, 40, 30, 200] {
        run(&core, NIGHTLY, seconds).await?;
    }
    core.elapse(seconds(5)).await;
    core.close_api().await;
    core.elapse(minutes(2)).await;
    assert_eq!(watched(&core, REPORT), [1]);
    core.reopen_api().await?;
    core.elapse(seconds(10)).await;
    assert_eq!(watched(&core, REPORT), [1, 4, 3, 2]);
    core.elapse(minutes(10)).await;
    assert_eq!(watched(&core, REPORT), [1, 4, 3, 2, 5]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_the_extension_is_away_is_made_up_for() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    core.elapse(seconds(1)).await;
    // Before there has been a run, and after.
    let mut expected = Vec::new();
    for _ in 0..3 {
        let slow = run(&core, NIGHTLY, 100).await?;
        let slower = run(&core, NIGHTLY, 1000).await?;
        let quick = run(&core, NIGHTLY, 5).await?;
        set_enabled(&core, false).await;
        core.elapse(minutes(5)).await;
        assert_eq!(watched(&core, REPORT), expected);
        set_enabled(&core, true).await;
        core.elapse(seconds(10)).await;
        expected.extend([quick, slow]);
        assert_eq!(watched(&core, REPORT), expected);
        for _ in 0..3 {
            watch.restart().await?;
            core.elapse(seconds(1)).await;
        }
        core.elapse(minutes(30)).await;
        expected.push(slower);
        assert_eq!(watched(&core, REPORT), expected);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn many_that_end_at_once_and_out_of_order_start_one_each() -> Result<()> {
    const RUNS: u64 = 300;
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    for n in 0..RUNS {
        run(&core, NIGHTLY, 60 + n * 7 % 31).await?;
        if n == RUNS / 2 {
            watch.restart().await?;
        }
    }
    core.elapse(seconds(70)).await;
    watch.restart().await?;
    core.elapse(seconds(5)).await;
    core.close_api().await;
    core.elapse(seconds(5)).await;
    core.reopen_api().await?;
    core.elapse(minutes(5)).await;
    let started = watched(&core, REPORT);
    assert_eq!(started.len(), usize::try_from(RUNS).unwrap());
    let all: BTreeSet<_> = started.into_iter().collect();
    assert!(all.into_iter().eq(1..=i64::try_from(RUNS).unwrap()));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_the_status_that_is_asked_for_counts() -> Result<()> {
    let (core, watch) = core().await?;
    for status in ["successful", "failed", "cancelled", "any"] {
        let params = [("pipeline", NIGHTLY), ("status", status)];
        watch.subscribe(format!("default/{status}"), "l", params).await?;
    }
    core.elapse(seconds(1)).await;
    run(&core, NIGHTLY, 0).await?;
    fail(&core).await?;
    let cancelled = run(&core, NIGHTLY, 1000).await?;
    core.elapse(seconds(1)).await;
    let cancel = proto::CancelRunRequest {
        pipeline_id: "nightly".to_owned(),
        run_id: cancelled,
        ..Default::default()
    };
    core.client().api().cancel_run(cancel).await.unwrap();
    core.elapse(minutes(60)).await;
    for (status, expected) in [
        ("successful", vec![1]),
        ("failed", vec![2]),
        ("cancelled", vec![3]),
        ("any", vec![1, 2, 3]),
    ] {
        assert_eq!(watched(&core, &format!("default/{status}")), expected, "{status}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_for_so_many_in_a_row_and_the_count_begins_anew() -> Result<()> {
    let (core, watch) = core().await?;
    let params = [("pipeline", NIGHTLY), ("status", "failed"), ("consecutive", "3")];
    watch.subscribe(REPORT, "l", params).await?;
    core.elapse(seconds(1)).await;
    // f: fails, s: succeeds.
    for (number, how) in "ffsfffffffsffsf".chars().enumerate() {
        if how == 'f' {
            fail(&core).await?
        } else {
            run(&core, NIGHTLY, 0).await?
        };
        core.elapse(seconds(1)).await;
        if number % 2 == 1 {
            // The count is that of the runs that have ended, whoever counts.
            watch.restart().await?;
            core.elapse(seconds(1)).await;
        }
    }
    assert_eq!(watched(&core, REPORT), [6, 9]);
    fail(&core).await?;
    fail(&core).await?;
    core.elapse(seconds(1)).await;
    assert_eq!(watched(&core, REPORT), [6, 9, 17]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_would_watch_itself_is_refused() -> Result<()> {
    let (core, watch) = core().await?;
    let subscribe = async |pipeline: &str, to: &str| {
        let outcome = watch.subscribe(pipeline, "l", [("pipeline", to)]).await;
        core.elapse(seconds(1)).await;
        outcome
    };
    let refused = subscribe(NIGHTLY, NIGHTLY).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter);
    assert!(refused.to_string().contains("must be another pipeline"), "{refused}");
    subscribe("default/a", NIGHTLY).await?;
    subscribe("default/b", "default/a").await?;
    subscribe("default/c", "default/b").await?;
    subscribe("default/d", "default/b").await?;
    let refused = subscribe(NIGHTLY, "default/c").await.unwrap_err();
    let chain = "it watches `default/c`, which watches `default/b`, which watches `default/a`, \
                 which watches `default/nightly`";
    assert!(refused.to_string().contains(chain), "{refused}");
    run(&core, NIGHTLY, 0).await?;
    core.elapse(seconds(5)).await;
    for pipeline in ["a", "b", "c", "d"] {
        assert_eq!(core.runs(format!("default/{pipeline}")).len(), 1, "{pipeline}");
    }
    // Once one of them no longer does, it may.
    watch.unsubscribe("default/b", "l").await?;
    subscribe(NIGHTLY, "default/c").await?;
    assert!(subscribe("default/b", NIGHTLY).await.is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn invalid_parameters_are_refused() -> Result<()> {
    let (_core, watch) = core().await?;
    for (params, expected) in [
        (vec![], "parameter `pipeline`: is required"),
        (vec![("pipeline", "nightly")], "parameter `pipeline`: must be a namespace and a pipeline"),
        (vec![("pipeline", "a/b/c")], "parameter `pipeline`: must be a namespace and a pipeline"),
        (vec![("pipeline", NIGHTLY), ("status", "good")], "parameter `status`: must be one of"),
        (vec![("pipeline", NIGHTLY), ("consecutive", "0")], "parameter `consecutive`:"),
        (vec![("pipeline", NIGHTLY), ("consecutive", "x")], "parameter `consecutive`:"),
    ] {
        let error = watch.subscribe(REPORT, "l", params).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_takes_no_grace_and_is_final() -> Result<()> {
    const WATCHES: [(&str, &str); 1] = [("pipeline", "ops/tested")];
    let (core, watch) = core().await?;
    register(&core, "ops/tested").await;
    watch.subscribe("ops/nightly", "docs", WATCHES).await?;
    run(&core, "ops/tested", 0).await?;
    core.elapse(seconds(1)).await;
    crate::doctest::restarts_and_unsubscribes(&core, &watch).await?;
    run(&core, "ops/tested", 0).await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, "ops/nightly"), [1]);
    // Subscribed anew, it does not reach back, not even after a restart.
    watch.subscribe("ops/nightly", "docs", WATCHES).await?;
    watch.restart().await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, "ops/nightly"), [1]);
    run(&core, "ops/tested", 0).await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, "ops/nightly"), [1, 3]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn changed_parameters_do_not_reach_back() -> Result<()> {
    let (core, watch) = core().await?;
    register(&core, "default/weekly").await;
    let with = |status| [("pipeline", NIGHTLY), ("status", status)];
    watch.subscribe(REPORT, "l", with("failed")).await?;
    core.elapse(seconds(1)).await;
    run(&core, NIGHTLY, 0).await?;
    run(&core, "default/weekly", 0).await?;
    core.elapse(minutes(1)).await;
    watch.subscribe(REPORT, "l", with("any")).await?;
    core.elapse(minutes(1)).await;
    watch.restart().await?;
    core.elapse(minutes(1)).await;
    assert!(core.runs(REPORT).is_empty());
    run(&core, NIGHTLY, 0).await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [2]);
    watch.subscribe(REPORT, "l", [("pipeline", "default/weekly")]).await?;
    watch.restart().await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [2]);
    run(&core, "default/weekly", 0).await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [2, 2]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_made_again_is_another_one() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    for _ in 0..2 {
        run(&core, NIGHTLY, 0).await?;
        core.elapse(seconds(1)).await;
    }
    assert_eq!(watched(&core, REPORT), [1, 2]);
    let delete = proto::DeletePipelineRequest { id: "nightly".to_owned(), ..Default::default() };
    core.client().api().delete_pipeline(delete).await.unwrap();
    core.elapse(minutes(1)).await;
    register(&core, NIGHTLY).await;
    assert_eq!(run(&core, NIGHTLY, 0).await?, 1);
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [1, 2, 1]);
    watch.restart().await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [1, 2, 1]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_of_another_namespace_needs_a_grant() -> Result<()> {
    let core = Core::builder().run_handler(execute).start().await?;
    register(&core, "ops/nightly").await;
    let watch = core.install::<Watch>("watch", NO_SETTINGS).await?;
    watch.subscribe(REPORT, "l", [("pipeline", "ops/nightly")]).await?;
    core.elapse(minutes(1)).await;
    let health = watch.info().await?;
    run(&core, "ops/nightly", 0).await?;
    core.elapse(minutes(1)).await;
    assert!(core.runs(REPORT).is_empty(), "{health:?}");
    // What has ended since it was subscribed is made up for.
    watch.update_options(InstallOptions::new().grant(Grant::Everything)).await?;
    core.elapse(minutes(10)).await;
    assert_eq!(watched(&core, REPORT), [1]);

    let config = [("other_namespaces", "false")];
    let strict = core.install::<Watch>("strict", config).await?;
    let refused = strict.subscribe(REPORT, "l", [("pipeline", "ops/nightly")]).await.unwrap_err();
    assert!(refused.to_string().contains("must be in the namespace"), "{refused}");
    strict.subscribe("ops/report", "l", [("pipeline", "ops/nightly")]).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_disabled_pipeline_is_not_run() -> Result<()> {
    let (core, watch) = core().await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    let id = || "report".to_owned();
    let mut api = core.client().api();
    let disable = proto::DisablePipelineRequest { id: id(), ..Default::default() };
    api.disable_pipeline(disable).await.unwrap();
    run(&core, NIGHTLY, 0).await?;
    core.elapse(minutes(1)).await;
    let enable = proto::EnablePipelineRequest { id: id(), ..Default::default() };
    api.enable_pipeline(enable).await.unwrap();
    run(&core, NIGHTLY, 0).await?;
    core.elapse(minutes(1)).await;
    assert_eq!(watched(&core, REPORT), [2]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_full_gofer_is_asked_and_each_end_starts_one_run() {
    let gofer = StandIn::in_memory([pipeline("nightly").runs_stay(), pipeline("report")]);
    let api = GoferClient::new(gofer.connect().await);
    let start = async || {
        let request = proto::StartRunRequest {
            pipeline_id: "nightly".to_owned(),
            initiator: Some(proto::Initiator { name: "test".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        api.clone().start_run(request).await.unwrap().into_inner().run.unwrap().id
    };
    let watched = || {
        let recorded = gofer.recorded();
        let id = |run: &proto::Run| {
            let found = run.variables.iter().find(|it| it.key == "GOFER_EXTENSION_WATCH_RUN_ID");
            found.unwrap().value.parse().unwrap()
        };
        recorded.runs_of("report").map(id).collect::<Vec<i64>>()
    };
    let settle = || tokio::time::sleep(Duration::from_secs(20));
    let mut extension = gofer.serve::<Watch>(&[]).await;
    start().await;
    gofer.complete("nightly", 1);
    extension.client.subscribe("report", &WATCH).await.unwrap();
    settle().await;
    assert!(watched().is_empty(), "it ended before");
    for _ in 2..=9 {
        start().await;
    }
    gofer.complete("nightly", 3);
    gofer.complete("nightly", 2);
    settle().await;
    assert_eq!(watched(), [3, 2]);
    // A lost connection.
    gofer.stop_listening().await;
    gofer.disconnect();
    gofer.complete("nightly", 5);
    settle().await;
    gofer.complete("nightly", 4);
    gofer.listen();
    settle().await;
    assert_eq!(watched(), [3, 2, 5, 4]);
    // Another process: Gofer subscribes the pipeline again.
    for next in [8, 6] {
        extension.kill().await;
        gofer.complete("nightly", next);
        tokio::time::sleep(Duration::from_secs(1)).await;
        gofer.complete("nightly", next + 1);
        extension = gofer.serve::<Watch>(&[]).await;
        extension.client.subscribe("report", &WATCH).await.unwrap();
        settle().await;
    }
    assert_eq!(watched(), [3, 2, 5, 4, 8, 9, 6, 7]);
}

/// The example, built by `cargo test` beside the tests.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/watch");
    assert!(path.exists(), "build it first: cargo build --example watch");
    path
}

/// In real time: the store is another thread's, and the extension another process.
#[tokio::test]
async fn a_restart_of_the_core_loses_and_repeats_nothing() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("gofer-sdk-watch-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let start = async || {
        Core::builder()
            .listen(([127, 0, 0, 1], 0))
            .store(directory.join("store"))
            .run_handler(execute)
            .run_grace(Duration::from_millis(100))
            .start()
            .await
    };
    let core = start().await?;
    register(&core, NIGHTLY).await;
    let watch = core.install_program("watch", &program(), NO_SETTINGS).await?;
    watch.subscribe(REPORT, "l", WATCH).await?;
    let mut core = core;
    for round in 0..3 {
        for _ in 0..5 {
            run(&core, NIGHTLY, 0).await?;
        }
        // It ends with the core, or is found to have.
        run(&core, NIGHTLY, 100).await?;
        if round == 1 {
            // Not even the ends that it has seen are handled.
            core.stop().await;
        } else {
            core.wait_for_runs(REPORT, 5).await?;
            core.stop().await;
        }
        core = start().await?;
        core.wait_for_runs(REPORT, (round + 1) * 6).await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = watched(&core, REPORT);
    assert_eq!(started.len(), 18, "{started:?}");
    assert!(started.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(1..=18));
    let cut_off =
        core.runs(NIGHTLY).iter().filter(|run| run.status() != RunStatus::Successful).count();
    assert_eq!(cut_off, 3);
    core.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
    Ok(())
}
