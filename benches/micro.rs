//! The one hot path that can be reached alone: durations, as Subscribe reads them.
//! Everything else is measured from outside, by the benchmark `report`.

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::hint::black_box;
use std::time::Instant;

use gofer_sdk::GoDuration;

const ROUNDS: usize = 51;
const CALLS: u32 = 100_000;

/// Prints the nanoseconds of a call: the median, the least and the most of all rounds.
fn measure<T>(what: &str, call: impl Fn() -> T) {
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let since = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        *round = since.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
    }
    rounds.sort_by(f64::total_cmp);
    let [least, median, most] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| rounds[at]);
    println!("{what}: {median:.1} ns ({least:.1}–{most:.1})");
}

fn main() {
    for text in ["5m", "1h30m", "-1.5h0.25s3ms", "1us2us3us4us5us6us7us8us9us"] {
        measure(&format!("parse {text}"), || black_box(text).parse::<GoDuration>());
    }
    let duration = GoDuration::from_mins(90);
    measure("print 1h30m0s", || black_box(duration).to_string());
}
