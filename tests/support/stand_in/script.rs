//! What tests decide on the outcomes of calls.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use super::{Call, Outcome};

type Decide = Box<dyn FnMut(&Call<'_>) -> Outcome + Send>;

/// What was decided for a method.
#[derive(Default)]
struct Script {
    /// For the next calls.
    next: VecDeque<Outcome>,
    /// For the others; without it, they are answered.
    decide: Option<Decide>,
}

/// By method.
#[derive(Default)]
pub(super) struct Scripts(Mutex<HashMap<String, Script>>);

impl Scripts {
    pub(super) fn decide(&self, method: &str, decide: Decide) {
        self.0.lock().unwrap().entry(method.to_owned()).or_default().decide = Some(decide);
    }

    pub(super) fn next(&self, method: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        self.0.lock().unwrap().entry(method.to_owned()).or_default().next.extend(outcomes);
    }

    pub(super) fn outcome(&self, method: &str, call: &Call<'_>) -> Outcome {
        let mut scripts = self.0.lock().unwrap();
        let Some(script) = scripts.get_mut(method) else { return Outcome::Answer };
        if let Some(outcome) = script.next.pop_front() {
            return outcome;
        }
        script.decide.as_mut().map_or(Outcome::Answer, |decide| decide(call))
    }
}
