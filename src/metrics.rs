//! What an extension counts, on the facade `metrics`: the feature `metrics`.
//!
//! The guide has the names, which are a contract. The handles are looked up once, when the server
//! starts, so that a tick costs a few additions; [`no_metrics`](super) is the same without the
//! feature.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, SharedString, Unit};
use tokio::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::extension::State;

const TICKS: &str = "gofer_extension_ticks_total";
const LATENESS: &str = "gofer_extension_tick_lateness_seconds";
const STARTS: &str = "gofer_extension_run_start_duration_seconds";
const SUBSCRIPTIONS: &str = "gofer_extension_subscriptions";
const EVENTS: &str = "gofer_extension_external_events_total";
const REACHABLE: &str = "gofer_extension_gofer_reachable";

/// The label with the name of the extension.
const EXTENSION: &str = "extension";
const OUTCOME: &str = "outcome";

/// How many outcomes a call can have.
const OUTCOMES: usize = 14;

pub(crate) struct Metrics {
    extension: SharedString,
    fired: Counter,
    coalesced: Counter,
    dropped: Counter,
    lateness: Histogram,
    serving: Gauge,
    restarting: Gauge,
    idle: Gauge,
    reachable: Gauge,
    /// By [`outcome`]; most never happen.
    starts: [OnceLock<Histogram>; OUTCOMES],
    events: [OnceLock<Counter>; OUTCOMES],
}

/// When something began that is measured.
pub(crate) struct Began(Instant);

impl Metrics {
    pub(crate) fn new(extension: &str) -> Self {
        describe();
        let extension = SharedString::from(extension.to_owned());
        let ticks = |outcome| ::metrics::counter!(TICKS, EXTENSION => extension.clone(), OUTCOME => outcome);
        let subscriptions = |state| {
            let gauge =
                ::metrics::gauge!(SUBSCRIPTIONS, EXTENSION => extension.clone(), "state" => state);
            // Shown from the beginning, not only once there has been one.
            gauge.set(0.0);
            gauge
        };
        Self {
            fired: ticks("fired"),
            coalesced: ticks("coalesced"),
            dropped: ticks("dropped"),
            lateness: ::metrics::histogram!(LATENESS, EXTENSION => extension.clone()),
            serving: subscriptions("serving"),
            restarting: subscriptions("restarting"),
            idle: subscriptions("idle"),
            reachable: ::metrics::gauge!(REACHABLE, EXTENSION => extension.clone()),
            starts: Default::default(),
            events: Default::default(),
            extension,
        }
    }

    /// A tick is returned that stands for so many, so late, in nanoseconds.
    pub(crate) fn tick(&self, count: u16, late: i64) {
        self.fired.increment(1);
        self.coalesced.increment(u64::from(count.saturating_sub(1)));
        let late = Duration::from_nanos(u64::try_from(late).unwrap_or(0));
        self.lateness.record(late.as_secs_f64());
    }

    pub(crate) fn ticks_dropped(&self, count: u16) {
        self.dropped.increment(u64::from(count));
    }

    #[expect(clippy::unused_self, reason = "nothing is measured without the feature")]
    pub(crate) fn begin(&self) -> Began {
        Began(Instant::now())
    }

    /// The start of a run has ended.
    pub(crate) fn run_start<T>(&self, began: &Began, ended: &Result<T>) {
        let (index, outcome) = outcome(ended);
        let of_outcome = self.starts[index].get_or_init(|| {
            let extension = self.extension.clone();
            ::metrics::histogram!(STARTS, EXTENSION => extension, OUTCOME => outcome)
        });
        of_outcome.record(began.0.elapsed().as_secs_f64());
    }

    pub(crate) fn external_event<T>(&self, ended: &Result<T>) {
        let (index, outcome) = outcome(ended);
        let of_outcome = self.events[index].get_or_init(|| {
            let extension = self.extension.clone();
            ::metrics::counter!(EVENTS, EXTENSION => extension, OUTCOME => outcome)
        });
        of_outcome.increment(1);
    }

    /// A subscription is in another state.
    pub(crate) fn subscription(&self, before: State, after: State) {
        if let Some(gauge) = self.of(before) {
            gauge.decrement(1.0);
        }
        if let Some(gauge) = self.of(after) {
            gauge.increment(1.0);
        }
    }

    /// How many subscriptions are in a state, if they are counted.
    fn of(&self, state: State) -> Option<&Gauge> {
        match state {
            State::Starting | State::Ended => None,
            State::Serving => Some(&self.serving),
            State::Restarting => Some(&self.restarting),
            State::Idle => Some(&self.idle),
        }
    }

    pub(crate) fn reachable(&self, reachable: bool) {
        self.reachable.set(if reachable { 1.0 } else { 0.0 });
    }
}

/// For exporters that show it. Says the same as the guide.
fn describe() {
    ::metrics::describe_counter!(
        TICKS,
        "Ticks that fell due, by what became of them: fired, coalesced with a later one, or dropped"
    );
    ::metrics::describe_histogram!(LATENESS, Unit::Seconds, "How late ticks were fired");
    ::metrics::describe_histogram!(
        STARTS,
        Unit::Seconds,
        "How long it took to start a run, with all attempts, by outcome"
    );
    ::metrics::describe_gauge!(
        SUBSCRIPTIONS,
        "Live subscriptions, by state: serving, restarting after a failure, or idle"
    );
    ::metrics::describe_counter!(EVENTS, "External events, by outcome");
    ::metrics::describe_gauge!(REACHABLE, "1 while calls to Gofer work, 0 while they fail");
}

/// Its index and its name.
fn outcome<T>(ended: &Result<T>) -> (usize, &'static str) {
    let Err(error) = ended else { return (0, "ok") };
    match error.kind() {
        ErrorKind::InvalidParameter => (1, "invalid_parameter"),
        ErrorKind::InvalidConfiguration => (2, "invalid_configuration"),
        ErrorKind::Unavailable => (3, "unavailable"),
        ErrorKind::Internal => (4, "internal"),
        ErrorKind::NotFound => (5, "not_found"),
        ErrorKind::AlreadyExists => (6, "already_exists"),
        ErrorKind::FailedPrecondition => (7, "failed_precondition"),
        ErrorKind::PermissionDenied => (8, "permission_denied"),
        ErrorKind::Unauthenticated => (9, "unauthenticated"),
        ErrorKind::DeadlineExceeded => (10, "deadline_exceeded"),
        ErrorKind::ResourceExhausted => (11, "resource_exhausted"),
        ErrorKind::Unimplemented => (12, "unimplemented"),
        ErrorKind::Cancelled => (13, "cancelled"),
    }
}
