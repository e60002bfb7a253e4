//! Two thousand subscriptions that tick once a second: whether every tick becomes a run in an
//! embedded core, how late, and at what cost.
//!
//! The core records the start of a run in whole milliseconds; each run counts as late as it can
//! have been. The baseline is tonic's client, making the same calls to a tonic server that does
//! nothing with the runs.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use gofer_proto as proto;
use proto::gofer_client::GoferClient;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::common::client::{AddToken, endpoint};
use crate::common::core::RealCore;
use crate::common::gofer::{Arrival, Gofer};
use crate::common::identity::PREFIX;
use crate::common::probe::{reason, unix_nanos};
use crate::common::process::{Pid, Process};
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number, quantile};

/// How many tasks [`Role::BareTicks`] has.
const CALLERS: &str = "BENCH_CALLERS";

/// How far apart they start, in microseconds.
const APART: &str = "BENCH_APART";

/// How many subscriptions are made at once.
#[derive(Clone, Copy)]
enum Burst {
    /// One after the other, as Gofer restores them.
    One,
    /// Many at once: nearly all ticks of a second fall due together.
    Many,
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let count = options.pick(2_000, 100);
    let seconds = options.pick(30, 4);
    for (burst, how) in [(Burst::One, "one after another"), (Burst::Many, "64 at once")] {
        let seen = sdk(Role::SdkTicks, count, seconds, burst).await?;
        let bare = bare(count, seconds, seen.apart).await?;
        let what = |which: &str| format!("{count} at 1 s, subscribed {how}: {which}");
        table.promise(
            what("ticks that arrive"),
            "all",
            format!("{} of {}", seen.arrived, seen.expected),
            format!("{} of {}", bare.arrived, bare.expected),
            seen.arrived == seen.expected,
        );
        match burst {
            Burst::One => table.promise(
                what("lateness"),
                "p99 ≤ 5 ms",
                seen.lateness(),
                bare.lateness(),
                seen.late(0.99) <= 5.0,
            ),
            // The ticks of a whole second fall due in less time than so many calls take, so this
            // measures throughput. An interval's `jitter` is for this.
            Burst::Many => table.note(what("lateness"), seen.lateness(), bare.lateness()),
        }
        let drift = seen.last - seen.first;
        table.promise(
            what("last tick compared with the first"),
            "as late",
            format!("{drift:+.2} ms (median {:.2} ms)", seen.last),
            format!("{:+.2} ms", bare.last - bare.first),
            // A timer's resolution is a millisecond; in a burst the place in the queue adds to it,
            // which changes from one second to the next.
            drift < if let Burst::One = burst { 1.0 } else { seen.late(0.5) + 1.0 },
        );
        table.promise(
            what("CPU per tick"),
            "≤ 1.25×",
            format!(
                "{:.2}×, {:.1} µs, {} µs apart",
                seen.cpu / bare.cpu,
                seen.cpu,
                seen.apart.as_micros()
            ),
            format!("{:.1} µs", bare.cpu),
            seen.cpu <= bare.cpu * 1.25,
        );
        table.promise(
            what("open files"),
            "constant",
            format!("{} then {}", seen.files.0, seen.files.1),
            format!("{} then {}", bare.files.0, bare.files.1),
            seen.files.1 <= seen.files.0,
        );
        let growth = seen.rss.1.saturating_sub(seen.rss.0) / 1024;
        table.promise(
            what("RSS"),
            "constant",
            format!("{} kB, then {growth} kB more", seen.rss.0 / 1024),
            format!("{} kB more", bare.rss.1.saturating_sub(bare.rss.0) / 1024),
            // Four bytes for each of 30,000 ticks: buffers that are still growing to their size,
            // not a leak.
            growth <= 128,
        );
    }
    with_metrics(count, seconds, table).await
}

/// What counting costs, in rounds that alternate.
async fn with_metrics(count: usize, seconds: u64, table: &mut Table) -> Result<()> {
    const ROUNDS: usize = 3;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (role, cpu) in [(Role::SdkTicks, &mut without), (Role::SdkMetrics, &mut with)] {
            cpu.push(sdk(role, count, seconds, Burst::One).await?.cpu);
        }
    }
    let (without, with) = (median(&without), median(&with));
    table.promise(
        format!("{count} at 1 s: CPU per tick with metrics"),
        "≤ 1.05×",
        format!("{:.3}×, {with:.1} µs", with / without),
        format!("{without:.1} µs (without)"),
        with <= without * 1.05,
    );
    Ok(())
}

/// What was seen of one process's ticks.
struct Seen {
    expected: usize,
    arrived: usize,
    /// In milliseconds, of every tick.
    late: Vec<f64>,
    /// Median lateness of all first and of all last ticks, in milliseconds.
    first: f64,
    last: f64,
    /// Microseconds for each tick.
    cpu: f64,
    /// How far apart the ticks of two subscriptions are that were made one after the other.
    apart: Duration,
    files: (usize, usize),
    rss: (u64, u64),
}

impl Seen {
    fn late(&self, part: f64) -> f64 {
        quantile(&self.late, part)
    }

    fn lateness(&self) -> String {
        let (median, p99, most) = (self.late(0.5), self.late(0.99), self.late(1.0));
        format!("p50 {median:.2}, p99 {p99:.2}, max {most:.2} ms")
    }
}

/// The extension as a core launches it, against that core.
async fn sdk(role: Role, count: usize, seconds: u64, burst: Burst) -> Result<Seen> {
    let core = RealCore::start().await?;
    let extension = core.install(role).await?;
    let in_flight = match burst {
        Burst::One => 1,
        Burst::Many => 64,
    };
    let begun = Instant::now();
    core.subscribe_all(&extension, count, in_flight, "1s").await?;
    let apart = begun.elapsed() / u32::try_from(count)?;
    let watched = watch(Pid(extension.process_id().ok_or("no process")?), seconds).await?;
    let arrivals = core.arrivals(count).await?;
    core.stop().await?;
    Ok(Seen { apart, ..judge(&arrivals, count, seconds).with(&watched, &arrivals) })
}

/// The same calls from tonic's own client, by timers that do nothing else. As far apart as the
/// extension's: of ticks that fall due in the same millisecond, each costs less.
async fn bare(count: usize, seconds: u64, apart: Duration) -> Result<Seen> {
    let gofer = Gofer::start()?;
    let (callers, apart) = (count.to_string(), apart.as_micros().to_string());
    let variables = [(CALLERS, callers.as_str()), (APART, apart.as_str())];
    let process = Process::start_with(Role::BareTicks, gofer.port, &variables)?;
    let watched = watch(*process, seconds).await?;
    let arrivals = gofer.take_arrivals();
    Ok(judge(&arrivals, count, seconds).with(&watched, &arrivals))
}

/// The kernel's figures of a process, at two moments.
struct Watched {
    at: (i64, i64),
    cpu: Duration,
    files: (usize, usize),
    rss: (u64, u64),
}

async fn watch(process: Pid, seconds: u64) -> Result<Watched> {
    // What the first ticks set up is there after half of them.
    let settled = Duration::from_secs(seconds) / 2;
    tokio::time::sleep(settled).await;
    let (files, rss, cpu) = (process.open_files()?, process.rss()?, process.cpu()?);
    let from = unix_nanos();
    // Longer than the last tick's second, for what arrives late.
    let rest = Duration::from_millis(seconds * 1000 + 1500).saturating_sub(settled);
    tokio::time::sleep(rest).await;
    Ok(Watched {
        at: (from, unix_nanos()),
        cpu: process.cpu()?.saturating_sub(cpu),
        files: (files, process.open_files()?),
        rss: (rss, process.rss()?),
    })
}

/// Evaluates the ticks of each subscription that were due in so many seconds.
fn judge(arrivals: &[Arrival], count: usize, seconds: u64) -> Seen {
    let mut by_pipeline: HashMap<&str, Vec<&Arrival>> = HashMap::new();
    for arrival in arrivals {
        by_pipeline.entry(&arrival.pipeline).or_default().push(arrival);
    }
    let mut seen = Seen {
        expected: count * usize::try_from(seconds).unwrap_or_default(),
        arrived: 0,
        late: Vec::new(),
        first: 0.0,
        last: 0.0,
        cpu: 0.0,
        apart: Duration::ZERO,
        files: (0, 0),
        rss: (0, 0),
    };
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for of_one in by_pipeline.values_mut() {
        of_one.sort_by_key(|arrival| arrival.due);
        of_one.dedup_by_key(|arrival| arrival.due);
        let Some(start) = of_one.first().map(|arrival| arrival.due) else { continue };
        // By due time, so that a tick after the end does not make up for a missing one.
        let end = start + i64::try_from(seconds).unwrap_or_default() * 1_000_000_000;
        let late: Vec<f64> = of_one
            .iter()
            .filter(|arrival| arrival.due < end)
            .map(|arrival| {
                Duration::from_nanos((arrival.at - arrival.due).max(0).unsigned_abs()).as_secs_f64()
                    * 1e3
            })
            .collect();
        seen.arrived += late.len();
        first.extend(late.first());
        last.extend(late.last());
        seen.late.extend(late);
    }
    seen.first = median(&first);
    seen.last = median(&last);
    seen
}

impl Seen {
    fn with(mut self, watched: &Watched, arrivals: &[Arrival]) -> Self {
        let (from, to) = watched.at;
        let ticks = arrivals.iter().filter(|arrival| (from..to).contains(&arrival.at)).count();
        self.cpu = watched.cpu.as_secs_f64() * 1e6 / number(ticks);
        (self.files, self.rss) = (watched.files, watched.rss);
        self
    }
}

/// What a process does in [`Role::BareTicks`].
pub(crate) async fn bare_ticks() -> Result<()> {
    let count: usize = std::env::var(CALLERS)?.parse()?;
    let apart = Duration::from_micros(std::env::var(APART)?.parse()?);
    let gofer = std::env::var(format!("{PREFIX}GOFER_HOST"))?;
    let port = gofer.rsplit_once(':').ok_or("no port")?.1.parse()?;
    let channel = endpoint(port)?.connect().await?;
    let mut callers = JoinSet::new();
    let start = Instant::now();
    for n in 0..count {
        let begin = start + apart * u32::try_from(n)?;
        if begin > Instant::now() {
            tokio::time::sleep_until(begin).await;
        }
        let mut api = GoferClient::with_interceptor(channel.clone(), AddToken::new()?);
        callers.spawn(async move {
            let mut due = unix_nanos();
            let start = Instant::now() + Duration::from_secs(1);
            let mut ticks = tokio::time::interval_at(start, Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                ticks.tick().await;
                due += 1_000_000_000;
                let at = humantime::format_rfc3339(
                    UNIX_EPOCH + Duration::from_nanos(due.unsigned_abs()),
                )
                .to_string();
                let request = proto::StartRunRequest {
                    namespace_id: "default".to_owned(),
                    pipeline_id: format!("pipeline-{n:07}"),
                    variables: HashMap::from([
                        ("GOFER_EXTENSION_RUN_KEY".to_owned(), format!("gofer-sdk:tick:{at}")),
                        ("GOFER_EXTENSION_SCHEDULED_AT".to_owned(), at),
                    ]),
                    initiator: Some(proto::Initiator {
                        r#type: proto::initiator::Type::Extension.into(),
                        name: "interval (every-so-often)".to_owned(),
                        reason: reason(due),
                    }),
                };
                if let Err(status) = api.start_run(request).await {
                    return status;
                }
            }
        });
    }
    match callers.join_next().await {
        Some(ended) => Err(ended?.into()),
        None => Ok(()),
    }
}
