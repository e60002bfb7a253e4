//! The hot paths that can be reached alone: durations, as Subscribe reads them, and the next time of
//! a schedule. Everything else is measured from outside, by the benchmark `report`.

#![expect(clippy::expect_used, reason = "a benchmark may panic")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use divan::{Bencher, black_box};
use gofer_sdk::{Cron, GoDuration, ParseCronError, ParseGoDurationError, Schedule};

fn main() {
    divan::main();
}

#[divan::bench(args = ["5m", "1h30m", "-1.5h0.25s3ms", "1us2us3us4us5us6us7us8us9us"])]
fn parse(text: &str) -> Result<GoDuration, ParseGoDurationError> {
    black_box(text).parse()
}

#[divan::bench]
fn print() -> String {
    black_box(GoDuration::from_mins(90)).to_string()
}

#[divan::bench(args = ["* * * * * *", "0,30 9-17 1-7 */3 1-5 2024-2030", "0 0 30 2 * *"])]
fn parse_cron(text: &str) -> Result<Cron, ParseCronError> {
    black_box(text).parse()
}

/// In March 2044, from where the rarest day is 28 years away.
const START: Duration = Duration::from_secs(2_340_403_200);

#[divan::bench(args = [
    ("* * * * * *", "UTC"),
    ("* * * * * *", "Europe/Berlin"),
    ("30 2 * * * *", "Europe/Berlin"),
    ("0 0 29 2 1 *", "UTC"),
    ("0 0 29 2 1 *", "Europe/Berlin"),
    ("0 0 29 2 1 1970-2043", "Europe/Berlin"),
])]
fn next_after(bencher: Bencher, (expression, zone): (&str, &str)) {
    let zone = zone.parse().expect("a time zone");
    let cron = Cron::new(expression).expect("an expression").in_zone(zone);
    bencher.bench(|| -> Option<SystemTime> { cron.next_after(black_box(UNIX_EPOCH + START)) });
}
