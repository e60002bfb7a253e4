//! A million subscriptions of one minute with jitter in one process, on one core: whether each tick
//! of ten minutes arrives once, how late, and at what cost. 16,667 ticks a second.
//!
//! ```text
//! cargo bench --bench report -- million                              about sixteen minutes
//! BENCH_MILLION=100000,6,10 cargo bench --bench report -- million    about two, at the same rate
//! ```
//!
//! The extension is the example `interval`, on the first core; on the second are the client that
//! subscribes, and a Gofer that does the least. That is done by `taskset`; without it, both share
//! what there is. The machine should do nothing else meanwhile.
//!
//! The baseline is tonic's client in a process on the same core, which makes the same calls at the
//! same rate: one task that sleeps until the next are due and spawns them. It has no subscriptions.
//! It runs for one period before the extension and for one after it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use gofer_proto as proto;
use proto::gofer_client::GoferClient;
use tokio::time::{Instant, sleep, sleep_until};

use crate::common::client::{AddToken, Client, Windows, endpoint, subscription};
use crate::common::cores::Cores;
use crate::common::gofer::Gofer;
use crate::common::identity::PREFIX;
use crate::common::probe::unix_nanos;
use crate::common::process::{Pid, Process};
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, number};

/// Other numbers than those of the promise: how many subscriptions, the seconds between two ticks of
/// each, and for how many ticks of each they are watched.
const NUMBERS: &str = "BENCH_MILLION";

/// How many calls [`Role::BareSchedule`] makes in each period.
const CALLS: &str = "BENCH_CALLS";

/// The period, in seconds.
const PERIOD: &str = "BENCH_PERIOD";

const RUN_KEY: &str = "GOFER_EXTENSION_RUN_KEY";
const SCHEDULED_AT: &str = "GOFER_EXTENSION_SCHEDULED_AT";

#[derive(Clone, Copy)]
struct Numbers {
    subscriptions: usize,
    /// Seconds between two ticks of a subscription.
    every: u32,
    /// Ticks of each subscription that are watched.
    ticks: u16,
}

impl Numbers {
    fn new(options: &Options) -> Result<Self> {
        let (subscriptions, every, ticks) = options.pick((1_000_000, 60, 10), (10_000, 1, 4));
        let Ok(given) = std::env::var(NUMBERS) else {
            return Ok(Self { subscriptions, every, ticks });
        };
        let [subscriptions, every, ticks] = given.split(',').collect::<Vec<_>>()[..] else {
            return Err(format!("{NUMBERS} is not three numbers").into());
        };
        Ok(Self {
            subscriptions: subscriptions.parse()?,
            every: every.parse()?,
            ticks: ticks.parse()?,
        })
    }

    fn every(self) -> Duration {
        Duration::from_secs(self.every.into())
    }
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let numbers = Numbers::new(options)?;
    let Numbers { subscriptions, every, ticks } = numbers;
    let cores = Cores::split();
    if cores.is_none() {
        eprintln!("  nothing has a core of its own: there is one core, or no `taskset`");
    }
    let core = cores.as_ref().map(|cores| cores.other);
    let bare_numbers = Numbers { ticks: options.pick(1, 2), ..numbers };
    let before = bare(bare_numbers, core).await?;
    let (seen, made) = sdk(numbers, core).await?;
    let after = bare(bare_numbers, core).await?;
    let what = |which: &str| format!("{subscriptions} at {every} s with jitter: {which}");
    table.note(
        what("time to subscribe"),
        format!("{:.0} s, and {:.0} s to look for last runs", made.subscribe, made.ask),
        "",
    );
    table.promise(
        what(&format!("ticks that arrive, {ticks} of each")),
        "each once",
        seen.arrived(),
        format!("{} and {}", before.arrived(), after.arrived()),
        seen.are_all(),
    );
    table.promise(
        what("lateness"),
        "p99 ≤ 100 ms",
        seen.lateness(),
        format!("{} and {}", before.lateness(), after.lateness()),
        seen.late(0.99) <= 100.0,
    );
    let baseline = f64::midpoint(before.cpu, after.cpu);
    table.promise(
        what("CPU per tick"),
        "≤ 1.25×",
        format!("{:.2}×, {:.1} µs", seen.cpu / baseline, seen.cpu),
        format!("{:.1} and {:.1} µs", before.cpu, after.cpu),
        seen.cpu <= baseline * 1.25,
    );
    // If one of them is busy nearly all of the time, or waits for others, that is what makes ticks late.
    for (of, name) in [(0, "the process"), (2, "Gofer")] {
        let time = |seen: &Seen| {
            let [ran, waited] = [seen.parts[of], seen.parts[of + 1]].map(|part| 100.0 * part);
            format!("{ran:.0} %, waits {waited:.0} %")
        };
        table.note(
            what(&format!("how long {name} has a core")),
            time(&seen),
            format!("{} and {}", time(&before), time(&after)),
        );
    }
    table.note(what("memory of a subscription, after its ticks"), format!("{:.0} B", made.rss), "");
    Ok(())
}

/// What was seen of one process's ticks.
struct Seen {
    expected: usize,
    tally: Tally,
    /// Microseconds for each tick.
    cpu: f64,
    /// Of the time: how long the process ran and how long it waited for a core, and the same of its
    /// Gofer.
    parts: [f64; 4],
}

/// What was seen before the ticks.
struct Made {
    /// In seconds.
    subscribe: f64,
    ask: f64,
    /// Bytes for each subscription.
    rss: f64,
}

impl Seen {
    fn are_all(&self) -> bool {
        let Tally { repeated, foreign, .. } = self.tally;
        self.tally.arrived() == self.expected && repeated == 0 && foreign == 0
    }

    fn arrived(&self) -> String {
        let mut text = format!("{} of {}", self.tally.arrived(), self.expected);
        for (count, how) in
            [(self.tally.repeated, "more than once"), (self.tally.foreign, "at wrong times")]
        {
            if count > 0 {
                text = format!("{text}, {count} {how}");
            }
        }
        text
    }

    /// The lateness that this part is below, in milliseconds.
    fn late(&self, part: f64) -> f64 {
        self.tally.late(part)
    }

    fn lateness(&self) -> String {
        let (median, p99, most) = (self.late(0.5), self.late(0.99), self.tally.most());
        format!("p50 {median:.1}, p99 {p99:.1}, max {most:.1} ms")
    }
}

async fn sdk(numbers: Numbers, core: Option<usize>) -> Result<(Seen, Made)> {
    let tally = Shared::new(numbers)?;
    let gofer = tally.gofer()?;
    let process = start(Role::Sdk, &gofer, &[], core)?;
    let mut client = Client::connect(process.port, Windows::Default).await?;
    let every = numbers.every;
    let config = HashMap::from([("min_interval".to_owned(), format!("{every}s"))]);
    client.api.init(proto::ExtensionInitRequest { config }).await?;
    let before = process.rss()?;
    let begun = Instant::now();
    let subscribe = async move |client: &mut Client, n| {
        let mut request = subscription(n, &format!("{every}s"));
        request.config.insert("jitter".to_owned(), format!("{every}s"));
        client.api.subscribe(request).await?;
        Ok(())
    };
    client.load(0..numbers.subscriptions, 64, subscribe).await?;
    let subscribed = Instant::now();
    while gofer.asked() < numbers.subscriptions {
        sleep(Duration::from_millis(100)).await;
    }
    let asked = Instant::now();
    // The first tick is a period later, and up to another because of the jitter. What falls due
    // before the last runs are known may be missed.
    let every = numbers.every();
    sleep_until((subscribed + 2 * every).max(asked + every)).await;
    let seen = tally.watch(&process, numbers).await?;
    let rss = process.rss()?.saturating_sub(before);
    let made = Made {
        subscribe: (subscribed - begun).as_secs_f64(),
        ask: (asked - subscribed).as_secs_f64(),
        rss: number(rss) / number(numbers.subscriptions),
    };
    Ok((seen, made))
}

async fn bare(numbers: Numbers, core: Option<usize>) -> Result<Seen> {
    let tally = Shared::new(numbers)?;
    let gofer = tally.gofer()?;
    let (calls, period) = (numbers.subscriptions.to_string(), numbers.every.to_string());
    let variables = [(CALLS, calls.as_str()), (PERIOD, period.as_str())];
    let process = start(Role::BareSchedule, &gofer, &variables, core)?;
    // Connected by then, and what the first calls set up is there.
    sleep(Duration::from_secs(2)).await;
    tally.watch(&process, numbers).await
}

fn start(
    role: Role,
    gofer: &Gofer,
    variables: &[(&str, &str)],
    core: Option<usize>,
) -> Result<Process> {
    let program = std::env::current_exe()?;
    let prepared = Process::prepare(&program, Some(role), gofer.port, variables)?;
    match core {
        Some(core) => prepared.pinned(core).start(),
        None => prepared.start(),
    }
}

/// Counted by Gofer's thread.
#[derive(Clone)]
struct Shared(Arc<Mutex<Tally>>);

impl Shared {
    fn new(numbers: Numbers) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Tally::new(numbers)?))))
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gofer(&self) -> Result<Gofer> {
        let tally = self.clone();
        Gofer::recording(move |request, at| tally.lock().add(request, at))
    }

    /// Evaluates the ticks that are due from now on, for so many of each subscription.
    async fn watch(&self, process: &Process, numbers: Numbers) -> Result<Seen> {
        let length = numbers.every() * numbers.ticks.into();
        let expected = numbers.subscriptions * usize::from(numbers.ticks);
        let this = Pid(std::process::id());
        let begun = Instant::now();
        let calls = {
            let mut tally = self.lock();
            let now = unix_nanos();
            tally.watched = now..now + i64::try_from(length.as_nanos())?;
            tally.calls
        };
        let figures = || -> Result<[Duration; 4]> {
            Ok([process.cpu()?, process.waited()?, this.cpu()?, this.waited()?])
        };
        let before = figures()?;
        sleep_until(begun + length).await;
        let mut figures = figures()?;
        let wall = begun.elapsed();
        for (after, before) in figures.iter_mut().zip(before) {
            *after = after.saturating_sub(before);
        }
        let calls = self.lock().calls - calls;
        // For what arrives late, and for what arrives once more.
        let patience = Instant::now() + Duration::from_secs(10);
        while self.lock().arrived() < expected && Instant::now() < patience {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(1)).await;
        Ok(Seen {
            expected,
            tally: self.lock().clone(),
            cpu: figures[0].as_secs_f64() * 1e6 / number(calls),
            parts: figures.map(|time| time.as_secs_f64() / wall.as_secs_f64()),
        })
    }
}

/// Lateness is counted in steps of this many nanoseconds...
const STEP: i64 = 100_000;

/// ... up to ten seconds.
const STEPS: usize = 100_000;

/// The ticks of all subscriptions, in a few bytes for each subscription.
#[derive(Clone)]
struct Tally {
    /// Between two ticks of a subscription, in nanoseconds.
    every: i64,
    /// The last tick of each subscription, in Unix nanoseconds; 0 if there was none.
    last: Vec<i64>,
    /// The time in which ticks are due that are evaluated.
    watched: Range<i64>,
    /// How many have arrived of these, by how late they were, and the latest.
    late: Vec<u32>,
    most: i64,
    /// All calls.
    calls: usize,
    /// Ticks that are no later than one before.
    repeated: usize,
    /// Ticks that are not a whole number of periods after the one before, or of no subscription.
    foreign: usize,
}

impl Tally {
    fn new(numbers: Numbers) -> Result<Self> {
        Ok(Self {
            every: i64::try_from(numbers.every().as_nanos())?,
            last: vec![0; numbers.subscriptions],
            watched: 0..0,
            late: vec![0; STEPS],
            most: 0,
            calls: 0,
            repeated: 0,
            foreign: 0,
        })
    }

    fn add(&mut self, request: &proto::StartRunRequest, at: i64) {
        self.calls += 1;
        let due = request.variables.get(SCHEDULED_AT).and_then(|due| {
            let due = humantime::parse_rfc3339(due).ok()?.duration_since(UNIX_EPOCH).ok()?;
            i64::try_from(due.as_nanos()).ok()
        });
        let subscription = request.pipeline_id.strip_prefix("pipeline-");
        let last = subscription.and_then(|n| self.last.get_mut(n.parse::<usize>().ok()?));
        let (Some(due), Some(last)) = (due, last) else {
            self.foreign += 1;
            return;
        };
        if due <= *last {
            self.repeated += 1;
            return;
        }
        if *last != 0 && (due - *last) % self.every != 0 {
            self.foreign += 1;
        }
        *last = due;
        // One of each subscription and period, since they are periods apart: if the sum is right, none
        // is missing.
        if self.watched.contains(&due) {
            let late = (at - due).max(0);
            let step = usize::try_from(late / STEP).unwrap_or(STEPS).min(STEPS - 1);
            self.late[step] += 1;
            self.most = self.most.max(late);
        }
    }

    /// How many of those that are evaluated.
    fn arrived(&self) -> usize {
        self.late.iter().map(|count| *count as usize).sum()
    }

    /// The lateness that this part is below, in milliseconds.
    fn late(&self, part: f64) -> f64 {
        let wanted = number(self.arrived()) * part;
        let mut below = 0;
        let step = self.late.iter().position(|count| {
            below += u64::from(*count);
            number(below) >= wanted
        });
        number(step.unwrap_or(STEPS) + 1)
            * Duration::from_nanos(STEP.unsigned_abs()).as_secs_f64()
            * 1e3
    }

    /// The largest lateness, in milliseconds.
    fn most(&self) -> f64 {
        Duration::from_nanos(self.most.unsigned_abs()).as_secs_f64() * 1e3
    }
}

/// What a process does in [`Role::BareSchedule`].
pub(crate) async fn bare_schedule() -> Result<()> {
    let calls: u64 = std::env::var(CALLS)?.parse()?;
    let period = Duration::from_secs(std::env::var(PERIOD)?.parse()?);
    let gofer = std::env::var(format!("{PREFIX}GOFER_HOST"))?;
    let port = gofer.rsplit_once(':').ok_or("no port")?.1.parse()?;
    let channel = endpoint(port)?.connect().await?;
    let api = GoferClient::with_interceptor(channel, AddToken::new()?);
    let nanos = u64::try_from(period.as_nanos())?;
    let due_after = |call: u64| {
        let (periods, call) = (call / calls, call % calls);
        Duration::from_nanos(periods * nanos + call * nanos / calls)
    };
    let (start, origin) =
        (Instant::now(), UNIX_EPOCH + Duration::from_nanos(unix_nanos().unsigned_abs()));
    let mut call = 0;
    loop {
        let elapsed = start.elapsed();
        while due_after(call) <= elapsed {
            let at = humantime::format_rfc3339(origin + due_after(call)).to_string();
            let request = proto::StartRunRequest {
                namespace_id: "default".to_owned(),
                pipeline_id: format!("pipeline-{:07}", call % calls),
                variables: HashMap::from([
                    (RUN_KEY.to_owned(), format!("gofer-sdk:tick:{at}")),
                    (SCHEDULED_AT.to_owned(), at),
                ]),
                initiator: Some(proto::Initiator {
                    r#type: proto::initiator::Type::Extension.into(),
                    name: "interval (every-so-often)".to_owned(),
                    reason: "the interval elapsed".to_owned(),
                }),
            };
            let mut api = api.clone();
            tokio::spawn(async move {
                // It is missing then.
                if let Err(status) = api.start_run(request).await {
                    eprintln!("a call of the baseline failed: {status}");
                }
            });
            call += 1;
        }
        sleep_until(start + due_after(call)).await;
    }
}
