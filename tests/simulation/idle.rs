//! What is idle lets a paused clock rest: virtual time jumps to the next thing that is due, and
//! each jump costs the runtime a turn. Turns are counted, and not seconds, so that this does not
//! depend on the machine.

use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS};
use tokio::runtime::Handle;

include!("../../crates/gofer-core/tests/support/interval.rs");

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How often the runtime has had nothing to do and waited, or let its clock jump.
fn turns() -> u64 {
    Handle::current().metrics().worker_park_count(0)
}

#[tokio::test(start_paused = true)]
async fn a_month_of_an_idle_extension_takes_a_few_turns() -> Result<()> {
    let core = Core::in_memory().await?;
    let interval = core.install::<Interval>("interval", NO_SETTINGS).await?;
    interval.subscribe("default/nightly", "yearly", [("every", "8760h")]).await?;
    core.elapse(Duration::from_secs(60)).await;
    let before = turns();
    let begun = std::time::Instant::now();
    core.elapse(30 * 24 * HOUR).await;
    let month = turns() - before;
    println!("{month} turns in {:?}", begun.elapsed());
    assert!(month <= 10, "{month} turns");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_year_of_hourly_ticks_takes_some_turns_for_each() -> Result<()> {
    let core = Core::in_memory().await?;
    let interval = core.install::<Interval>("interval", NO_SETTINGS).await?;
    interval.subscribe("default/nightly", "hourly", [("every", "1h")]).await?;
    core.elapse(Duration::from_secs(60)).await;
    let before = turns();
    let begun = std::time::Instant::now();
    core.elapse(365 * 24 * HOUR).await;
    let (year, runs) = (turns() - before, core.runs("default/nightly").len());
    println!("{year} turns in {:?}", begun.elapsed());
    assert_eq!(runs, 365 * 24);
    assert!(year <= 6 * 365 * 24, "{year} turns");
    Ok(())
}
