//! A conversation with an extension on the terminal: it asks, a person answers, and the result is
//! settings. Answers are lines of standard input, so that they can be piped in too. Questions and
//! messages go to standard error.

use std::io::{self, BufRead as _, Write as _};

use anstyle::{AnsiColor, Style};
use gofer_proto as proto;
use gofer_proto::run_extension_installer_extension_message::MessageType as InstallerMessage;
use gofer_proto::run_pipeline_configurator_extension_message::MessageType as ConfiguratorMessage;
use gofer_proto::{
    run_extension_installer_client_message as installer,
    run_pipeline_configurator_client_message as configurator,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::failure::Failure;
use crate::output::{note, visible};
use crate::progress::Spinner;
use crate::session::Session;

/// The resulting settings, in order.
type SettingPairs = Vec<(String, String)>;

/// The image whose installer asks, and the credentials for its registry.
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
pub(crate) async fn install(session: &Session, image: Image) -> Result<SettingPairs, Failure> {
    use installer::{Init, MessageType};
    let message = |message_type| proto::RunExtensionInstallerClientMessage {
        message_type: Some(message_type),
    };
    let Image { name, user, pass } = image;
    let (answers, receiver) = mpsc::channel(1);
    let _ = answers.send(message(MessageType::Init(Init { image: name, user, pass }))).await;
    let spinner = Spinner::new("starting the extension, which asks for its configuration");
    let stream = session.api().run_extension_installer(ReceiverStream::new(receiver)).await;
    drop(spinner);
    let answer = move |text| {
        let (answers, message) = (answers.clone(), message(MessageType::Msg(text)));
        async move { answers.send(message).await.is_ok() }
    };
    converse(stream?.into_inner(), answer, |message| {
        Some(match message.message_type? {
            InstallerMessage::Msg(text) => ExtensionMessage::Message(text),
            InstallerMessage::Query(text) => ExtensionMessage::Query(text),
            InstallerMessage::ConfigSetting(it) => ExtensionMessage::Setting(it.config, it.value),
        })
    })
    .await
}

/// Runs the configurator of an installed extension, which asks for parameters.
pub(crate) async fn subscribe(session: &Session, extension: &str) -> Result<SettingPairs, Failure> {
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
    converse(stream.into_inner(), answer, |message| {
        Some(match message.message_type? {
            ConfiguratorMessage::Msg(text) => ExtensionMessage::Message(text),
            ConfiguratorMessage::Query(text) => ExtensionMessage::Query(text),
            ConfiguratorMessage::ParamSetting(it) => ExtensionMessage::Setting(it.param, it.value),
        })
    })
    .await
}

/// Handles messages and answers questions until the extension is done.
async fn converse<M, Sent>(
    mut messages: Streaming<M>,
    answer: impl Fn(String) -> Sent,
    meaning: impl Fn(M) -> Option<ExtensionMessage>,
) -> Result<SettingPairs, Failure>
where
    Sent: Future<Output = bool>,
{
    let mut settings = Vec::new();
    let mut input: Option<Input> = None;
    loop {
        let message = match &mut input {
            None => messages.message().await?,
            // The extension may send messages, or end, while a question is open.
            Some(line) => tokio::select! {
                message = messages.message() => message?,
                line = line => {
                    input = None;
                    match line.map_err(io::Error::other)?? {
                        // If the stream has ended, the next message reports it.
                        Some(line) => drop(answer(line).await),
                        None => return Err(unanswered()),
                    }
                    continue;
                }
            },
        };
        match message.map(&meaning) {
            None if input.is_some() => {
                return Err(Failure::new("the extension ended the conversation"));
            }
            None => break,
            Some(Some(ExtensionMessage::Message(text))) => note_each_line(&text)?,
            Some(Some(ExtensionMessage::Query(text))) => {
                prompt(&text)?;
                // One line at a time is read, and one question is open.
                if input.is_none() {
                    input = Some(tokio::task::spawn_blocking(read_line));
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

type Input = JoinHandle<io::Result<Option<String>>>;

/// One line; `None` at the end of the input.
fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line)?;
    Ok((length > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn unanswered() -> Failure {
    Failure::new("standard input ended before all questions were answered; nothing was changed")
        .hint("give one line of standard input for each question")
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
