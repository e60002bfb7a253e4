use super::*;

const UNKNOWN: LastRun =
    LastRun { scheduled: LastTick::Unknown, latest: i64::MIN, covered: i64::MIN };
const NEVER: LastRun = LastRun { scheduled: LastTick::Never, ..UNKNOWN };

/// A run that was scheduled for one time and started at another.
fn run(scheduled: i64, started: i64) -> LastRun {
    LastRun { scheduled: LastTick::At(scheduled), latest: scheduled, covered: started }
}

/// A tick: when it was scheduled, and for how many it stands.
#[expect(clippy::unnecessary_wraps, reason = "as it is returned")]
fn tick(at: i64, count: u64) -> Result<Tick, i64> {
    Ok(Tick { scheduled: Scheduled { at, again: false }, count })
}

#[test]
fn ticks_that_a_late_run_covers_are_not_served_again() {
    let mut grid = Grid::new(10, 0);
    assert_eq!(grid.poll(NEVER, 0), Err(10));
    assert_eq!(grid.poll(NEVER, 10), tick(10, 1));
    // Gofer was away; the run of the tick at 10 started at 75.
    assert_eq!(grid.poll(run(10, 75), 76), Err(80));
}

#[test]
fn ticks_missed_while_serve_was_busy_become_one() {
    let mut grid = Grid::new(10, 0);
    assert_eq!(grid.poll(NEVER, 11), tick(10, 1));
    assert_eq!(grid.poll(run(10, 11), 75), tick(70, 6), "for 20 to 70");
    assert_eq!(grid.poll(run(70, 76), 76), Err(80));
}

#[test]
fn a_grid_carries_on_from_what_the_last_run_was_scheduled_for() {
    let mut grid = Grid::new(100, 0);
    assert!(grid.poll(UNKNOWN, 250).unwrap_err() > 250, "not before Gofer has answered");
    assert_eq!(grid.poll(run(-30, -5), 0), Err(70), "not from when it started");
    let mut overdue = Grid::new(100, 0);
    assert_eq!(overdue.poll(run(-250, -240), 1), tick(-50, 2), "fires at once");
    assert_eq!(overdue.poll(run(-50, 2), 3), Err(50), "and returns to its cadence");
    let mut first = Grid::new(100, 0);
    assert_eq!(first.poll(NEVER, 0), Err(100));
}

#[test]
fn a_run_that_started_late_counts_for_the_ticks_until_then_also_after_a_restart() {
    let mut grid = Grid::new(10, 36);
    assert_eq!(grid.poll(run(0, 35), 36), Err(40));
}

#[test]
fn an_offset_survives_a_restart() {
    let mut grid = Grid::new(100, 0);
    grid.base += 7;
    assert_eq!(grid.poll(NEVER, 0), Err(107));
    let mut restarted = Grid::new(100, 0);
    restarted.base += 7;
    assert_eq!(restarted.poll(run(-43, -40), 0), Err(57));
}

#[test]
fn a_clock_that_was_ahead_neither_moves_the_grid_nor_stops_it() {
    // Served by a clock that was 1,000 ahead; then it was set back.
    let mut grid = Grid::new(100, 1_005);
    assert_eq!(grid.poll(NEVER, 1_105), tick(1_105, 1));
    assert_eq!(grid.poll(run(1_105, 1_106), 110), Err(205));
    let again = Scheduled { at: 205, again: true };
    assert_eq!(grid.poll(run(1_105, 1_106), 205), Ok(Tick { scheduled: again, count: 1 }));
    assert_eq!(grid.poll(run(1_105, 1_106), 206), Err(305));
    // The same if an earlier process had that clock.
    let mut restarted = Grid::new(100, 110);
    assert_eq!(restarted.poll(run(1_105, 1_106), 110), Err(205));
    // The same if `serve` has failed after a run of the second time.
    let mut failed = Grid::new(100, 110);
    let second = LastRun { latest: 1_105, ..run(905, 906) };
    assert_eq!(
        failed.poll(second, 1_006),
        Ok(Tick { scheduled: Scheduled { at: 1_005, again: true }, count: 1 })
    );
    // A run that started later than now covers nothing.
    let mut skewed = Grid::new(100, 0);
    assert_eq!(skewed.poll(run(0, 950), 100), tick(100, 1));
}

#[test]
fn the_grid_is_computed_from_one_of_its_points() {
    assert_eq!(next_on_grid(100, 10, 100), 110);
    assert_eq!(next_on_grid(100, 10, 109), 110);
    assert_eq!(next_on_grid(100, 10, 110), 120);
    assert_eq!(next_on_grid(100, 10, 173), 180, "what was missed is skipped");
    assert_eq!(next_on_grid(-1_000, 300, -1_000), -700, "overdue stays overdue");
    assert_eq!(next_on_grid(1_105, 100, 110), 205, "also before that point");
    assert_eq!(next_on_grid(0, i64::MAX, 5), i64::MAX);
    assert_eq!(next_on_grid(5, i64::MAX, 5), i64::MAX, "saturates");
}

#[test]
fn the_offset_of_a_subscription_is_stable_and_spread() {
    let offset = |n: u32| stable_fraction("default/nightly", &format!("label-{n}"), 1_000);
    assert_eq!(offset(1), offset(1));
    let mut buckets = [0_u32; 10];
    for n in 0..1_000 {
        let at = offset(n);
        assert!((0..1_000).contains(&at));
        buckets[usize::try_from(at / 100).unwrap()] += 1;
    }
    assert!(buckets.iter().all(|&count| (60..=140).contains(&count)), "{buckets:?}");
    assert_eq!(stable_fraction("a/b", "c", 0), 0);
}
