//! A `serve` that fails, above all because Gofer refuses to start a run: how soon it goes on once the
//! reason is over, and what that costs until then.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gofer_core::{Core, NO_SETTINGS, hours, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{Error, Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription};

use crate::log::Log;
use crate::ticks::{enable, scheduled, starts};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    every: GoDuration,
    #[serde(default)]
    kind: Kind,
}

#[derive(Clone, Copy, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// As the README has it.
    #[default]
    Plain,
    /// With an error of its own around that of Gofer.
    Wrapped,
    /// What it does at a tick takes longer than a period.
    Slow,
    /// Without ticks.
    Untimed,
}

struct Ticking;

impl Extension for Ticking {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let Params { every, kind } = *subscription.params();
        if kind == Kind::Untimed {
            loop {
                tokio::time::sleep(every.try_into()?).await;
                subscription.start_run(Run::because("time has passed")).await?;
            }
        }
        let mut ticks = subscription.every(every)?;
        while let Some(tick) = ticks.next().await {
            if kind == Kind::Slow {
                tokio::time::sleep(seconds(25)).await;
            }
            let started = subscription.start_run(tick.run("the time has come")).await;
            match kind {
                Kind::Wrapped => {
                    let failed = |error: Error| Error::internal("no run").with_source(error);
                    started.map_err(failed)?
                }
                _ => started?,
            };
        }
        Ok(())
    }
}

/// For how long there is no run after the core accepts runs again, in seconds.
async fn wait_for_a_run(core: &Core) -> usize {
    let before = starts(core).len();
    let mut waited = 0;
    while starts(core).len() == before && waited < 1_000 {
        core.elapse(seconds(1)).await;
        waited += 1;
    }
    waited
}

async fn longest_wait(kind: &str) -> Result<usize> {
    let core = Core::in_memory().await?;
    let ticking = core.install::<Ticking>("ticking", NO_SETTINGS).await?;
    let params = [("every", "10s"), ("kind", kind)];
    ticking.subscribe("default/nightly", "x", params).await?;
    let mut longest = 0;
    for length in [1, 20, 61, 64] {
        core.elapse(minutes(2)).await;
        enable(&core, false).await;
        core.elapse(minutes(length)).await;
        enable(&core, true).await;
        longest = longest.max(wait_for_a_run(&core).await);
    }
    if kind != "untimed" {
        let off = scheduled(&core).into_iter().find(|at| at % 10_000 != 0);
        assert_eq!(off, None, "off the grid");
    }
    Ok(longest)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_over_costs_at_most_one_period() -> Result<()> {
    assert!(longest_wait("plain").await? <= 11);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_author_wraps_costs_no_more() -> Result<()> {
    assert!(longest_wait("wrapped").await? <= 11);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_a_slow_author_the_time_of_one_attempt_and_a_period() -> Result<()> {
    // One attempt may be under way, and takes as long as the next one.
    assert!(longest_wait("slow").await? <= 25 + 11);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_ticks_costs_half_a_minute_and_a_period() -> Result<()> {
    assert!(longest_wait("untimed").await? <= 30 + 11);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_turned_on_again_start_at_the_next_tick() -> Result<()> {
    let core = Core::in_memory().await?;
    let ticking = core.install::<Ticking>("ticking", NO_SETTINGS).await?;
    ticking.subscribe("default/nightly", "x", [("every", "10s")]).await?;
    let toggle = || async {
        let request = proto::ToggleEventIngressRequest {};
        core.client().api().toggle_event_ingress(request).await.unwrap();
    };
    toggle().await;
    core.elapse(hours(3)).await;
    toggle().await;
    assert!(wait_for_a_run(&core).await <= 11);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lasting_refusal_is_one_warning_each_and_no_more_calls_than_ticks() -> Result<()> {
    use tracing::Level;
    const SUBSCRIPTIONS: usize = 10;
    const SECONDS: usize = 60;
    let log = Log::begin_at(Level::DEBUG);
    let count = |level: Level, message: &str| {
        let of_subscriptions = log.with("the subscription").into_iter();
        let of_level = of_subscriptions.filter(|line| line.starts_with(level.as_str()));
        of_level.filter(|line| line.contains(message)).count()
    };

    let core = Core::in_memory().await?;
    let ticking = core.install::<Ticking>("ticking", NO_SETTINGS).await?;
    for label in 0..SUBSCRIPTIONS {
        ticking.subscribe("default/nightly", &label.to_string(), [("every", "1s")]).await?;
    }
    core.elapse(seconds(10)).await;
    enable(&core, false).await;
    core.elapse(seconds(SECONDS as u64)).await;
    assert_eq!(count(Level::WARN, ""), SUBSCRIPTIONS);
    let failures = count(Level::DEBUG, "failed again");
    assert!(failures <= SUBSCRIPTIONS * SECONDS, "{failures}");
    assert!(failures > SUBSCRIPTIONS * SECONDS / 2, "{failures}");

    let before = starts(&core).len();
    enable(&core, true).await;
    core.elapse(seconds(2)).await;
    assert!(starts(&core).len() >= before + SUBSCRIPTIONS);
    assert_eq!(count(Level::INFO, "again"), SUBSCRIPTIONS);
    assert_eq!(count(Level::WARN, ""), SUBSCRIPTIONS);
    Ok(())
}

static CALLS: AtomicUsize = AtomicUsize::new(0);
static IS_DOWN: AtomicBool = AtomicBool::new(true);

/// Needs something that is down, before its first tick.
struct Dependent;

impl Extension for Dependent {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        if IS_DOWN.load(Ordering::Relaxed) {
            return Err(Error::unavailable("it is down"));
        }
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            if IS_DOWN.load(Ordering::Relaxed) {
                return Err(Error::unavailable("it is down"));
            }
            subscription.start_run(tick.run("the time has come")).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_tick_is_retried_with_growing_delays() -> Result<()> {
    let core = Core::in_memory().await?;
    let dependent = core.install::<Dependent>("dependent", NO_SETTINGS).await?;
    IS_DOWN.store(false, Ordering::Relaxed);
    dependent.subscribe("default/nightly", "x", [("every", "1s")]).await?;
    core.elapse(seconds(5)).await;
    // From here on, it fails at its next tick, and then before it gets one.
    IS_DOWN.store(true, Ordering::Relaxed);
    let before = CALLS.load(Ordering::Relaxed);
    core.elapse(hours(1)).await;
    let calls = CALLS.load(Ordering::Relaxed) - before;
    assert!((10..40).contains(&calls), "{calls}");
    let request = proto::GetExtensionRequest { name: "dependent".to_owned() };
    let shown = core.client().api().get_extension(request).await?.into_inner().extension;
    let documentation = shown.unwrap().documentation;
    assert!(documentation.contains("## Failing subscriptions"), "{documentation}");
    Ok(())
}
