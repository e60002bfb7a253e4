//! A conversation with an extension on the terminal: it asks, a person answers, and the result is
//! settings. Answers are lines of standard input, so that they can be piped in too. Questions and
//! messages go to standard error.

mod end;
mod interview;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use gofer_proto as proto;
use gofer_proto::extension::ExtensionStatus;
use gofer_proto::run_extension_installer_extension_message::MessageType as InstallerMessage;
use gofer_proto::run_pipeline_configurator_extension_message::MessageType as ConfiguratorMessage;
use gofer_proto::{
    run_extension_installer_client_message as installer,
    run_pipeline_configurator_client_message as configurator,
};
use gofer_sdk::internal::is_secret_question;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use crate::failure::Failure;
use crate::output::{note, visible};
use crate::progress::Spinner;
use crate::session::{READY_WITHIN, Session};
use crate::terminal::{Hidden, read_line};
use end::is_normal;
pub(crate) use interview::{Interview, ask_until_accepted};

/// How many questions an extension may ask while one is open.
const MAX_OPEN: usize = 16;

/// The resulting settings, in order.
pub(crate) type SettingPairs = Vec<(String, String)>;

/// The image whose installer asks, and the credentials for its registry.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) pass: String,
}

/// A message of an extension, in either conversation.
enum ExtensionMessage {
    Message(String),
    Query(String),
    Setting(String, String),
}

/// Runs the installer of an image, which asks for the extension's configuration.
pub(crate) async fn install(
    session: &Session,
    image: Image,
    interview: &mut Interview,
) -> Result<SettingPairs, Failure> {
    use installer::{Init, MessageType};
    let message = |message_type| proto::RunExtensionInstallerClientMessage {
        message_type: Some(message_type),
    };
    let shown = image.name.clone();
    let Image { name, user, pass } = image;
    let (answers, receiver) = mpsc::channel(1);
    let _ = answers.send(message(MessageType::Init(Init { image: name, user, pass }))).await;
    let spinner = Spinner::new("starting the extension, which asks for its configuration");
    let mut api = session.api();
    let opening = first(api.run_extension_installer(ReceiverStream::new(receiver)));
    let if_silent = format!(
        "is `{shown}` an extension? If Gofer was still pulling it, try again; without -i it is \
         installed without asking"
    );
    let opened = in_time(session, opening, if_silent).await;
    drop(spinner);
    let answer = move |text| {
        let (answers, message) = (answers.clone(), message(MessageType::Msg(text)));
        async move {
            let _ = answers.send(message).await;
        }
    };
    converse(opened?, answer, interview, |message| {
        Some(match message.message_type? {
            InstallerMessage::Msg(text) => ExtensionMessage::Message(text),
            InstallerMessage::Query(text) => ExtensionMessage::Query(text),
            InstallerMessage::ConfigSetting(it) => ExtensionMessage::Setting(it.config, it.value),
        })
    })
    .await
}

/// What opens a conversation. A full Gofer would wait for good for an extension that sends nothing;
/// an embedded core has its own timeouts.
async fn in_time<T>(
    session: &Session,
    opening: impl Future<Output = Result<T, Status>>,
    hint_if_silent: String,
) -> Result<T, Failure> {
    if session.is_full_gofer().await {
        limited(opening, hint_if_silent).await
    } else {
        Ok(opening.await?)
    }
}

async fn limited<T>(
    opening: impl Future<Output = Result<T, Status>>,
    hint_if_silent: String,
) -> Result<T, Failure> {
    let Ok(opened) = tokio::time::timeout(READY_WITHIN, opening).await else {
        let minutes = READY_WITHIN.as_secs() / 60;
        let why = format!("the extension said nothing for {minutes} minutes");
        return Err(Failure::unavailable(why).hint(hint_if_silent));
    };
    Ok(opened?)
}

/// Runs the configurator of an installed extension, which asks for parameters.
pub(crate) async fn subscribe(
    session: &Session,
    extension: &str,
    interview: &mut Interview,
) -> Result<SettingPairs, Failure> {
    use configurator::{Init, MessageType};
    check_is_enabled(session, extension).await?;
    let message = |message_type| proto::RunPipelineConfiguratorClientMessage {
        message_type: Some(message_type),
    };
    let (answers, receiver) = mpsc::channel(1);
    let _ = answers.send(message(MessageType::Init(Init { name: extension.to_owned() }))).await;
    let mut api = session.api();
    let opening = first(api.run_pipeline_configurator(ReceiverStream::new(receiver)));
    let if_silent = format!("`gofer extension get {extension}` shows whether it is running");
    let opened = in_time(session, opening, if_silent).await?;
    let answer = move |text| {
        let (answers, message) = (answers.clone(), message(MessageType::Msg(text)));
        async move {
            let _ = answers.send(message).await;
        }
    };
    converse(opened, answer, interview, |message| {
        Some(match message.message_type? {
            ConfiguratorMessage::Msg(text) => ExtensionMessage::Message(text),
            ConfiguratorMessage::Query(text) => ExtensionMessage::Query(text),
            ConfiguratorMessage::ParamSetting(it) => ExtensionMessage::Setting(it.param, it.value),
        })
    })
    .await
}

/// A full Gofer would try to talk to it.
async fn check_is_enabled(session: &Session, extension: &str) -> Result<(), Failure> {
    let request = proto::GetExtensionRequest { name: extension.to_owned() };
    let status = match session.api().get_extension(request).await {
        Ok(answer) => answer.into_inner().extension.unwrap_or_default().status(),
        Err(status) => {
            let failure = Failure::from(status);
            return if failure.code() == Some(Code::NotFound) { Err(failure) } else { Ok(()) };
        }
    };
    if status == ExtensionStatus::Disabled {
        let why = format!("the extension `{extension}` is disabled, so it cannot ask");
        return Err(Failure::state(why)
            .hint(format!("`gofer extension enable {extension}` starts it again")));
    }
    Ok(())
}

/// A conversation that was opened, and the first message of the extension.
struct Opened<M> {
    first: Option<M>,
    /// `None` if it has ended.
    rest: Option<Streaming<M>>,
}

/// Waits until the extension says something. A Go server sends nothing before that.
async fn first<M>(
    opening: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
) -> Result<Opened<M>, Status> {
    let opened = async {
        let mut messages = opening.await?.into_inner();
        let first = messages.message().await?;
        Ok(Opened { first, rest: Some(messages) })
    };
    match opened.await {
        Err(status) if is_normal(&status) => Ok(Opened { first: None, rest: None }),
        opened => opened,
    }
}

impl<M> Opened<M> {
    /// The next message; `None` at the end.
    async fn next(&mut self, is_asked: bool) -> Result<Option<M>, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(messages) = &mut self.rest else { return Ok(None) };
        match messages.message().await {
            Err(status) if is_normal(&status) && !is_asked => Ok(None),
            Err(status) if is_normal(&status) => Err(ended()),
            Ok(None) if is_asked => Err(ended()),
            message => Ok(message?),
        }
    }
}

fn ended() -> Failure {
    Failure::new("the extension ended the conversation without waiting for the answer")
}

/// Handles messages and answers questions until the extension is done.
async fn converse<M, Sent>(
    mut messages: Opened<M>,
    answer: impl Fn(String) -> Sent,
    interview: &mut Interview,
    meaning: impl Fn(M) -> Option<ExtensionMessage>,
) -> Result<SettingPairs, Failure>
where
    Sent: Future<Output = ()>,
{
    let mut settings = Vec::new();
    let mut open: Option<Question> = None;
    // Questions that the extension asked without waiting for the answer to that one.
    let mut later = VecDeque::new();
    interview.begin();
    loop {
        let message = match &mut open {
            None => messages.next(false).await?,
            // The extension may send messages, or end, while a question is open.
            Some(question) => tokio::select! {
                message = messages.next(true) => message?,
                line = &mut question.line => {
                    let asked = open.take().map(|it| it.text).unwrap_or_default();
                    match line.map_err(io::Error::other)?? {
                        Some(line) => {
                            interview.answered(asked, &line);
                            // If the stream has ended, the next message reports it.
                            answer(line).await;
                        }
                        None => return Err(unanswered()),
                    }
                    if let Some(text) = later.pop_front() {
                        open = Some(Question::ask(text)?);
                    }
                    continue;
                }
            },
        };
        match message.map(&meaning) {
            None => break,
            Some(Some(ExtensionMessage::Message(text))) => note_each_line(&text)?,
            Some(Some(ExtensionMessage::Query(text))) => {
                if open.is_some() {
                    later.push_back(text);
                    if later.len() > MAX_OPEN {
                        return Err(Failure::new("the extension does not wait for answers"));
                    }
                } else if let Some(known) = interview.asked(&text)? {
                    answer(known).await;
                } else {
                    open = Some(Question::ask(text)?);
                }
            }
            Some(Some(ExtensionMessage::Setting(key, value))) => settings.push((key, value)),
            // A message of a later version of the contract.
            Some(None) => {}
        }
    }
    print_settings(&settings)?;
    Ok(settings)
}

/// A question that waits for its answer.
struct Question {
    text: String,
    line: JoinHandle<io::Result<Option<String>>>,
    /// Until it is answered, also if it never is.
    _hidden: Option<Hidden>,
}

impl Question {
    fn ask(text: String) -> io::Result<Self> {
        let hidden = if is_secret_question(&text) { Hidden::new()? } else { None };
        prompt(&text, hidden.is_some())?;
        Ok(Self { text, line: tokio::task::spawn_blocking(read_line), _hidden: hidden })
    }
}

fn unanswered() -> Failure {
    Failure::new("standard input ended before all questions were answered; nothing was changed")
        .hint("give one line of standard input for each question")
}

fn note_each_line(text: &str) -> io::Result<()> {
    text.lines().try_for_each(note)
}

fn prompt(question: &str, is_hidden: bool) -> io::Result<()> {
    let bold = Style::new().bold();
    let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
    let mut out = anstream::stderr().lock();
    for line in question.lines() {
        writeln!(out, "{bold}{}{bold:#}", visible(line))?;
    }
    let hidden = if is_hidden { " (not shown)" } else { "" };
    write!(out, "{green}>{green:#}{hidden} ")?;
    // Without a terminal, no Enter ends the line.
    if !io::IsTerminal::is_terminal(&io::stdin()) {
        writeln!(out)?;
    }
    out.flush()
}

fn print_settings(settings: &[(String, String)]) -> io::Result<()> {
    // Without the values, which may be secret.
    for (key, _) in settings {
        note(&format!("{key} is set"))?;
    }
    if settings.is_empty() {
        note("There are no settings.")?;
    }
    Ok(())
}

/// The settings from a conversation and those from flags, which win.
pub(crate) fn merge(
    answered: SettingPairs,
    given: &HashMap<String, String>,
) -> HashMap<String, String> {
    let mut map: HashMap<_, _> = answered
        .into_iter()
        .filter(|(key, _)| !given.keys().any(|it| it.eq_ignore_ascii_case(key)))
        .collect();
    map.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    map
}

#[cfg(test)]
mod tests;
