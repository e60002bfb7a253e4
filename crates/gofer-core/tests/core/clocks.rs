//! Clocks that are set while an extension waits for its next tick, machines that are suspended, and
//! what they leave behind. A suspended machine looks the same: the wall clock went on, timers did not.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gofer_core::{Core, Installed, NO_SETTINGS, hours, minutes, seconds};
use gofer_net::Clock;
use gofer_proto as proto;
use gofer_sdk::{Error, Extension, Gofer, NoConfig, Result, Subscription};

use crate::ticks::{self, Every, starts};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A core and an extension by a clock that is so far ahead.
async fn by(ahead: &'static AtomicI64) -> Result<(Core, Installed)> {
    let clock = Clock::set_by(ahead);
    let core = Core::builder().clocks(clock, clock).start().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    Ok((core, every))
}

fn runs(core: &Core) -> usize {
    starts(core).len()
}

/// How many runs are started in this time.
async fn runs_in(core: &Core, time: Duration) -> usize {
    let before = runs(core);
    core.elapse(time).await;
    runs(core) - before
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_gives_one_run_and_the_grid_goes_on() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let (core, every) = by(&AHEAD).await?;
    for label in 0..20 {
        every.subscribe("default/nightly", &label.to_string(), [("every", "1h")]).await?;
    }
    core.elapse(minutes(90)).await;
    assert_eq!(runs(&core), 20);
    AHEAD.fetch_add(10 * YEAR, Ordering::Relaxed);
    assert_eq!(runs_in(&core, minutes(1)).await, 20, "soon");
    assert_eq!(runs_in(&core, minutes(28)).await, 0);
    assert_eq!(runs_in(&core, hours(3)).await, 60);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ticks_that_fell_due_while_the_machine_was_suspended_are_one_run_soon() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "24h")]).await?;
    core.elapse(hours(30)).await;
    assert_eq!(runs(&core), 1);
    // Over one tick, then over some, then over none.
    for (slept, expected) in [(20 * HOUR, 1), (3 * DAY, 1), (2 * HOUR, 0)] {
        AHEAD.fetch_add(slept, Ordering::Relaxed);
        assert_eq!(runs_in(&core, minutes(1)).await, expected, "{slept}");
    }
    // The grid is where it was: there were 124 hours and three minutes.
    assert_eq!(runs_in(&core, minutes(19 * 60 + 55)).await, 0);
    assert_eq!(runs_in(&core, minutes(3)).await, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stalls_nothing_and_fires_nothing_at_once() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "1h")]).await?;
    core.elapse(minutes(61)).await;
    for back in [10 * SECOND, HOUR / 3, HOUR, 5 * HOUR, 40 * YEAR] {
        let before = runs(&core);
        AHEAD.fetch_sub(back, Ordering::Relaxed);
        assert_eq!(runs_in(&core, minutes(5)).await, 0, "{back}");
        core.elapse(minutes(115)).await;
        assert!(runs(&core) > before, "no run in two periods: {back}");
        assert!(runs_in(&core, hours(4)).await >= 4, "{back}");
        // To just after a tick.
        let before = runs(&core);
        while runs(&core) == before {
            core.elapse(minutes(1)).await;
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ticks_go_on_whatever_year_it_is() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "1h")]).await?;
    core.elapse(minutes(61)).await;
    for years in [160, 250, -30, -200, 0] {
        AHEAD.store(years * YEAR, Ordering::Relaxed);
        let found = runs_in(&core, hours(10)).await;
        assert!((9..=11).contains(&found), "{found} runs in ten hours, {years} years ahead");
        every.restart().await?;
    }
    Ok(())
}

/// Each of the later boots is shorter than a period.
#[tokio::test(start_paused = true)]
async fn runs_of_a_clock_that_was_ahead_for_one_boot_stall_no_later_boots() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(400 * DAY);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "10s")]).await?;
    core.elapse(seconds(12)).await;
    assert_eq!(runs(&core), 1);
    AHEAD.store(0, Ordering::Relaxed);
    for _ in 0..5 {
        every.restart().await?;
        core.elapse(seconds(8)).await;
    }
    assert!((4..=6).contains(&runs(&core)), "{}", runs(&core));
    Ok(())
}

/// As above, before there was any run.
#[tokio::test(start_paused = true)]
async fn a_subscription_of_a_clock_that_was_ahead_is_not_stalled_by_short_boots() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(400 * DAY);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "10s")]).await?;
    AHEAD.store(0, Ordering::Relaxed);
    for _ in 0..6 {
        every.restart().await?;
        core.elapse(seconds(8)).await;
    }
    assert!((4..=6).contains(&runs(&core)), "{}", runs(&core));
    Ok(())
}

/// Runs have keys from the times that they were scheduled for.
#[tokio::test(start_paused = true)]
async fn times_that_come_a_second_time_are_run_also_after_a_restart() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let (core, every) = by(&AHEAD).await?;
    every.subscribe("default/nightly", "x", [("every", "10s")]).await?;
    core.elapse(minutes(10)).await;
    AHEAD.fetch_sub(500 * SECOND, Ordering::Relaxed);
    core.elapse(seconds(35)).await;
    every.restart().await?;
    assert!(runs_in(&core, seconds(100)).await >= 9);
    every.restart().await?;
    assert!(runs_in(&core, seconds(100)).await >= 9);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_core_whose_clock_is_ahead_of_the_extensions_hides_no_missed_tick() -> Result<()> {
    static OF_CORE: AtomicI64 = AtomicI64::new(2 * HOUR);
    static OF_EXTENSION: AtomicI64 = AtomicI64::new(0);
    let (of_core, of_extension) = (Clock::set_by(&OF_CORE), Clock::set_by(&OF_EXTENSION));
    let core = Core::builder().clocks(of_core, of_extension).start().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", [("every", "1h")]).await?;
    core.elapse(minutes(110)).await;
    assert_eq!(runs(&core), 1);
    // Away over the tick.
    let (name, mut api) = ("every".to_owned(), core.client().api());
    api.disable_extension(proto::DisableExtensionRequest { name: name.clone() }).await.unwrap();
    core.elapse(minutes(20)).await;
    api.enable_extension(proto::EnableExtensionRequest { name }).await.unwrap();
    assert_eq!(runs_in(&core, minutes(1)).await, 1);
    Ok(())
}

/// Drops its first start at each tick after a while that its label says, and asks again.
struct Impatient;

impl Extension for Impatient {
    type Config = NoConfig;
    type Params = ticks::Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<ticks::Params>) -> Result<()> {
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            let patience = async {
                for _ in 0..subscription.label().parse().unwrap() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                _ = subscription.start_run(tick.run("the time has come")) => {}
                () = patience => {}
            }
            subscription.start_run(tick.run("the time has come")).await?;
        }
        Ok(())
    }
}

/// Also if a start is repeated, after it was dropped: neither is it answered with the first run, nor
/// is there a third.
#[tokio::test(start_paused = true)]
async fn a_time_that_comes_a_second_time_is_run_a_second_time() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    const LABELS: [&str; 7] = ["0", "1", "3", "6", "10", "20", "50"];
    for restarts in 0..3 {
        let clock = Clock::set_by(&AHEAD);
        let core = Core::builder().clocks(clock, clock).start().await?;
        let impatient = core.install::<Impatient>("impatient", NO_SETTINGS).await?;
        for label in LABELS {
            impatient.subscribe("default/nightly", label, [("every", "1h")]).await?;
        }
        core.elapse(minutes(10)).await;
        for pass in 1..4 {
            // A run at 1:00, and another one at 2:00.
            core.elapse(minutes(75)).await;
            if restarts > 1 {
                impatient.restart().await?;
            }
            core.elapse(minutes(75)).await;
            assert_eq!(runs(&core), 2 * pass * LABELS.len(), "pass {pass}, {restarts} restarts");
            AHEAD.fetch_sub(HOUR * 5 / 2, Ordering::Relaxed);
            if restarts > 0 {
                impatient.restart().await?;
            }
        }
    }
    Ok(())
}

/// Fails at each tick, and starts its run when it is called again.
struct Failing;

impl Extension for Failing {
    type Config = NoConfig;
    type Params = ticks::Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<ticks::Params>) -> Result<()> {
        static CALLS: AtomicI64 = AtomicI64::new(0);
        let mut ticks = subscription.every(subscription.params().every)?;
        while let Some(tick) = ticks.next().await {
            if CALLS.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                return Err(Error::internal("on purpose"));
            }
            subscription.start_run(tick.run("the time has come")).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_failed_goes_on_from_its_last_run_also_if_the_clock_was_ahead() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let clock = Clock::set_by(&AHEAD);
    let core = Core::builder().clocks(clock, clock).start().await?;
    let failing = core.install::<Failing>("failing", NO_SETTINGS).await?;
    failing.subscribe("default/nightly", "hourly", [("every", "1h")]).await?;
    core.elapse(hours(5) + minutes(10)).await;
    assert_eq!(runs(&core), 5);
    AHEAD.fetch_sub(HOUR * 7 / 2, Ordering::Relaxed);
    // The grid has a tick in twenty minutes, and then one each hour, of which some come again.
    for hour in 1..8 {
        core.elapse(hours(1)).await;
        assert_eq!(runs(&core), 5 + hour, "{hour}");
    }
    Ok(())
}
