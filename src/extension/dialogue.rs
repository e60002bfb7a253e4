//! The two conversations: with the administrator who installs the extension and with the owner of a
//! pipeline who subscribes it.
//!
//! A standard conversation always ends: it gives up after [`MAX_REFUSED`] refused answers to one
//! question, and if the answers end before the questions do. It never repeats an answer.
//!
//! A [`Dialogue`] uses plain values; `server::conversation` carries them over the wire and drops
//! the author's future when the caller goes away.

use std::fmt;

use async_trait::async_trait;
use gofer_net::BoxFuture;
use tokio::sync::mpsc;

use super::declared::Declared;
use super::describe::kind::joined;
use super::describe::{Field, Fields, prompt, secret_question};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Problem, Result};

/// A message of the extension in a conversation.
#[derive(Debug)]
pub(crate) enum DialogueMessage {
    /// Text to read.
    Say(String),
    /// A question; exactly one answer follows.
    Ask(String),
    /// A setting, as the outcome.
    Set { key: String, value: String },
}

/// The source of answers; `None` once the caller has ended the conversation.
#[async_trait]
pub(crate) trait AnswerSource: Send {
    async fn next(&mut self) -> Option<String>;
}

/// Checks all answers together, if the extension is initialized.
pub(crate) type Check = Box<dyn Fn(&Settings) -> Result<()> + Send + Sync>;

/// One conversation: show text, ask questions, set settings.
///
/// [`Extension::install`](crate::Extension::install) and
/// [`Extension::configure`](crate::Extension::configure) get one; their defaults are
/// [`ask_for`](Self::ask_for) and nothing else.
///
/// ```
/// use gofer_sdk::{Dialogue, Result};
///
/// async fn install(dialogue: &mut Dialogue) -> Result<()> {
///     dialogue.say("The token is made under Settings, Developers.").await?;
///     let token = dialogue.ask_secret("token: The token for the chat.").await?;
///     dialogue.set("token", token).await
/// }
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # async fn of<E: gofer_sdk::Extension>(
/// #     core: &gofer_core::Core,
/// #     _: std::marker::PhantomData<E>,
/// # ) -> Result<String> {
/// #     Ok(core.converse_with_installer::<E>(["6b8f"]).await?.settings["token"].clone())
/// # }
/// # let (core, _, extension) = documented!(install: install);
/// # assert_eq!(of(&core, extension).await?, "6b8f");
/// # Ok(()) }
/// ```
pub struct Dialogue {
    out: mpsc::Sender<DialogueMessage>,
    answers: Box<dyn AnswerSource>,
    /// Questions whose answer has not been read: more than one if an author gave up waiting.
    unanswered: usize,
    check: Option<Check>,
}

impl Dialogue {
    pub(crate) fn new(
        out: mpsc::Sender<DialogueMessage>,
        answers: Box<dyn AnswerSource>,
        check: Option<Check>,
    ) -> Self {
        Self { out, answers, unanswered: 0, check }
    }

    /// Shows the caller a text.
    ///
    /// If the future is dropped, the text has either been sent or not.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](ErrorKind::Cancelled) if the caller has ended the conversation; pass it on
    /// with `?` to end it cleanly.
    pub async fn say(&mut self, message: impl Into<String>) -> Result<()> {
        self.send(DialogueMessage::Say(message.into())).await
    }

    /// Asks a question, waits for the answer, and returns the answer, trimmed.
    ///
    /// If the future is dropped, the question may have been sent; its answer is then skipped.
    ///
    /// # Errors
    ///
    /// As for [`say`](Self::say), and [`FailedPrecondition`](ErrorKind::FailedPrecondition) if no
    /// answer will come, because the caller's input has ended. Pass it on with `?`, so that the
    /// caller learns that the conversation came to nothing.
    pub async fn ask(&mut self, question: impl Into<String>) -> Result<String> {
        self.send(DialogueMessage::Ask(question.into())).await?;
        self.unanswered += 1;
        loop {
            let answer = self.answers.next().await.ok_or_else(no_more_answers)?;
            self.unanswered -= 1;
            if self.unanswered == 0 {
                return Ok(answer.trim().to_owned());
            }
        }
    }

    /// Asks a question whose answer is a secret.
    ///
    /// As [`ask`](Self::ask), but the question ends in "(secret)", by which a command line knows
    /// that it should not show what is typed, nor the setting that it becomes.
    ///
    /// # Errors
    ///
    /// As for [`ask`](Self::ask).
    pub async fn ask_secret(&mut self, question: impl AsRef<str>) -> Result<String> {
        self.ask(secret_question(question.as_ref())).await
    }

    /// Sets one setting: the name and the value to be stored.
    ///
    /// If the future is dropped, the setting has either been sent or not.
    ///
    /// # Errors
    ///
    /// As for [`say`](Self::say).
    pub async fn set(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<()> {
        self.send(DialogueMessage::Set { key: key.into(), value: value.into() }).await
    }

    /// Asks for every field of a struct of settings, in the order of its declaration, and sets
    /// those that were answered.
    ///
    /// The question is the field's doc comment with its type and default; an empty answer means the
    /// default. For an answer that does not decode, or that
    /// [`validate`](crate::Extension::validate) does not accept, the reason is shown and the
    /// question asked again, up to ten times. If only a part of an optional group of settings was
    /// answered, all of it is asked again, so that it can be left out. A question about a
    /// [secret](Declared#secrets) ends in "secret)", by which a command line knows that it should
    /// not show the answer.
    ///
    /// If the future is dropped, some of the questions have been asked, and some of the settings
    /// may have been set.
    ///
    /// # Errors
    ///
    /// As for [`ask`](Self::ask); [`FailedPrecondition`](ErrorKind::FailedPrecondition) once ten
    /// answers to one question have been refused; and
    /// [`InvalidParameter`](ErrorKind::InvalidParameter) if `validate` refuses a setting that no
    /// question is about. Nothing has been set then.
    pub async fn ask_for<T: Declared>(&mut self) -> Result<()> {
        let decode = |settings: &_, declared: &_| T::decode(settings, declared).map(drop);
        self.ask_all(Questions { declared: T::fields(), check: T::check, decode }).await
    }

    fn ask_all(&mut self, questions: Questions) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ask_questions(questions))
    }

    async fn ask_questions(&mut self, questions: Questions) -> Result<()> {
        let declared = &questions.declared;
        let mut answers: Vec<Option<String>> = vec![None; declared.len()];
        let mut open: Vec<bool> = vec![true; declared.len()];
        let mut refused: Vec<usize> = vec![0; declared.len()];
        loop {
            for (n, field) in declared.iter().enumerate() {
                if open[n] {
                    answers[n] = self.ask_field(&questions, field, &mut refused[n]).await?;
                }
            }
            let given =
                || given(declared, &answers).map(|(field, answer)| (field.name.as_str(), answer));
            let Err(problems) = self.check_all(&questions, &Settings::new(given())) else {
                for (key, value) in given() {
                    self.set(key, value).await?;
                }
                return Ok(());
            };
            for problem in &problems {
                self.say(sentence(problem)).await?;
            }
            for (field, open) in declared.iter().zip(&mut open) {
                *open = problems.iter().any(|problem| {
                    problem.key.as_ref().is_none_or(|key| key.eq_ignore_ascii_case(&field.name))
                });
            }
            if !open.contains(&true) {
                // There is no question to ask again.
                return Err(Error::invalid(ErrorKind::InvalidParameter, problems));
            }
            for (n, field) in declared.iter().enumerate().filter(|(n, _)| open[*n]) {
                count_refused(&mut refused[n], field)?;
            }
            let demanding = self.demanding(&questions, &answers, &open);
            if !demanding.is_empty() {
                let names: Vec<_> = demanding.iter().map(|n| declared[*n].name.as_str()).collect();
                self.say(format!("or leave {} empty too", joined(&names, "and"))).await?;
            }
            for n in demanding {
                open[n] = true;
            }
        }
    }

    /// The answered questions that need not be answered, but because of which another one that is
    /// `open` must be: those of an optional group of settings.
    fn demanding(
        &self,
        questions: &Questions,
        answers: &[Option<String>],
        open: &[bool],
    ) -> Vec<usize> {
        let declared = &questions.declared;
        let may_be_empty = |n: &usize| !declared[*n].required;
        let all = || (0..declared.len()).filter(may_be_empty);
        let missing: Vec<_> = all()
            .filter(|n| open[*n] && answers[*n].is_none())
            .map(|n| declared[n].name.as_str())
            .collect();
        let is_missing_with = |n: Option<usize>| {
            let name = n.map(|n| declared[n].name.as_str());
            let alone = given(declared, answers)
                .filter(|(field, _)| field.required || name == Some(field.name.as_str()))
                .map(|(field, answer)| (field.name.as_str(), answer));
            let problems = self.check_all(questions, &Settings::new(alone)).err();
            let mut keys = problems.iter().flatten().filter_map(|problem| problem.key.as_deref());
            keys.any(|key| missing.contains(&key))
        };
        if missing.is_empty() || is_missing_with(None) {
            return Vec::new();
        }
        all().filter(|n| !open[*n] && answers[*n].is_some() && is_missing_with(Some(*n))).collect()
    }

    /// Asks for one field until its answer decodes; `None` means the default.
    async fn ask_field(
        &mut self,
        questions: &Questions,
        field: &Field,
        refused: &mut usize,
    ) -> Result<Option<String>> {
        loop {
            let answer = self.ask(prompt(field)).await?;
            let refusal = if answer.is_empty() {
                if !field.required {
                    return Ok(None);
                }
                "is required".to_owned()
            } else {
                match (questions.check)(&field.name, &answer, &questions.declared) {
                    Ok(()) => return Ok(Some(answer)),
                    Err(message) => message,
                }
            };
            self.say(format!("`{}`: {refusal}", field.name)).await?;
            count_refused(refused, field)?;
        }
    }

    fn check_all(&self, questions: &Questions, settings: &Settings) -> Result<(), Vec<Problem>> {
        (questions.decode)(settings, &questions.declared)?;
        let Some(Err(error)) = self.check.as_ref().map(|check| check(settings)) else {
            return Ok(());
        };
        if error.problems().is_empty() {
            return Err(vec![Problem::general(error.to_string())]);
        }
        Err(error.problems().to_vec())
    }

    async fn send(&mut self, message: DialogueMessage) -> Result<()> {
        self.out.send(message).await.map_err(|_| conversation_ended())
    }
}

/// What [`Dialogue::ask_for`] asks for. Functions instead of the type, so that the conversation is
/// compiled once instead of for each type.
struct Questions {
    declared: Fields,
    check: fn(&str, &str, &Fields) -> Result<(), String>,
    decode: fn(&Settings, &Fields) -> Result<(), Vec<Problem>>,
}

/// The questions that were answered, with their answers.
fn given<'a>(
    declared: &'a Fields,
    answers: &'a [Option<String>],
) -> impl Iterator<Item = (&'a Field, &'a str)> {
    declared.iter().zip(answers).filter_map(|(field, answer)| Some((field, answer.as_deref()?)))
}

fn conversation_ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the caller ended the conversation")
}

fn no_more_answers() -> Error {
    let message = "the answers ended before the last question was answered; nothing was set";
    Error::new(ErrorKind::FailedPrecondition, message)
}

/// How many answers to one question are refused before a conversation ends: a person has given up by
/// then, and a program would go on for good.
const MAX_REFUSED: usize = 10;

fn count_refused(refused: &mut usize, field: &Field) -> Result<()> {
    *refused += 1;
    if *refused < MAX_REFUSED {
        return Ok(());
    }
    let message = format!(
        "gave up after {MAX_REFUSED} refused answers for `{}`; nothing was set",
        field.name
    );
    Err(Error::new(ErrorKind::FailedPrecondition, message))
}

fn sentence(problem: &Problem) -> String {
    match &problem.key {
        Some(key) => format!("`{key}`: {}", problem.message),
        None => problem.message.clone(),
    }
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").finish_non_exhaustive()
    }
}
