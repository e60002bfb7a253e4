//! The one hot path that can be reached alone: durations, as Subscribe reads them. Everything else
//! is measured from outside, by the benchmark `report`.

use divan::black_box;
use gofer_sdk::{GoDuration, ParseGoDurationError};

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
