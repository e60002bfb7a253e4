//! What has happened in a simulation, in order, with virtual times; and the one source of
//! randomness. Both belong to the thread, as the whole simulation does.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the beginning.
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let (rest, nanos) = (seconds % 60, self.at.subsec_nanos());
        write!(f, "{hours:02}:{minutes:02}:{rest:02}.{nanos:09} {}", self.what)
    }
}

struct History {
    begun: Instant,
    random: fastrand::Rng,
    entries: Vec<Entry>,
}

thread_local! {
    static HISTORY: RefCell<Option<History>> = const { RefCell::new(None) };
}

fn with<T>(what: impl FnOnce(&mut History) -> T) -> T {
    HISTORY.with_borrow_mut(|history| what(history.as_mut().expect("a simulation has begun")))
}

/// Begins a history. All that follows on this thread is random by the seed.
pub fn begin(seed: u64) {
    // That of the code under test.
    fastrand::seed(seed);
    let random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let history = History { begun: Instant::now(), random, entries: Vec::new() };
    HISTORY.set(Some(history));
}

/// Ends it.
pub fn end() -> Vec<Entry> {
    HISTORY.take().map(|history| history.entries).unwrap_or_default()
}

/// How long it has been.
pub fn now() -> Duration {
    with(|history| history.begun.elapsed())
}

pub fn record(what: impl Into<String>) {
    let what = what.into();
    with(|history| {
        let at = history.begun.elapsed();
        history.entries.push(Entry { at, what });
    });
}

/// Draws something.
pub fn draw<T>(what: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
    with(|history| what(&mut history.random))
}

/// True once in so many times.
pub fn one_in(many: u32) -> bool {
    draw(|random| random.u32(..many) == 0)
}

/// A time between two, short ones as often as long ones.
pub fn duration(least: Duration, most: Duration) -> Duration {
    let [least, most] = [least, most].map(|it| it.as_secs_f64().ln());
    let seconds = draw(|random| least + (most - least) * random.f64()).exp();
    // In whole milliseconds, as timers.
    Duration::from_millis((seconds * 1000.0).round().max(1.0) as u64)
}

/// One of some.
pub fn pick<T: Clone>(of: &[T]) -> T {
    of[draw(|random| random.usize(..of.len()))].clone()
}

/// FNV-1a of all entries.
pub fn hash(entries: &[Entry]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in entries.iter().flat_map(|entry| format!("{entry}\n").into_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}
