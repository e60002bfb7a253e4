//! What the checker needs to know of a simulation: what was asked for, what was acknowledged, what
//! the authors' code saw, and when something was disturbed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::history::{now, record};

/// What identifies a subscription.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub extension: String,
    pub namespace: String,
    pub pipeline: String,
    pub label: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { extension, namespace, pipeline, label } = self;
        write!(f, "{extension}:{namespace}/{pipeline}({label})")
    }
}

/// The parameters of a subscription, from one acknowledged change to the next.
#[derive(Clone, Debug)]
pub struct Life {
    /// Different for each change that was asked for.
    pub number: u32,
    pub every: Duration,
    pub from: Duration,
    /// When the next change was asked for.
    pub until: Option<Duration>,
    /// Whether it continues the one before, with other parameters.
    pub continues: bool,
}

/// A run that an author's code has asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Duration,
    pub key: Key,
    /// That of the parameters.
    pub number: u32,
    pub cause: Cause,
    /// The ID of the run, if the answer arrived.
    pub answer: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A tick, by the time that it was scheduled for, in Unix nanoseconds.
    Tick(i64),
    /// Something else, by the key that the author chose.
    Key(String),
}

/// Who was disturbed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// All, since the clock was set forward.
    SetForward,
    /// All, since the clock was set back.
    SetBack,
    /// All, with the core or its disk.
    Core,
    Extension(String),
    Pipeline(String, String),
    Subscription(Key),
}

impl Who {
    pub fn includes(&self, key: &Key) -> bool {
        match self {
            Self::SetForward | Self::SetBack | Self::Core => true,
            Self::Extension(name) => *name == key.extension,
            Self::Pipeline(namespace, pipeline) => {
                (namespace, pipeline) == (&key.namespace, &key.pipeline)
            }
            Self::Subscription(other) => other == key,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Disturbance {
    pub who: Who,
    pub from: Duration,
    /// `None` while it lasts.
    pub until: Option<Duration>,
}

#[derive(Default)]
pub struct Facts {
    pub lives: BTreeMap<Key, Vec<Life>>,
    pub asked: Vec<Asked>,
    pub disturbances: Vec<Disturbance>,
    /// By subscription, the parameters of each `serve` that runs now.
    pub serving: BTreeMap<Key, Vec<u32>>,
    /// From when on the clock was so many nanoseconds ahead.
    pub ahead: Vec<(Duration, i64)>,
    /// What must not have happened, as soon as it is noticed.
    pub violations: Vec<String>,
    /// The subscriptions that users are changing.
    pub changing: BTreeSet<Key>,
    /// Runs that were started through the API, by pipeline: how many were acknowledged, and of how
    /// many more that is not known.
    pub by_api: BTreeMap<(String, String), (usize, usize)>,
    /// How many runs of each pipeline are being executed.
    pub executing: BTreeMap<String, i64>,
    /// Ticks that nothing had disturbed, as checked.
    pub in_time: usize,
    pub last_number: u32,
    /// When the checks were made.
    pub end: Duration,
}

thread_local! {
    static FACTS: RefCell<Facts> = RefCell::default();
}

pub fn facts<T>(what: impl FnOnce(&mut Facts) -> T) -> T {
    FACTS.with_borrow_mut(what)
}

pub fn begin() {
    FACTS.take();
    facts(|facts| facts.ahead.push((Duration::ZERO, 0)));
}

pub fn violated(what: impl Into<String>) {
    let what = what.into();
    record(format!("VIOLATION {what}"));
    facts(|facts| facts.violations.push(what));
}

/// Something was disturbed for a moment.
pub fn disturbed(who: Who) {
    let now = now();
    facts(|facts| facts.disturbances.push(Disturbance { who, from: now, until: Some(now) }));
}

/// Disturbs until it is dropped.
pub struct Disturbing(usize);

pub fn disturb(who: Who) -> Disturbing {
    let from = now();
    facts(|facts| {
        facts.disturbances.push(Disturbance { who, from, until: None });
        Disturbing(facts.disturbances.len() - 1)
    })
}

impl Drop for Disturbing {
    fn drop(&mut self) {
        let now = now();
        facts(|facts| facts.disturbances[self.0].until = Some(now));
    }
}

impl Facts {
    /// A number for other parameters.
    pub fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    /// The life that goes on.
    pub fn current(&mut self, key: &Key) -> Option<&mut Life> {
        self.lives.get_mut(key)?.last_mut().filter(|life| life.until.is_none())
    }
}

/// True if there was one.
pub fn end_life(key: &Key) -> bool {
    let now = now();
    facts(|facts| facts.current(key).map(|life| life.until = Some(now))).is_some()
}

pub fn begin_life(key: &Key, from: Duration, number: u32, every: Duration, continues: bool) {
    let life = Life { number, every, from, until: None, continues };
    facts(|facts| facts.lives.entry(key.clone()).or_default().push(life));
}

/// A life that was to end goes on.
pub fn go_on_living(key: &Key) {
    facts(|facts| {
        if let Some(life) = facts.lives.get_mut(key).and_then(|lives| lives.last_mut()) {
            life.until = None;
        }
    });
}
