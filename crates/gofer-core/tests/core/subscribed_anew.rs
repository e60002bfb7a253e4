//! Subscriptions that are made anew under a label that was used before have a schedule of their own;
//! those that are restored or changed go on with theirs.

use gofer_core::{Core, Installed, NO_SETTINGS, hours, minutes};
use gofer_sdk::Result;

use crate::ticks::{Every, starts};

const HOURLY: [(&str, &str); 1] = [("every", "1h")];

/// An hourly subscription that has ended, with one run that was seven periods ago.
async fn long_after_a_run() -> Result<(Core, Installed)> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", HOURLY).await?;
    core.elapse(minutes(61)).await;
    assert_eq!(starts(&core).len(), 1);
    every.unsubscribe("default/nightly", "x").await?;
    core.elapse(hours(7)).await;
    assert_eq!(starts(&core).len(), 1);
    Ok((core, every))
}

/// Subscribes; the first run after that must be one period later.
async fn runs_one_period_later(core: &Core, every: &Installed) -> Result<()> {
    every.subscribe("default/nightly", "x", HOURLY).await?;
    core.elapse(minutes(59)).await;
    assert_eq!(starts(core).len(), 1);
    core.elapse(minutes(2)).await;
    assert_eq!(starts(core).len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn its_first_run_is_one_period_later() -> Result<()> {
    let (core, every) = long_after_a_run().await?;
    runs_one_period_later(&core, &every).await
}

#[tokio::test(start_paused = true)]
async fn its_first_run_is_one_period_later_also_if_the_extension_is_a_new_process() -> Result<()> {
    let (core, every) = long_after_a_run().await?;
    every.restart().await?;
    runs_one_period_later(&core, &every).await
}

/// Also before its first run: otherwise one that is restored often would never run.
#[tokio::test(start_paused = true)]
async fn it_goes_on_with_its_schedule_when_it_is_restored() -> Result<()> {
    let (core, every) = long_after_a_run().await?;
    every.subscribe("default/nightly", "x", HOURLY).await?;
    for _ in 0..3 {
        core.elapse(minutes(19)).await;
        every.restart().await?;
    }
    assert_eq!(starts(&core).len(), 1);
    core.elapse(minutes(4)).await;
    assert_eq!(starts(&core).len(), 2);
    every.restart().await?;
    core.elapse(minutes(56)).await;
    assert_eq!(starts(&core).len(), 2);
    core.elapse(minutes(4)).await;
    assert_eq!(starts(&core).len(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_changed_subscription_goes_on_from_its_last_run() -> Result<()> {
    let core = Core::in_memory().await?;
    let every = core.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("default/nightly", "x", HOURLY).await?;
    core.elapse(minutes(75)).await;
    every.subscribe("default/nightly", "x", [("every", "30m")]).await?;
    core.elapse(minutes(14)).await;
    assert_eq!(starts(&core).len(), 1);
    core.elapse(minutes(2)).await;
    assert_eq!(starts(&core).len(), 2);
    Ok(())
}
