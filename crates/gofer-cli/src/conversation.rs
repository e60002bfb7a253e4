//! A conversation with an extension on the terminal: it asks, a person answers,
//! and settings are what comes of it. Answers are lines of the standard input,
//! so that a pipe can give them too.
//!
//! What is said goes to the standard error: results alone go to the standard
//! output.

use std::io::{self, BufRead as _, Write as _};

use anstyle::{AnsiColor, Style};
use gofer_proto as proto;
use gofer_proto::run_extension_installer_client_message as installer;
use gofer_proto::run_extension_installer_extension_message::MessageType as InstallerSaid;
use gofer_proto::run_pipeline_configurator_client_message as configurator;
use gofer_proto::run_pipeline_configurator_extension_message::MessageType as ConfiguratorSaid;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::failure::Failure;
use crate::output::{note, visible};
use crate::progress::Waiting;
use crate::session::Session;

/// What was concluded, in order.
type Settings = Vec<(String, String)>;

/// The image that an installer is talked with, and its registry's login.
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) pass: String,
}

/// What an extension says, in either conversation.
enum Said {
    Message(String),
    Query(String),
    Setting(String, String),
}

/// With the installer of an image, about the extension's configuration.
pub(crate) async fn install(session: &Session, image: Image) -> Result<Settings, Failure> {
    use installer::{Init, MessageType};
    let message = |message_type| proto::RunExtensionInstallerClientMessage {
        message_type: Some(message_type),
    };
    let Image { name, user, pass } = image;
    let (answers, receiver) = mpsc::channel(1);
    let _ = answers.send(message(MessageType::Init(Init { image: name, user, pass }))).await;
    let waiting = Waiting::new("starting the extension for its questions");
    let stream = session.api().run_extension_installer(ReceiverStream::new(receiver)).await;
    drop(waiting);
    let answer = move |text| {
        let (answers, message) = (answers.clone(), message(MessageType::Msg(text)));
        async move { answers.send(message).await.is_ok() }
    };
    hold(stream?.into_inner(), answer, |said| {
        Some(match said.message_type? {
            InstallerSaid::Msg(text) => Said::Message(text),
            InstallerSaid::Query(text) => Said::Query(text),
            InstallerSaid::ConfigSetting(it) => Said::Setting(it.config, it.value),
        })
    })
    .await
}

/// With an installed extension, about the parameters of a subscription.
pub(crate) async fn subscribe(session: &Session, extension: &str) -> Result<Settings, Failure> {
    use configurator::{Init, MessageType};
    let message = |message_type| proto::RunPipelineConfiguratorClientMessage {
        message_type: Some(message_type),
    };
    let (answers, receiver) = mpsc::channel(1);
    let _ = answers.send(message(MessageType::Init(Init { name: extension.to_owned() }))).await;
    let stream = session.api().run_pipeline_configurator(ReceiverStream::new(receiver)).await?;
    let answer = move |text| {
        let (answers, message) = (answers.clone(), message(MessageType::Msg(text)));
        async move { answers.send(message).await.is_ok() }
    };
    hold(stream.into_inner(), answer, |said| {
        Some(match said.message_type? {
            ConfiguratorSaid::Msg(text) => Said::Message(text),
            ConfiguratorSaid::Query(text) => Said::Query(text),
            ConfiguratorSaid::ParamSetting(it) => Said::Setting(it.param, it.value),
        })
    })
    .await
}

/// Listens and answers to the end.
async fn hold<M, Sent>(
    mut messages: Streaming<M>,
    answer: impl Fn(String) -> Sent,
    meaning: impl Fn(M) -> Option<Said>,
) -> Result<Settings, Failure>
where
    Sent: Future<Output = bool>,
{
    let mut settings = Vec::new();
    let mut input: Option<Input> = None;
    loop {
        let message = match &mut input {
            None => messages.message().await?,
            // Who is asked may be told something meanwhile: that it is over.
            Some(line) => tokio::select! {
                message = messages.message() => message?,
                line = line => {
                    input = None;
                    match line.map_err(io::Error::other)?? {
                        // Whether it still listens, its next message tells.
                        Some(line) => drop(answer(line).await),
                        None => return Err(unanswered()),
                    }
                    continue;
                }
            },
        };
        match message.map(&meaning) {
            None if input.is_some() => return Err(Failure::new("the extension hung up")),
            None => break,
            Some(Some(Said::Message(text))) => note_each_line(&text)?,
            Some(Some(Said::Query(text))) => {
                prompt(&text)?;
                // One line at a time is read, and one question is open.
                if input.is_none() {
                    input = Some(tokio::task::spawn_blocking(read_line));
                }
            }
            Some(Some(Said::Setting(key, value))) => settings.push((key, value)),
            // It said what a later version of the contract knows.
            Some(None) => {}
        }
    }
    conclude(&settings)?;
    Ok(settings)
}

type Input = JoinHandle<io::Result<Option<String>>>;

/// One line; `None` at the end of the input.
fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line)?;
    Ok((length > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn unanswered() -> Failure {
    Failure::new("the conversation ended before it was complete; nothing was changed")
        .hint("answers are lines of the standard input, one for each question")
}

fn note_each_line(text: &str) -> io::Result<()> {
    text.lines().try_for_each(note)
}

fn prompt(question: &str) -> io::Result<()> {
    let bold = Style::new().bold();
    let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
    let mut out = anstream::stderr().lock();
    for line in question.lines() {
        writeln!(out, "{bold}{}{bold:#}", visible(line))?;
    }
    write!(out, "{green}>{green:#} ")?;
    // Where nobody types, nobody ends the line either.
    if !io::IsTerminal::is_terminal(&io::stdin()) {
        writeln!(out)?;
    }
    out.flush()
}

fn conclude(settings: &[(String, String)]) -> io::Result<()> {
    for (key, value) in settings {
        note(&format!("{key} = {value}"))?;
    }
    if settings.is_empty() {
        note("Nothing needs to be set.")?;
    }
    Ok(())
}
