//! An author's tests on a paused clock: how long a year of hourly runs takes, and a month in which
//! nothing happens. In debug builds, as tests are, it takes longer; `tests/simulation` counts turns
//! of the runtime there.

use std::time::{Duration, Instant};

use gofer_core::{Core, NO_SETTINGS, hours};

use crate::common::interval::Interval;
use crate::common::report::Table;
use crate::common::{Options, Result, spread};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let days = options.pick(365, 10);
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..options.pick(5, 1) {
        // A thread for a runtime of its own, whose clock is paused.
        let took = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build()?.block_on(year(days))
        });
        let (year, month) = took.join().map_err(|_| "a panic")??;
        busy.push(year.as_secs_f64());
        idle.push(month.as_secs_f64() * 1e3);
    }
    table.promise(
        format!("{days} days on a paused clock, with a run each hour"),
        "≤ 3 s",
        spread(&busy, 2, " s"),
        "",
        busy.iter().all(|seconds| *seconds <= 3.0),
    );
    table.promise(
        "30 days on a paused clock, idle",
        "≤ 10 ms",
        spread(&idle, 2, " ms"),
        "",
        idle.iter().all(|millis| *millis <= 10.0),
    );
    Ok(())
}

/// How long so many days take, and an idle month.
async fn year(days: u32) -> Result<(Duration, Duration)> {
    let core = Core::in_memory().await?;
    let interval = core.install::<Interval>("interval", NO_SETTINGS).await?;
    interval.subscribe("default/nightly", "hourly", [("every", "1h")]).await?;
    let begun = Instant::now();
    core.elapse(days * DAY).await;
    let busy = begun.elapsed();
    let runs = core.runs("default/nightly").len();
    if runs != usize::try_from(days)? * 24 {
        return Err(format!("{runs} runs in {days} days").into());
    }
    interval.unsubscribe("default/nightly", "hourly").await?;
    core.elapse(hours(1)).await;
    let begun = Instant::now();
    core.elapse(30 * DAY).await;
    let idle = begun.elapsed();
    core.stop().await;
    Ok((busy, idle))
}
