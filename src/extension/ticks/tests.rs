use super::*;

#[test]
fn ticks_that_a_late_run_covers_are_not_served_again() {
    let mut grid = Grid::new(10, 0);
    assert_eq!(grid.due(LastRun::Unknown), 10);
    grid.serve(10);
    // Gofer was away; the run of the tick at 10 started at 75.
    assert_eq!(grid.due(LastRun::At(75)), 80);
}

#[test]
fn ticks_missed_while_serve_was_busy_become_one() {
    let mut grid = Grid::new(10, 0);
    grid.serve(10);
    assert_eq!(grid.due(LastRun::At(11)), 20, "due since 20, and it may be 75 by now");
    grid.serve(75);
    assert_eq!(grid.due(LastRun::At(76)), 80);
}

#[test]
fn a_grid_carries_on_from_the_last_run_of_an_earlier_process() {
    let mut grid = Grid::new(100, 0);
    assert_eq!(grid.due(LastRun::Unknown), 100, "until Gofer has answered");
    assert_eq!(grid.due(LastRun::At(-30)), 70);
    let mut overdue = Grid::new(100, 0);
    assert_eq!(overdue.due(LastRun::At(-250)), -150, "fires at once");
    overdue.serve(1);
    assert_eq!(overdue.due(LastRun::At(2)), 50, "and returns to its cadence");
    let mut first = Grid::new(100, 0);
    assert_eq!(first.due(LastRun::Never), 100);
}

#[test]
fn an_offset_survives_a_restart() {
    let mut grid = Grid::new(100, 0);
    grid.origin += 7;
    assert_eq!(grid.due(LastRun::Never), 107);
    let mut restarted = Grid::new(100, 0);
    restarted.origin += 7;
    assert_eq!(restarted.due(LastRun::At(-43)), 57);
}

#[test]
fn the_grid_is_computed_from_its_first_point() {
    assert_eq!(next_on_grid(100, 10, 100), 110);
    assert_eq!(next_on_grid(100, 10, 109), 110);
    assert_eq!(next_on_grid(100, 10, 110), 120);
    assert_eq!(next_on_grid(100, 10, 173), 180, "what was missed is skipped");
    assert_eq!(next_on_grid(-1_000, 300, -1_000), -700, "overdue stays overdue");
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
