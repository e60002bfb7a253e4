//! Ticks of an extension that does no more than most do, as schedulers elsewhere were reported to
//! get them wrong.

use std::time::{Duration, UNIX_EPOCH};

use gofer_core::{Core, NO_SETTINGS, hours, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, RunState, Subscription};

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Params {
    pub(crate) every: GoDuration,
    /// What the author does before the run is started takes this long.
    #[serde(default)]
    work: GoDuration,
}

pub(crate) struct Every;

impl Extension for Every {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            tokio::time::sleep(subscription.params().work.try_into()?).await;
            subscription.start_run(tick.run("the time has come")).await?;
        }
        Ok(())
    }
}

/// When the runs started, in seconds since the first one, oldest first.
pub(crate) fn starts(core: &Core) -> Vec<u64> {
    let runs = core.runs("default/nightly");
    let at = |run: &gofer_sdk::RunInfo| run.started().duration_since(UNIX_EPOCH).unwrap();
    let mut all: Vec<Duration> = runs.iter().map(at).collect();
    all.sort_unstable();
    all.iter().map(|at| at.saturating_sub(all[0]).as_secs()).collect()
}

/// The times that the runs were scheduled for, in milliseconds since the first one, oldest first.
pub(crate) fn scheduled(core: &Core) -> Vec<u128> {
    let runs = core.runs("default/nightly");
    let mut all: Vec<_> = runs.iter().filter_map(gofer_sdk::RunInfo::scheduled).collect();
    all.sort_unstable();
    all.iter().map(|at| at.duration_since(all[0]).unwrap().as_millis()).collect()
}

pub(crate) async fn enable(core: &Core, enable: bool) {
    let (namespace_id, id) = ("default".to_owned(), "nightly".to_owned());
    let mut api = core.client().api();
    if enable {
        api.enable_pipeline(proto::EnablePipelineRequest { namespace_id, id }).await.unwrap();
    } else {
        api.disable_pipeline(proto::DisablePipelineRequest { namespace_id, id }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_enabled_again_runs_at_its_next_tick() -> Result<()> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", [("every", "10s")]).await?;
    core.elapse(minutes(1)).await;
    // For several lengths, since the pause before a restart varies.
    for length in [61, 63, 66] {
        let before = starts(&core).len();
        enable(&core, false).await;
        core.elapse(minutes(length)).await;
        enable(&core, true).await;
        core.elapse(seconds(11)).await;
        assert!(starts(&core).len() > before, "after {length} minutes");
    }
    let off = scheduled(&core).into_iter().find(|at| at % 10_000 != 0);
    assert_eq!(off, None, "off the grid");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_run_and_a_restart_keep_the_grid() -> Result<()> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", [("every", "1h")]).await?;
    // A run at 1:00.
    core.elapse(minutes(61)).await;
    // Away over the tick at 2:00, back at 2:20.
    core.close_api().await;
    core.elapse(minutes(79)).await;
    core.reopen_api().await?;
    core.elapse(minutes(5)).await;
    every.restart().await?;
    core.elapse(hours(3)).await;
    let minutes: Vec<_> = starts(&core).iter().map(|at| at / 60).collect();
    assert_eq!(minutes, [0, 80, 120, 180, 240]);
    assert_eq!(scheduled(&core), [0, 3_600_000, 7_200_000, 10_800_000, 14_400_000]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_author_and_restarts_keep_the_grid() -> Result<()> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", [("every", "1h"), ("work", "7m")]).await?;
    for _ in 0..5 {
        core.elapse(minutes(70)).await;
        every.restart().await?;
    }
    core.elapse(hours(1)).await;
    let scheduled = scheduled(&core);
    let hours: Vec<u128> = (0..).map(|hour| hour * 3_600_000).take(scheduled.len()).collect();
    assert_eq!(scheduled, hours);
    assert!(starts(&core).len() >= 5);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_has_never_run_keeps_the_grid_from_its_subscription() -> Result<()> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", [("every", "1h")]).await?;
    enable(&core, false).await;
    // Its first tick fails, and `serve` is restarted some times.
    core.elapse(minutes(75)).await;
    enable(&core, true).await;
    core.elapse(minutes(50)).await;
    assert_eq!(starts(&core).len(), 2, "the one that failed, and the next one");
    assert_eq!(scheduled(&core), [0, 3_600_000]);
    Ok(())
}

/// Outages break connections at any moment, and restarts end calls at any moment.
#[tokio::test(start_paused = true)]
async fn ticks_through_outages_and_restarts_are_one_run_each_and_keep_the_grid() -> Result<()> {
    const PIPELINES: usize = 10;
    let names = || (0..PIPELINES).map(|n| format!("default/p{n}"));
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    for name in names() {
        every.subscribe(&*name, "x", [("every", "2s")]).await?;
    }
    let mut random = fastrand::Rng::with_seed(5);
    let mut millis = |most: u64| Duration::from_millis(random.u64(1..most));
    for round in 0..400 {
        core.elapse(millis(15_000)).await;
        if round % 4 == 0 {
            every.restart().await?;
        } else {
            core.close_api().await;
            core.elapse(millis(5_000)).await;
            core.reopen_api().await?;
        }
    }
    let mut all = 0;
    for name in names() {
        let runs = core.runs(&*name);
        let mut scheduled: Vec<_> = runs.iter().map(|run| run.scheduled().unwrap()).collect();
        scheduled.reverse();
        // A run is one of a kind, and none is of an earlier tick than the one before it.
        assert!(scheduled.is_sorted_by(|one, next| one < next), "{name}: {scheduled:?}");
        let beside = |at: &&std::time::SystemTime| {
            let since = at.duration_since(scheduled[0]).unwrap().as_nanos();
            !since.is_multiple_of(seconds(2).as_nanos())
        };
        assert_eq!(scheduled.iter().find(beside), None, "{name} is beside its grid");
        all += scheduled.len();
    }
    assert!(all > PIPELINES * 500, "{all}");
    Ok(())
}

/// A core whose runs take so many seconds, of which a pipeline has so many at a time.
async fn limited(run_seconds: u64, parallelism: i64) -> Core {
    let handler = move |_| async move {
        tokio::time::sleep(seconds(run_seconds)).await;
        Ok(())
    };
    let core = Core::builder().run_handler(handler).start().await.unwrap();
    let config = proto::UserPipelineConfig {
        id: "nightly".to_owned(),
        parallelism,
        ..proto::UserPipelineConfig::default()
    };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..proto::RegisterPipelineConfigRequest::default()
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
    core
}

/// The number of runs in a state.
fn count(core: &Core, state: RunState) -> usize {
    core.runs("default/nightly").iter().filter(|run| run.state() == state).count()
}

#[tokio::test(start_paused = true)]
async fn a_restart_adds_no_pending_run_to_the_one_that_there_is() -> Result<()> {
    let core = limited(600, 1).await;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "l", [("every", "1s")]).await?;
    core.elapse(seconds(10)).await;
    for n in 0..12 {
        match n % 3 {
            0 => every.restart().await?,
            1 => every.update(NO_SETTINGS).await?,
            _ => every.subscribe("default/nightly", "l", [("every", format!("{n}s"))]).await?,
        }
        core.elapse(seconds(20)).await;
        assert_eq!(count(&core, RunState::Running), 1);
        assert_eq!(count(&core, RunState::Pending), 1, "after {n}");
    }
    core.elapse(minutes(60)).await;
    assert!(count(&core, RunState::Complete) >= 6);
    core.stop().await;
    Ok(())
}

/// As on a full Gofer, although this core would queue them all.
#[tokio::test(start_paused = true)]
async fn runs_that_take_longer_than_their_period_go_on_with_one_pending() {
    let core = limited(40, 2).await;
    let every = core.install::<Every>("every", NO_SETTINGS).await.unwrap();
    every.subscribe("default/nightly", "l", [("every", "5s")]).await.unwrap();
    let complete = || count(&core, RunState::Complete);
    let mut before = 0;
    for minute in 1..=60 {
        for _ in 0..60 {
            core.elapse(seconds(1)).await;
            assert!(count(&core, RunState::Pending) <= 1, "in minute {minute}");
        }
        let now = complete();
        assert!(now > before || minute == 1, "none has ended in minute {minute}");
        before = now;
    }
    // Two at a time, each 40 s.
    assert!((150..=180).contains(&before), "{before} runs have ended");
    core.stop().await;
}
