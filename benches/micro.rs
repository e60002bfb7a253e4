//! The one hot path that can be reached alone: durations, as Subscribe reads
//! them. All else is measured from outside by the benchmark `report`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gofer_sdk::GoDuration;

fn durations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("GoDuration");
    for text in ["5m", "1h30m", "-1.5h0.25s3ms", "1us2us3us4us5us6us7us8us9us"] {
        group.bench_function(format!("parse {text}"), |bencher| {
            bencher.iter(|| black_box(text).parse::<GoDuration>());
        });
    }
    let duration = GoDuration::from_mins(90);
    group.bench_function("print 1h30m0s", |bencher| {
        bencher.iter(|| black_box(duration).to_string());
    });
    group.finish();
}

criterion_group!(benches, durations);
criterion_main!(benches);
