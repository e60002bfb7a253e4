//! The guarantees of the cron extension, on a paused clock whose time the test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cron_extension::Cron;
use crate::doctest::restarts_and_unsubscribes;
use gofer_core::{Core, Installed, NO_SETTINGS, hours, minutes, seconds};
use gofer_net::Clock;
use gofer_proto as proto;
use gofer_sdk::{ErrorKind, Result};

const NIGHTLY: &str = "ops/nightly";

/// At midnight (UTC) of 1 March 2026, a Sunday.
const START: Duration = Duration::from_secs(1_772_323_200);

async fn core() -> Result<(Core, Installed)> {
    let core = Core::builder().starts_at(UNIX_EPOCH + START).start().await?;
    let cron = core.install::<Cron>("cron", NO_SETTINGS).await?;
    Ok((core, cron))
}

/// What the runs were scheduled for, oldest first, in minutes since the start.
fn scheduled(core: &Core) -> Vec<u64> {
    let minute = |at: SystemTime| at.duration_since(UNIX_EPOCH + START).unwrap().as_secs() / 60;
    let runs = core.runs(NIGHTLY);
    runs.iter().rev().filter_map(|run| run.scheduled().map(minute)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_at_the_start_of_each_matching_minute() -> Result<()> {
    let (core, cron) = core().await?;
    cron.subscribe(NIGHTLY, "quarters", [("expression", "*/15 1 1 * * *")]).await?;
    core.elapse(seconds(3_599)).await;
    assert!(core.runs(NIGHTLY).is_empty());
    core.elapse(seconds(1)).await;
    let run = &core.runs(NIGHTLY)[0];
    assert_eq!((run.initiator(), run.reason()), ("cron (quarters)", "the expression matches"));
    core.elapse(hours(48)).await;
    assert_eq!(scheduled(&core), [60, 75, 90, 105]);
    restarts_and_unsubscribes_label(&core, &cron, "quarters").await
}

async fn restarts_and_unsubscribes_label(core: &Core, cron: &Installed, label: &str) -> Result<()> {
    cron.unsubscribe(NIGHTLY, label).await?;
    cron.subscribe(NIGHTLY, "docs", [("expression", "0 0 1 1 * *")]).await?;
    restarts_and_unsubscribes(core, cron).await
}

#[tokio::test(start_paused = true)]
async fn the_time_zone_is_a_parameter() -> Result<()> {
    let (core, cron) = core().await?;
    let params = [("expression", "30 2 2 * * *"), ("timezone", "europe/berlin")];
    cron.subscribe(NIGHTLY, "x", params).await?;
    core.elapse(hours(48)).await;
    assert_eq!(scheduled(&core), [24 * 60 + 90]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_right_is_refused_by_name_and_never_repeated() -> Result<()> {
    let (_core, cron) = core().await?;
    for (params, expected) in [
        (vec![("expression", "hunter2")], "parameter `expression`: "),
        (vec![("expression", "61 * * * * *")], "the minute must be 0 to 59"),
        (vec![("expression", "* * * * *")], "parameter `expression`: "),
        (vec![("expression", "0 0 30 2 * *")], "never matches"),
        (vec![("expression", "0 0 1 1 * 2020")], "has no further time"),
        (vec![], "parameter `expression`: is required"),
        (
            vec![("expression", "* * * * * *"), ("timezone", "Mars/Hunter2")],
            "parameter `timezone`: is not a time zone",
        ),
    ] {
        let error = cron.subscribe(NIGHTLY, "l", params).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().to_lowercase().contains("hunter2"), "{error}");
    }
    // The conversation asks again until the answers are right, and passes them on.
    let answers = ["0 0 30 2 * *", "0 1 25 12 * *", "Europe/Vienna"];
    let talk = cron.converse_with_configurator(answers).await?;
    assert!(talk.is_complete, "{talk:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_comes_to_its_end_ends_quietly() -> Result<()> {
    let (core, cron) = core().await?;
    cron.subscribe(NIGHTLY, "x", [("expression", "0 12 1 3 * 2026")]).await?;
    core.elapse(hours(24 * 400)).await;
    assert_eq!(scheduled(&core), [12 * 60]);
    let documentation = cron.info().await?.documentation;
    assert!(!documentation.contains("Failing"), "{documentation}");
    cron.unsubscribe(NIGHTLY, "x").await
}

#[tokio::test(start_paused = true)]
async fn runs_that_fell_due_in_an_outage_become_one_for_the_last_of_them() -> Result<()> {
    let (core, cron) = core().await?;
    cron.subscribe(NIGHTLY, "x", [("expression", "0 * * * * *")]).await?;
    core.elapse(minutes(61)).await;
    core.close_api().await;
    core.elapse(hours(3)).await;
    core.reopen_api().await?;
    core.elapse(minutes(5)).await;
    // The call for the second one began when it was due, and is the run for those that followed.
    assert_eq!(scheduled(&core), [60, 120]);
    cron.restart().await?;
    core.elapse(hours(1)).await;
    assert_eq!(scheduled(&core), [60, 120, 300]);
    Ok(())
}

/// A clock that is set, restarts at random instants, and for each minute that begins on the clock one
/// run. `DAYS=365` makes it a year.
#[tokio::test(start_paused = true)]
async fn each_minute_that_the_clock_shows_has_one_run() -> Result<()> {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    const MINUTE: u128 = 60_000_000_000;
    const HOUR: i64 = 3_600_000_000_000;
    let days = std::env::var("DAYS").map_or(2, |days| days.parse().unwrap());
    let runs: Arc<Mutex<BTreeMap<u128, u32>>> = Arc::default();
    let clock = Clock::set_by_from(&AHEAD, START);
    let builder = Core::builder().clocks(clock, clock).run_handler({
        let runs = Arc::clone(&runs);
        move |run| {
            let at = run.scheduled().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            *runs.lock().unwrap().entry(at).or_default() += 1;
            async { Ok(()) }
        }
    });
    let core = builder.start().await?;
    let cron = core.install::<Cron>("cron", NO_SETTINGS).await?;
    let now = || core.client().now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    cron.subscribe(NIGHTLY, "x", [("expression", "* * * * * *")]).await?;
    let mut random = fastrand::Rng::with_seed(41);
    let mut expected = BTreeMap::new();
    let mut reached = now();
    let mut either = BTreeSet::new();
    let (mut restarts, mut set) = (0, 0);
    while reached < START.as_nanos() + days * 24 * 60 * MINUTE {
        core.elapse(Duration::from_millis(random.u64(1..7_200_000))).await;
        let mut show = |until: u128, reached: &mut u128| {
            let first = *reached / MINUTE + 1;
            expected.extend((first..=until / MINUTE).map(|minute| (minute * MINUTE, 1)));
            *reached = until;
        };
        show(now(), &mut reached);
        match random.u8(0..4) {
            0 => {
                cron.restart().await?;
                restarts += 1;
            }
            1 | 2 => {
                let hour = if AHEAD.load(Ordering::Relaxed) > 0 { -HOUR } else { HOUR };
                AHEAD.fetch_add(hour, Ordering::Relaxed);
                reached = now();
                // It has begun unseen. The minutes that were skipped become one tick: for this one,
                // or for the next if that begins before it is noticed that the clock was set.
                either.insert(reached / MINUTE * MINUTE);
                set += 1;
            }
            _ => {}
        }
        // It is noticed within half a minute, before which the next change would hide it.
        core.elapse(minutes(1)).await;
        show(now(), &mut reached);
    }
    assert!(restarts > 2 && set > 2, "{restarts} restarts, set {set} times");
    let runs = runs.lock().unwrap();
    let differ = |at: &u128| {
        let may_be_either = either.contains(at) && runs.get(at).is_none_or(|runs| *runs == 1);
        runs.get(at) != expected.get(at) && !may_be_either
    };
    let differences = runs.keys().chain(expected.keys()).filter(|at| differ(at));
    let differences: Vec<_> = differences.map(|at| (at, runs.get(at), expected.get(at))).collect();
    assert!(differences.is_empty(), "{differences:?}");
    println!("{} minutes, {restarts} restarts, the clock was set {set} times", runs.len());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_last_time_of_an_expression_may_fall_due_while_the_extension_is_away() -> Result<()> {
    let (core, cron) = core().await?;
    cron.subscribe(NIGHTLY, "x", [("expression", "0 12 1 3 * 2026")]).await?;
    let (name, mut api) = ("cron".to_owned(), core.client().api());
    api.disable_extension(proto::DisableExtensionRequest { name: name.clone() }).await.unwrap();
    core.elapse(hours(24)).await;
    api.enable_extension(proto::EnableExtensionRequest { name }).await.unwrap();
    core.elapse(minutes(1)).await;
    assert_eq!(scheduled(&core), [12 * 60]);
    // Also if it has had its run.
    cron.restart().await?;
    core.elapse(hours(24)).await;
    assert_eq!(scheduled(&core), [12 * 60]);
    let refused = cron.subscribe(NIGHTLY, "y", [("expression", "0 12 1 2 * 2026")]).await;
    assert!(refused.unwrap_err().to_string().contains("no further time"));
    Ok(())
}
