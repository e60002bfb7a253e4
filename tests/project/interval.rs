//! The guarantees of the interval extension, on a paused clock: days pass in milliseconds, over
//! real TLS and gRPC inside one process.

use std::time::SystemTime;

use crate::doctest::restarts_and_unsubscribes;
use crate::interval_extension::Interval;
use gofer_core::{Core, Installed, NO_SETTINGS, hours, minutes, seconds};
use gofer_sdk::{ErrorKind, Result, RunInfo};

const NIGHTLY: &str = "default/nightly";

async fn core() -> Result<(Core, Installed)> {
    let core = Core::in_memory().await?;
    let interval = core.install::<Interval>("interval", NO_SETTINGS).await?;
    Ok((core, interval))
}

/// When each run of a pipeline started, oldest first, in milliseconds since `origin`.
fn starts(core: &Core, pipeline: &str, origin: SystemTime) -> Vec<i64> {
    let since = |run: &RunInfo| run.started().duration_since(origin).unwrap().as_millis();
    let runs = core.runs(pipeline);
    runs.iter().rev().map(|run| i64::try_from(since(run)).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_run_starts_one_interval_after_subscribing() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "hourly", [("every", "1h30m")]).await?;
    core.elapse(minutes(89)).await;
    assert!(core.runs(NIGHTLY).is_empty());
    core.elapse(minutes(1)).await;
    let runs = core.runs(NIGHTLY);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].initiator(), "interval (hourly)");
    assert_eq!(runs[0].reason(), "the interval elapsed");
    core.elapse(minutes(90)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_day_of_five_minute_ticks_does_not_drift() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "often", [("every", "5m")]).await?;
    core.elapse(hours(24)).await;
    let first = core.runs(NIGHTLY).last().unwrap().started();
    let starts = starts(&core, NIGHTLY, first);
    assert_eq!(starts.len(), 288);
    for (n, start) in starts.iter().enumerate() {
        let due = i64::try_from(n).unwrap() * 300_000;
        assert!((start - due).abs() <= 2, "tick {n} was due at {due} and came at {start}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn invalid_parameters_are_reported_with_what_is_allowed() -> Result<()> {
    let (core, interval) = core().await?;
    for (params, expected) in [
        (vec![("every", "30s")], "parameter `every`: must be at least 1m0s"),
        (vec![("every", "5m"), ("jitter", "6m")], "parameter `jitter`: must be between"),
        (vec![("every", "5m"), ("jitter", "-1s")], "parameter `jitter`: must be between"),
        (vec![("evry", "5m")], "did you mean `every`?"),
        (vec![], "parameter `every`: is required"),
        (vec![("every", "fortnight")], "parameter `every`:"),
    ] {
        let error = interval.subscribe(NIGHTLY, "l", params).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("fortnight"), "{error}");
    }
    assert!(interval.info().await?.registered.is_empty());
    interval.subscribe(NIGHTLY, "l", [("EVERY", "1m")]).await?;
    assert_eq!(interval.info().await?.registered, [NIGHTLY]);
    core.stop().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_interval_without_a_minimum_is_refused() -> Result<()> {
    let core = Core::in_memory().await?;
    for minimum in ["0", "-5m", "soon"] {
        let refused = core.install::<Interval>("interval", [("min_interval", minimum)]).await;
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("configuration `min_interval`:"), "{error}");
    }
    core.install::<Interval>("interval", [("MIN_INTERVAL", "1s")]).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ticks_that_fall_due_while_gofer_is_away_become_one_run() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "l", [("every", "1m")]).await?;
    core.elapse(seconds(150)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 2);
    core.close_api().await;
    core.elapse(minutes(10)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 2);
    core.reopen_api().await?;
    core.elapse(seconds(5)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 3, "one run for ten missed ticks");
    // Then it returns to the cadence of the first tick.
    core.elapse(seconds(24)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 3);
    core.elapse(seconds(2)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 4);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_gofer_that_comes_back_starts_each_subscription_once() -> Result<()> {
    let (core, interval) = core().await?;
    let pipelines: Vec<_> = (0..200).map(|n| format!("default/p{n}")).collect();
    for pipeline in &pipelines {
        interval.subscribe(pipeline.as_str(), "l", [("every", "1m")]).await?;
    }
    core.close_api().await;
    core.elapse(minutes(5)).await;
    core.reopen_api().await?;
    core.elapse(seconds(10)).await;
    for pipeline in &pipelines {
        assert_eq!(core.runs(pipeline.as_str()).len(), 1, "{pipeline}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_extension_does_not_reset_the_clock() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "l", [("every", "1h")]).await?;
    core.elapse(minutes(100)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    interval.restart().await?;
    core.elapse(minutes(19)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    core.elapse(minutes(2)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 2, "an hour after the first, not after the restart");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_restart_starts_nothing_and_an_unsubscribe_takes_no_grace() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe("ops/nightly", "docs", [("every", "1h")]).await?;
    core.elapse(minutes(61)).await;
    restarts_and_unsubscribes(&core, &interval).await
}

#[tokio::test(start_paused = true)]
async fn a_daily_interval_fires_on_a_gofer_that_restarts_daily() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "daily", [("every", "24h")]).await?;
    core.elapse(hours(25)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    for day in 2..=7 {
        interval.restart().await?;
        core.elapse(hours(24)).await;
        assert_eq!(core.runs(NIGHTLY).len(), day, "on day {day}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_fell_due_while_the_extension_was_down_runs_once_when_it_is_back() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "l", [("every", "1h")]).await?;
    core.elapse(minutes(61)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    let mut api = core.client().api();
    let name = || interval.name().to_owned();
    let request = gofer_proto::DisableExtensionRequest { name: name() };
    api.disable_extension(request).await.unwrap();
    core.elapse(hours(5)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    let request = gofer_proto::EnableExtensionRequest { name: name() };
    api.enable_extension(request).await.unwrap();
    core.elapse(minutes(1)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn another_interval_takes_effect_without_waiting_for_the_old_one() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "l", [("every", "24h")]).await?;
    core.elapse(minutes(1)).await;
    interval.subscribe(NIGHTLY, "l", [("every", "10m")]).await?;
    core.elapse(minutes(11)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    interval.unsubscribe(NIGHTLY, "l").await?;
    core.elapse(hours(48)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn labels_of_one_pipeline_tick_on_their_own() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "a", [("every", "10m")]).await?;
    interval.subscribe(NIGHTLY, "b", [("every", "30m")]).await?;
    core.elapse(hours(1)).await;
    let runs = core.runs(NIGHTLY);
    let by = |label| runs.iter().filter(|run| run.initiator() == label).count();
    assert_eq!((by("interval (a)"), by("interval (b)")), (6, 2));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_subscriptions_and_keeps_each_at_its_place() -> Result<()> {
    let (core, interval) = core().await?;
    let before = SystemTime::now();
    let pipelines: Vec<_> = (0..20).map(|n| format!("default/p{n}")).collect();
    for pipeline in &pipelines {
        let params = [("every", "10m"), ("jitter", "10m")];
        interval.subscribe(pipeline.as_str(), "l", params).await?;
    }
    core.elapse(hours(1)).await;
    let mut offsets = Vec::new();
    for pipeline in &pipelines {
        let starts = starts(&core, pipeline, before);
        assert!(starts.len() >= 4, "{starts:?}");
        assert!(starts.windows(2).all(|pair| (pair[1] - pair[0] - 600_000).abs() <= 2));
        offsets.push(starts[0] / 60_000);
    }
    offsets.sort_unstable();
    offsets.dedup();
    assert!(offsets.len() >= 5, "all in the same minutes: {offsets:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_disabled_pipeline_is_not_run_and_is_run_again_once_enabled() -> Result<()> {
    let (core, interval) = core().await?;
    interval.subscribe(NIGHTLY, "l", [("every", "10m")]).await?;
    let names = || ("default".to_owned(), "nightly".to_owned());
    let mut api = core.client().api();
    let (namespace_id, id) = names();
    api.disable_pipeline(gofer_proto::DisablePipelineRequest { namespace_id, id }).await.unwrap();
    core.elapse(minutes(35)).await;
    assert!(core.runs(NIGHTLY).is_empty());
    let (namespace_id, id) = names();
    api.enable_pipeline(gofer_proto::EnablePipelineRequest { namespace_id, id }).await.unwrap();
    core.elapse(minutes(10)).await;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_conversations_ask_what_the_structs_declare() -> Result<()> {
    let core = Core::in_memory().await?;
    let talk = core.converse_with_installer::<Interval>(["soon"]).await?;
    assert!(!talk.is_complete, "it asks again, and nobody answers");
    let talk = core.converse_with_installer::<Interval>(["soon", "30s"]).await?;
    assert!(talk.is_complete);
    assert!(talk.questions[0].contains("The shortest interval that a pipeline may ask for."));
    assert!(talk.questions[0].contains("1m0s"), "shows the default: {:?}", talk.questions);
    assert_eq!(talk.questions.len(), 2, "asked again: {talk:?}");
    assert_eq!(talk.settings["min_interval"], "30s");

    let interval = core.install::<Interval>("interval", talk.settings).await?;
    // Too short for the administrator, then right; no jitter.
    let talk = interval.converse_with_configurator(["5s", "", "5m"]).await?;
    assert!(talk.messages.iter().any(|message| message.contains("at least 30s")), "{talk:?}");
    assert_eq!(talk.settings["every"], "5m");
    interval.subscribe(NIGHTLY, "l", talk.settings).await?;

    let documentation = interval.info().await?.documentation;
    for expected in ["## Configuration", "`min_interval`", "## Parameters", "`every`", "`jitter`"] {
        assert!(documentation.contains(expected), "{documentation}");
    }
    Ok(())
}
