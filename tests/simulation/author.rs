//! The extension in the simulation: an author whose code does at each tick what its parameters say,
//! well or badly.

use std::time::{Duration, UNIX_EPOCH};

use gofer_sdk::{
    Error, ErrorKind, Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription, Tick,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::{Asked, Cause, Key, Who, disturb, disturbed, facts, violated};
use crate::history::{draw, duration, now, one_in, record};
use crate::host::perhaps_crash;
use crate::world::nemesis::perhaps_ambush;

#[derive(Deserialize, JsonSchema)]
pub struct Params {
    /// The time between two ticks.
    every: GoDuration,
    /// What the author's code does.
    behavior: Behavior,
    /// Tells the parameters of one change from those of another.
    number: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Behavior {
    Good,
    /// Returns an error now and then.
    Fails,
    Panics,
    /// Works for a long time now and then, and does not stop when it is told to.
    Hangs,
    /// Drops a start now and then, and asks again.
    Drops,
    /// Starts runs with keys of its own, too.
    Keys,
    /// Does not accept the subscription.
    Refuses,
}

const BEHAVIORS: [(&str, u32); 7] = [
    ("good", 6),
    ("fails", 2),
    ("panics", 1),
    ("hangs", 2),
    ("drops", 2),
    ("keys", 2),
    ("refuses", 1),
];

/// What the code of an author does, some of it more often.
pub fn behavior() -> &'static str {
    let all: u32 = BEHAVIORS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = draw(|random| random.u32(..all));
    for (name, weight) in BEHAVIORS {
        if drawn < weight {
            return name;
        }
        drawn -= weight;
    }
    unreachable!()
}

pub struct Author;

impl Extension for Author {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, gofer: Gofer) -> Result<Self> {
        record(format!("{}: init", gofer.name()));
        Ok(Self)
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.behavior == Behavior::Refuses {
            return Err(Error::invalid_parameter("behavior", "is refused"));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let serving = Serving::begin(&subscription);
        let outcome = serve(&subscription, &serving.key).await;
        if let Err(error) = &outcome {
            record(format!("{} #{}: failed: {error}", serving.key, serving.number));
            disturbed(Who::Subscription(serving.key.clone()));
        }
        outcome
    }
}

/// Notices if two of one subscription run at once.
struct Serving {
    key: Key,
    number: u32,
}

impl Serving {
    fn begin(subscription: &Subscription<Params>) -> Self {
        let (key, number) = (key_of(subscription), subscription.params().number);
        record(format!("{key} #{number}: serve"));
        let others = facts(|facts| {
            let serving = facts.serving.entry(key.clone()).or_default();
            serving.push(number);
            serving.len() - 1
        });
        if others > 0 {
            violated(format!("{key}: `serve` was called while {others} others were running"));
        }
        Self { key, number }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        record(format!("{} #{}: serve has ended", self.key, self.number));
        facts(|facts| {
            let serving = facts.serving.entry(self.key.clone()).or_default();
            if let Some(at) = serving.iter().position(|it| *it == self.number) {
                serving.remove(at);
            }
        });
        perhaps_crash(&self.key);
    }
}

fn key_of(subscription: &Subscription<Params>) -> Key {
    Key {
        extension: subscription.gofer().name().to_owned(),
        namespace: subscription.namespace().to_owned(),
        pipeline: subscription.pipeline().to_owned(),
        label: subscription.label().to_owned(),
    }
}

async fn serve(subscription: &Subscription<Params>, key: &Key) -> Result<()> {
    let Params { every, behavior, number } = *subscription.params();
    let mut ticks = subscription.every(every)?;
    while let Some(tick) = ticks.next().await {
        record(format!("{key} #{number}: tick {} of {}", nanos(tick), tick.count()));
        match behavior {
            Behavior::Fails if one_in(4) => return Err(Error::internal("on purpose")),
            Behavior::Panics if one_in(4) => {
                disturbed(Who::Subscription(key.clone()));
                // Without the message of the panic hook.
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            Behavior::Hangs if one_in(6) => {
                let _disturbing = disturb(Who::Subscription(key.clone()));
                let time = duration(Duration::from_secs(1), Duration::from_secs(3 * 3600));
                record(format!("{key} #{number}: hangs for {time:?}"));
                tokio::time::sleep(time).await;
            }
            Behavior::Drops if one_in(3) => {
                let patience = duration(Duration::from_millis(1), Duration::from_secs(30));
                let start = start(subscription, key, tick.run("a tick"), Cause::Tick(nanos(tick)));
                let _ = tokio::time::timeout(patience, start).await;
            }
            Behavior::Keys => {
                let chosen = format!("key {}", draw(|random| random.u32(..50)));
                for _ in 0..draw(|random| random.u32(..3)) {
                    let run = Run::because("something else").key(chosen.clone());
                    start(subscription, key, run, Cause::Key(chosen.clone())).await?;
                }
            }
            _ => {}
        }
        start(subscription, key, tick.run("a tick"), Cause::Tick(nanos(tick))).await?;
    }
    Ok(())
}

async fn start(
    subscription: &Subscription<Params>,
    key: &Key,
    run: Run,
    cause: Cause,
) -> Result<()> {
    let number = subscription.params().number;
    let at = now();
    let at = facts(|facts| {
        facts.asked.push(Asked { at, key: key.clone(), number, cause, answer: None });
        facts.asked.len() - 1
    });
    perhaps_ambush(&key.extension);
    let run = subscription.start_run(run).await.inspect_err(|error| {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) {
            violated(format!("{key}: a start was given up: {error}"));
        }
    })?;
    record(format!("{key} #{number}: run {}", run.id()));
    facts(|facts| facts.asked[at].answer = Some(run.id()));
    Ok(())
}

/// When it was scheduled, in Unix nanoseconds.
fn nanos(tick: Tick) -> i64 {
    let unix = tick.scheduled().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(unix.as_nanos()).unwrap()
}
