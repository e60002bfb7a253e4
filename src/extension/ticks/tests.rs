use super::*;

const UNKNOWN: LastRun =
    LastRun { scheduled: LastTick::Unknown, latest: i64::MIN, covered: i64::MIN };
const NEVER: LastRun = LastRun { scheduled: LastTick::Never, ..UNKNOWN };

/// A run that was scheduled for one time and started at another.
fn run(scheduled: i64, started: i64) -> LastRun {
    LastRun { scheduled: LastTick::At(scheduled), latest: scheduled, covered: started }
}

/// A tick: when it was scheduled, and for how many it stands.
fn tick(at: i64, count: u16) -> Due {
    let scheduled = Scheduled { at, occurrence: Occurrence::First, max_lateness: ANY };
    Due::Now(Tick { scheduled, count, dropped: 0 })
}

/// A tick for a time for which a run may have been scheduled before.
fn again(at: i64) -> Due {
    let scheduled = Scheduled { at, occurrence: Occurrence::Again, max_lateness: ANY };
    Due::Now(Tick { scheduled, count: 1, dropped: 0 })
}

fn every(period: i64, origin: i64) -> Timeline<Every> {
    Timeline::new(Every::new(GoDuration::from_nanos(period)).unwrap(), origin).unwrap()
}

impl<S: Schedule> Timeline<S> {
    /// What is due, which is then served.
    fn serve(&mut self, last: LastRun, now: i64) -> Due {
        let due = self.poll(last, now);
        if let Due::Now(tick) = &due {
            self.take(tick);
        }
        due
    }

    /// The ticks that are due now, with their counts.
    fn serve_all(&mut self, now: i64) -> Vec<(i64, u16)> {
        let mut served = Vec::new();
        while let Due::Now(tick) = self.serve(NEVER, now) {
            served.push((tick.scheduled.at, tick.count));
        }
        served
    }
}

/// Due at fixed times, once each.
struct At(&'static [i64]);

impl Schedule for At {
    fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        self.0.iter().copied().map(system_time).find(|at| *at > time)
    }
}

#[test]
fn ticks_that_a_late_run_covers_are_not_served_again() {
    let mut ticks = every(10, 0);
    assert_eq!(ticks.serve(NEVER, 0), Due::At(10));
    assert_eq!(ticks.serve(NEVER, 10), tick(10, 1));
    // Gofer was away; the run of the tick at 10 started at 75.
    assert_eq!(ticks.serve(run(10, 75), 76), Due::At(80));
}

#[test]
fn ticks_missed_while_serve_was_busy_become_one() {
    let mut ticks = every(10, 0);
    assert_eq!(ticks.serve(NEVER, 11), tick(10, 1));
    assert_eq!(ticks.serve(run(10, 11), 75), tick(70, 6), "for 20 to 70");
    assert_eq!(ticks.serve(run(70, 76), 76), Due::At(80));
}

#[test]
fn a_tick_stays_due_until_it_is_taken() {
    let mut ticks = every(10, 0);
    assert_eq!(ticks.poll(NEVER, 11), tick(10, 1));
    assert_eq!(ticks.poll(NEVER, 21), tick(20, 2));
    assert_eq!(ticks.serve(NEVER, 21), tick(20, 2));
    assert_eq!(ticks.serve(NEVER, 21), Due::At(30));
}

#[test]
fn ticks_carry_on_from_what_the_last_run_was_scheduled_for() {
    let mut ticks = every(100, 0);
    assert_eq!(ticks.serve(UNKNOWN, 250), Due::Unknown, "not before Gofer has answered");
    assert_eq!(ticks.serve(run(-30, -5), 0), Due::At(70), "not from when it started");
    let mut overdue = every(100, 0);
    assert_eq!(overdue.serve(run(-250, -240), 1), tick(-50, 2), "fires at once");
    assert_eq!(overdue.serve(run(-50, 2), 3), Due::At(50), "and returns to its cadence");
    let mut first = every(100, 0);
    assert_eq!(first.serve(NEVER, 0), Due::At(100));
}

#[test]
fn a_run_that_started_late_counts_for_the_ticks_until_then_also_after_a_restart() {
    let mut ticks = every(10, 36);
    assert_eq!(ticks.serve(run(0, 35), 36), Due::At(40));
}

#[test]
fn an_offset_survives_a_restart() {
    let mut ticks = every(100, 0);
    ticks.delay(7);
    assert_eq!(ticks.serve(NEVER, 0), Due::At(107));
    let mut restarted = every(100, 0);
    restarted.delay(7);
    assert_eq!(restarted.serve(run(-43, -40), 0), Due::At(57));
}

#[test]
fn an_offset_does_not_make_a_tick_of_a_time_before_the_subscription() {
    let mut ticks = Timeline::new(At(&[90, 200]), 100).unwrap();
    ticks.delay(30);
    assert_eq!(ticks.serve(NEVER, 100), Due::At(230));
    // Nor if the clock is set back a little before the first one.
    assert_eq!(ticks.serve(NEVER, 99), Due::At(230));
}

#[test]
fn a_clock_that_was_ahead_neither_moves_the_grid_nor_stops_it() {
    // Served by a clock that was 1,000 ahead; then it was set back.
    let mut ticks = every(100, 1_005);
    assert_eq!(ticks.serve(NEVER, 1_105), tick(1_105, 1));
    assert_eq!(ticks.serve(run(1_105, 1_106), 110), Due::At(205));
    assert_eq!(ticks.serve(run(1_105, 1_106), 205), again(205));
    assert_eq!(ticks.serve(run(1_105, 1_106), 206), Due::At(305));
    // The same if an earlier process had that clock.
    let mut restarted = every(100, 110);
    assert_eq!(restarted.serve(run(1_105, 1_106), 110), Due::At(205));
    // The same if `serve` has failed after a run of the second time.
    let mut failed = every(100, 110);
    let second = LastRun { latest: 1_105, ..run(905, 906) };
    assert_eq!(failed.serve(second, 1_006), again(1_005));
    // A run that started later than now covers nothing.
    let mut skewed = every(100, 0);
    assert_eq!(skewed.serve(run(0, 950), 100), tick(100, 1));
}

#[test]
fn after_a_clock_was_ahead_another_schedule_is_served_where_its_clock_was_not() {
    const UNIT: i64 = 60 * SECOND;
    let mut ticks =
        Timeline::new(At(&[10 * UNIT, 59 * UNIT, 60 * UNIT, 61 * UNIT, 120 * UNIT]), 0).unwrap();
    let only = |at: i64, count| {
        let at = at * UNIT;
        let scheduled = Scheduled { at, occurrence: Occurrence::Only, max_lateness: ANY };
        Due::Now(Tick { scheduled, count, dropped: 0 })
    };
    let run = |scheduled: i64, started: i64| run(scheduled * UNIT, started * UNIT);
    assert_eq!(ticks.serve(NEVER, 10 * UNIT), only(10, 1));
    // An hour ahead, and back.
    assert_eq!(ticks.serve(run(10, 10), 60 * UNIT), only(60, 2));
    let next = Due::At(59 * UNIT);
    assert_eq!(ticks.serve(run(60, 60), 20 * UNIT), next, "a time that no clock has shown");
    assert_eq!(ticks.serve(run(60, 60), 59 * UNIT), only(59, 1));
    // Whether 60 has a run already is what its key says.
    let second = LastRun { latest: 60 * UNIT, ..run(59, 59) };
    assert_eq!(ticks.serve(second, 60 * UNIT), only(60, 1));
    // Back by less than the time between two ticks: nothing is to be served again.
    assert_eq!(ticks.serve(run(61, 61), 61 * UNIT), Due::At(120 * UNIT));
    ticks.base = 61 * UNIT;
    assert_eq!(ticks.serve(run(61, 61), 61 * UNIT - SECOND), Due::At(120 * UNIT));
    assert_eq!(ticks.serve(run(61, 61), 130 * UNIT), only(120, 1));
    assert_eq!(ticks.serve(run(120, 130), 131 * UNIT), Due::Never);
    // It is noticed a moment later: what fell due meanwhile is due.
    let mut late = Timeline::new(At(&[10 * UNIT, 59 * UNIT, 60 * UNIT]), 0).unwrap();
    assert_eq!(late.serve(NEVER, 60 * UNIT), only(60, 3));
    assert_eq!(late.serve(run(60, 60), 59 * UNIT + 20 * SECOND), only(59, 1));
}

#[test]
fn the_number_of_missed_ticks_is_bounded_and_the_last_one_is_found_nevertheless() {
    let mut ticks = every(10, 0);
    assert_eq!(ticks.serve(NEVER, 9_999), tick(9_990, 999));
    assert_eq!(ticks.serve(NEVER, 20_000), tick(20_000, MOST));
    assert_eq!(ticks.serve(NEVER, 10_i64.pow(18) + 5), tick(10_i64.pow(18), MOST));
    let mut finest = every(1, 0);
    assert_eq!(finest.serve(NEVER, i64::MAX - 1), tick(i64::MAX - 1, MOST));
}

#[test]
fn each_missed_tick_is_served_up_to_a_bound() {
    let mut ticks = every(10, 0);
    ticks.each = 3;
    assert_eq!(ticks.serve_all(35), [(10, 1), (20, 1), (30, 1)]);
    assert_eq!(ticks.serve_all(99), [(60, 3), (70, 1), (80, 1), (90, 1)]);
    assert_eq!(
        ticks.serve_all(1_000_005),
        [(999_970, MOST), (999_980, 1), (999_990, 1), (1_000_000, 1)]
    );
    // A run that started late covers none of them.
    let mut late = every(10, 0);
    late.each = 1;
    assert_eq!(late.serve(run(10, 95), 96), tick(80, 7));
    assert_eq!(late.serve(run(80, 96), 96), tick(90, 1));
}

#[test]
fn ticks_that_are_too_late_are_dropped_and_counted() {
    const MINUTE: i64 = 60 * SECOND;
    let mut ticks = every(MINUTE, 0);
    ticks.max_lateness = 90;
    let dropped = |at, count, dropped, max_lateness| {
        let scheduled = Scheduled { at, occurrence: Occurrence::First, max_lateness };
        Due::Now(Tick { scheduled, count, dropped })
    };
    assert_eq!(ticks.serve(NEVER, 2 * MINUTE), dropped(2 * MINUTE, 2, 0, 90));
    // 3 to 7 are due, and two of them in time.
    assert_eq!(ticks.serve(NEVER, 7 * MINUTE + 10 * SECOND), dropped(7 * MINUTE, 2, 3, 90));
    // None of them is in time: they are reported with the next one.
    ticks.max_lateness = 5;
    assert_eq!(ticks.serve(NEVER, 9 * MINUTE + 10 * SECOND), Due::At(10 * MINUTE));
    assert_eq!(ticks.serve(NEVER, 9 * MINUTE + 20 * SECOND), Due::At(10 * MINUTE));
    assert_eq!(ticks.serve(NEVER, 10 * MINUTE), dropped(10 * MINUTE, 1, 2, 5));
    assert_eq!(ticks.serve(NEVER, 100_000 * MINUTE), dropped(100_000 * MINUTE, 1, MOST, 5));
    let mut last = Timeline::new(At(&[0, 1]), -1).unwrap();
    last.max_lateness = 1;
    assert_eq!(last.serve(NEVER, 10 * SECOND), Due::Never);
}

#[test]
fn a_schedule_that_does_not_go_on_is_refused_or_ends() {
    struct Stuck(SystemTime);
    impl Schedule for Stuck {
        fn next_after(&self, _: SystemTime) -> Option<SystemTime> {
            Some(self.0)
        }
    }
    assert!(Timeline::new(Stuck(system_time(100)), 100).is_err());
    let mut ticks = Timeline::new(Stuck(system_time(100)), 0).unwrap();
    assert!(matches!(ticks.serve(NEVER, 150), Due::Now(_)));
    assert_eq!(ticks.serve(NEVER, 150), Due::Never);
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

#[test]
fn the_ticks_of_an_interval_stay_small() {
    assert_eq!(size_of::<Timeline<Every>>(), 32);
}
