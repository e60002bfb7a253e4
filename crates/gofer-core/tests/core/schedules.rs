//! What becomes of ticks that were missed, as an author decides.

use std::sync::atomic::{AtomicUsize, Ordering};

use gofer_core::{Core, Installed, NO_SETTINGS, hours, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{
    Extension, GoDuration, Gofer, MissedTicks, NoConfig, NoParams, Result, Run, Subscription,
};

use crate::ticks::{scheduled, starts};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Missed {
    Each,
    Skip,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    missed: Missed,
}

/// Ticks each hour.
struct Hourly;

impl Extension for Hourly {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let missed = match subscription.params().missed {
            Missed::Each => MissedTicks::Each { at_most: 4 },
            Missed::Skip => MissedTicks::Skip,
        };
        let mut ticks = subscription.every(GoDuration::from_hours(1))?.missed(missed);
        while let Some(tick) = ticks.next().await {
            let counts = format!("{} {}", tick.count(), tick.dropped());
            subscription.start_run(tick.run("an hour").variable("COUNTS", counts)).await?;
        }
        Ok(())
    }
}

async fn hourly(missed: &str) -> Result<(Core, Installed)> {
    let core = Core::in_memory().await?;
    let hourly = core.install::<Hourly>("hourly", NO_SETTINGS).await?;
    hourly.subscribe("default/nightly", "x", [("missed", missed)]).await?;
    Ok((core, hourly))
}

/// The hours that runs were scheduled for, since the first one, oldest first.
fn hours_of(core: &Core) -> Vec<u128> {
    scheduled(core).iter().map(|at| at / 3_600_000).collect()
}

/// For how many ticks the last run stands, and how many before it were dropped.
fn counts(core: &Core) -> String {
    core.runs("default/nightly")[0].variable("COUNTS").unwrap_or_default().to_owned()
}

async fn enable(core: &Core, enable: bool) {
    let (mut api, name) = (core.client().api(), "hourly".to_owned());
    if enable {
        api.enable_extension(proto::EnableExtensionRequest { name }).await.unwrap();
    } else {
        api.disable_extension(proto::DisableExtensionRequest { name }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_missed_tick_has_a_run_after_an_outage_and_after_the_extension_was_away() -> Result<()>
{
    let (core, _hourly) = hourly("each").await?;
    core.elapse(minutes(90)).await;
    core.close_api().await;
    core.elapse(hours(4)).await;
    core.reopen_api().await?;
    core.elapse(minutes(1)).await;
    assert_eq!(hours_of(&core), [0, 1, 2, 3, 4]);
    enable(&core, false).await;
    core.elapse(hours(3)).await;
    enable(&core, true).await;
    core.elapse(minutes(1)).await;
    assert_eq!(hours_of(&core), [0, 1, 2, 3, 4, 5, 6, 7]);
    // Of six, two become one.
    enable(&core, false).await;
    core.elapse(hours(6)).await;
    enable(&core, true).await;
    core.elapse(minutes(1)).await;
    assert_eq!(hours_of(&core)[8..], [9, 10, 11, 12, 13]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ticks_that_are_skipped_have_none_and_are_counted() -> Result<()> {
    let (core, _hourly) = hourly("skip").await?;
    core.elapse(minutes(90)).await;
    core.close_api().await;
    core.elapse(hours(4)).await;
    core.reopen_api().await?;
    core.elapse(minutes(20)).await;
    assert_eq!(hours_of(&core), [0]);
    core.elapse(minutes(20)).await;
    assert_eq!(hours_of(&core), [0, 5]);
    enable(&core, false).await;
    core.elapse(hours(3)).await;
    enable(&core, true).await;
    core.elapse(hours(1)).await;
    assert_eq!(hours_of(&core), [0, 5, 9]);
    assert_eq!(counts(&core), "1 3");
    Ok(())
}

/// Runs of its own label, and those of others.
#[tokio::test(start_paused = true)]
async fn the_last_run_is_that_of_the_label() -> Result<()> {
    struct Counting;

    impl Extension for Counting {
        type Config = NoConfig;
        type Params = NoParams;

        async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
            Ok(Self)
        }

        async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
            let last = subscription.last_run().await?;
            let count = last.and_then(|run| run.variable("COUNT")?.parse().ok()).unwrap_or(0);
            assert_eq!(subscription.runs(10).await?.len(), count);
            let run = Run::because("a start").variable("COUNT", (count + 1).to_string());
            subscription.start_run(run).await?;
            Ok(())
        }
    }

    let core = Core::in_memory().await?;
    let counting = core.install::<Counting>("counting", NO_SETTINGS).await?;
    for label in ["a", "b"] {
        counting.subscribe("default/nightly", label, NO_SETTINGS).await?;
    }
    for _ in 0..3 {
        core.elapse(seconds(1)).await;
        core.client().start_run("default/nightly", "a", Run::because("another's")).await?;
        counting.restart().await?;
    }
    core.elapse(seconds(1)).await;
    let runs = core.runs("default/nightly");
    for label in ["counting (a)", "counting (b)"] {
        let own = runs.iter().filter(|run| run.initiator() == label);
        let counts: Vec<_> = own.filter_map(|run| run.variable("COUNT")).collect();
        assert_eq!(counts, ["4", "3", "2", "1"]);
    }
    assert_eq!(starts(&core).len(), 11);
    Ok(())
}

/// In one task the wait for a tick goes on, in the other one it is dropped again and again.
#[tokio::test(start_paused = true)]
async fn tasks_of_one_subscription_each_have_their_ticks() -> Result<()> {
    static TICKS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    static ENDED: AtomicUsize = AtomicUsize::new(0);

    struct InTasks;

    impl Extension for InTasks {
        type Config = NoConfig;
        type Params = NoParams;

        async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
            Ok(Self)
        }

        async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
            let mut hourly = subscription.every(GoDuration::from_hours(1))?;
            let mut daily = subscription.every(GoDuration::from_hours(24))?;
            let hours = tokio::spawn(async move {
                loop {
                    match tokio::time::timeout(minutes(7), hourly.next()).await {
                        Ok(Some(_)) => TICKS[0].fetch_add(1, Ordering::SeqCst),
                        Ok(None) => return ENDED.fetch_add(1, Ordering::SeqCst),
                        Err(_) => continue,
                    };
                }
            });
            let days = tokio::spawn(async move {
                while daily.next().await.is_some() {
                    TICKS[1].fetch_add(1, Ordering::SeqCst);
                }
                ENDED.fetch_add(1, Ordering::SeqCst)
            });
            hours.await.unwrap();
            days.await.unwrap();
            Ok(())
        }
    }

    let core = Core::in_memory().await?;
    let in_tasks = core.install::<InTasks>("in_tasks", NO_SETTINGS).await?;
    in_tasks.subscribe("default/nightly", "x", NO_SETTINGS).await?;
    core.elapse(hours(24 * 10) + minutes(30)).await;
    assert_eq!(TICKS.each_ref().map(|ticks| ticks.load(Ordering::SeqCst)), [240, 10]);
    in_tasks.unsubscribe("default/nightly", "x").await?;
    core.elapse(seconds(1)).await;
    assert_eq!(ENDED.load(Ordering::SeqCst), 2);
    Ok(())
}
