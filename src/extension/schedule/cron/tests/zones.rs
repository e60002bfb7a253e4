//! Each change of the clocks of each zone, minute by minute.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::{TimeZone as JiffZone, TimeZoneDatabase};

use super::oracle::{Plain, any_expression, shown};
use super::*;

const HOUR: i64 = 60 * 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// When the clocks of a zone are set in the years that there are, and by how much.
fn changes(zone: &JiffZone) -> Vec<(i64, i64)> {
    let all = zone.following(at(-48 * HOUR)).map(|change| change.timestamp().as_second());
    let offset = |time: i64| i64::from(zone.to_offset(at(time)).seconds());
    let all = all.take_while(|time| *time < 4_133_980_800 + 48 * HOUR);
    all.map(|time| (time, offset(time) - offset(time - 1))).filter(|(_, by)| *by != 0).collect()
}

/// The minutes that begin on a wall clock in some time: when, and what the clock shows.
fn minutes(zone: &JiffZone, from: i64, until: i64) -> Vec<(i64, [usize; 6])> {
    // Some zones were not whole minutes away from UTC.
    let whole = [from, until].iter().all(|time| zone.to_offset(at(*time)).seconds() % 60 == 0);
    let step = if whole { 60 } else { 1 };
    let times = (from.div_euclid(60) * 60..until).step_by(step);
    let clocks = times.map(|time| (time, zone.to_datetime(at(time))));
    clocks
        .filter(|(_, clock)| clock.second() == 0)
        .map(|(time, clock)| (time, shown(clock)))
        .collect()
}

fn check(name: &str, zone: &JiffZone, (change, by): (i64, i64), random: &mut fastrand::Rng) {
    let margin = by.abs() + 2 * HOUR;
    let (start, end) = (change - margin, change + margin);
    // What is shown a second time was shown before it begins.
    let minutes = minutes(zone, start - by.abs(), end);
    let mut expressions: Vec<String> = ["* * * * * *", "*/30 */2 * * * *", "30 2 * * * *"]
        .into_iter()
        .chain(["15,45 0-3 * * * *", "*/20 *,1 * * * *", "0 0 * * * *", "59 23 * * * *"])
        .map(str::to_owned)
        .chain([any_expression(random), any_expression(random)])
        .collect();
    for _ in 0..4 {
        let (_, [minute, hour, day, month, weekday, year]) = minutes[random.usize(..minutes.len())];
        expressions.push(format!("{minute} {hour} * * * *"));
        expressions.push(format!("{minute} */{} {day} {month} {weekday} {year}", hour.max(1)));
    }
    for expression in expressions {
        let Ok(cron) = Cron::new(&expression) else { continue };
        let cron = cron.in_zone(name.parse().unwrap());
        let plain = Plain::new(&expression);
        let mut before = BTreeSet::new();
        let mut due = Vec::new();
        for (time, clock) in &minutes {
            let is_new = before.insert(clock);
            if plain.matches(*clock) && (is_new || !plain.names_hours) && *time > start {
                due.push(*time);
            }
        }
        let mut time = start;
        let mut found = Vec::new();
        while let Some(next) = cron.next_second_after(time).filter(|next| *next < end) {
            assert!(next > time, "{expression} in {name} after {}", at(time));
            found.push(next);
            time = next;
        }
        let texts = |all: &[i64]| all.iter().map(|one| at(*one).to_string()).collect::<Vec<_>>();
        assert_eq!(texts(&found), texts(&due), "{expression} in {name} around {}", at(change));
        // From anywhere, as from one to the next.
        for _ in 0..4 {
            let time = random.i64(start..end);
            let next = due.iter().copied().find(|next| *next > time);
            let found = cron.next_second_after(time).filter(|next| *next < end);
            assert_eq!(found, next, "{expression} in {name} after {}", at(time));
        }
    }
}

/// A few changes of each zone. All of them if `GOFER_ALL_CHANGES` is set, which is for release builds.
#[test]
fn is_as_the_wall_clock_says_whenever_clocks_are_set() {
    let all = std::env::var_os("GOFER_ALL_CHANGES").is_some();
    let mut random = fastrand::Rng::with_seed(2);
    let mut count = 0;
    for name in TimeZoneDatabase::bundled().available() {
        let name = name.as_str();
        if name == "Factory" {
            continue;
        }
        let zone = TimeZoneDatabase::bundled().get(name).unwrap();
        let mut changes = changes(&zone);
        if !all {
            random.shuffle(&mut changes);
            changes.truncate(1);
        }
        count += changes.len();
        for change in changes {
            check(name, &zone, change, &mut random);
        }
    }
    println!("{count} changes");
    assert!(count > 300, "{count}");
}
