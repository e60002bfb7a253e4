//! The questions of a conversation and their answers. If the settings are refused in the end, the
//! conversation is held again, and a person is asked only for what was refused.

use std::collections::HashMap;

use gofer_sdk::internal::meaning;
use tonic::{Code, Status};

use super::{SettingPairs, merge};
use crate::failure::Failure;
use crate::output::note;

/// How often one question is answered, and how often settings are refused, before that is given up.
const MAX_ATTEMPTS: usize = 10;

#[derive(Default)]
pub(crate) struct Interview {
    /// The settings of flags, which are not asked for.
    given: HashMap<String, String>,
    /// The answers of an earlier conversation that are given again.
    known: Vec<(String, String)>,
    /// The last answer to each question of this conversation.
    answers: Vec<(String, String)>,
    /// How often each question was asked in this conversation.
    asked: HashMap<String, usize>,
    /// How often settings were refused.
    refusals: usize,
}

/// Asks for settings, unless all are given, and calls Gofer with them. If they are refused, asks
/// again for those that were.
pub(crate) async fn ask_until_accepted<T>(
    is_interactive: bool,
    given: &HashMap<String, String>,
    ask: impl AsyncFn(&mut Interview) -> Result<SettingPairs, Failure>,
    call: impl AsyncFn(HashMap<String, String>) -> Result<Result<T, Status>, Failure>,
) -> Result<Result<T, Status>, Failure> {
    let mut interview = Interview { given: given.clone(), ..Interview::default() };
    loop {
        let answered = if is_interactive { ask(&mut interview).await? } else { Vec::new() };
        match call(merge(answered, given)).await? {
            Err(status) if interview.has_refused(&status, given) => {
                note(&format!("Refused: {}", meaning(&status).1))?;
            }
            outcome => return Ok(outcome),
        }
    }
}

impl Interview {
    /// A conversation begins.
    pub(super) fn begin(&mut self) {
        self.asked.clear();
    }

    /// The answer to a question if it is known, and was not refused.
    pub(super) fn asked(&mut self, question: &str) -> Result<Option<String>, Failure> {
        if let Some(at) = self.known.iter().position(|(known, _)| known == question) {
            let (question, answer) = self.known.remove(at);
            self.answered(question, &answer);
            return Ok(Some(answer));
        }
        let times = self.asked.entry(question.to_owned()).or_default();
        *times += 1;
        if *times > MAX_ATTEMPTS {
            let why = format!("{MAX_ATTEMPTS} answers to one question were refused; giving up");
            return Err(Failure::new(format!("{why}, and nothing was changed")));
        }
        let Some((key, value)) = self.given.iter().find(|(key, _)| asks_for(question, key)) else {
            return Ok(None);
        };
        if *times > 1 {
            // A reference is no answer to some questions.
            note(&format!("The value of {key} from the command line will be used in any case."))?;
            return Ok(None);
        }
        note(&format!("{key} is taken from the command line."))?;
        Ok(Some(value.clone()))
    }

    pub(super) fn answered(&mut self, question: String, answer: &str) {
        self.answers.retain(|(earlier, _)| *earlier != question);
        self.answers.push((question, answer.to_owned()));
    }

    /// Whether a call refused settings that a person can be asked for again.
    fn has_refused(&mut self, status: &Status, given: &HashMap<String, String>) -> bool {
        let (code, message) = meaning(status);
        let refused = refused_keys(&message);
        let is_given = |key: &&str| given.keys().any(|it| it.eq_ignore_ascii_case(key));
        let only_given = !refused.is_empty() && refused.iter().all(is_given);
        self.refusals += 1;
        if code != Code::InvalidArgument
            || only_given
            || self.answers.is_empty()
            || self.refusals >= MAX_ATTEMPTS
        {
            return false;
        }
        self.known = std::mem::take(&mut self.answers);
        let before = self.known.len();
        self.known.retain(|(question, _)| !refused.iter().any(|key| is_about(question, key)));
        if self.known.len() == before {
            // It is not known which of them.
            self.known.clear();
        }
        true
    }
}

/// The keys in an error about settings, as the SDK writes it: ``configuration `key`: …``.
fn refused_keys(message: &str) -> Vec<&str> {
    let after = |noun| message.split(noun).skip(1).filter_map(|rest| Some(rest.split_once('`')?.0));
    after("configuration `").chain(after("parameter `")).collect()
}

/// Whether a question asks for this setting, as the SDK writes it: `key: …` or `key (…)`. Any other
/// question that names a key may be about another setting, which must not get this one's value.
fn asks_for(question: &str, key: &str) -> bool {
    let (start, rest) = question.split_at_checked(key.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(key) && (rest.starts_with(": ") || rest.starts_with(" ("))
}

/// Whether a question names a key.
fn is_about(question: &str, key: &str) -> bool {
    let is_part = |it: char| it.is_alphanumeric() || matches!(it, '_' | '-' | '.');
    question.split(|it| !is_part(it)).any(|word| word.trim_matches('.').eq_ignore_ascii_case(key))
}

#[cfg(test)]
mod tests;
