//! The caller's side of a conversation: sends answers, reads messages.

use std::pin::Pin;

use gofer_proto::{
    ExtensionRunExtensionInstallerClientMessage as InstallerAnswer,
    ExtensionRunPipelineConfiguratorClientMessage as ConfiguratorAnswer,
    extension_run_extension_installer_extension_message as installer,
    extension_run_pipeline_configurator_extension_message as configurator,
};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{Stream, StreamExt};

use super::{Client, within};

/// A message of the extension.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Query(String),
    Setting(String, String),
}

type ResponseStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

pub struct Conversation {
    answers: Option<mpsc::Sender<String>>,
    stream: ResponseStream,
}

impl Conversation {
    pub async fn installer(client: &Client) -> Result<Self, Status> {
        let (answers, given) = mpsc::channel(16);
        let given = ReceiverStream::new(given).map(|msg| InstallerAnswer { msg });
        let stream = within(client.raw().run_extension_installer(given)).await?.into_inner();
        let stream = stream.map(|message| {
            use installer::MessageType;
            Ok(match message?.message_type.unwrap() {
                MessageType::Msg(text) => Message::Text(text),
                MessageType::Query(text) => Message::Query(text),
                MessageType::ConfigSetting(set) => Message::Setting(set.config, set.value),
            })
        });
        Ok(Self { answers: Some(answers), stream: Box::pin(stream) })
    }

    pub async fn configurator(client: &Client) -> Result<Self, Status> {
        let (answers, given) = mpsc::channel(16);
        let given = ReceiverStream::new(given).map(|msg| ConfiguratorAnswer { msg });
        let stream = within(client.raw().run_pipeline_configurator(given)).await?.into_inner();
        let stream = stream.map(|message| {
            use configurator::MessageType;
            Ok(match message?.message_type.unwrap() {
                MessageType::Msg(text) => Message::Text(text),
                MessageType::Query(text) => Message::Query(text),
                MessageType::ParamSetting(set) => Message::Setting(set.param, set.value),
            })
        });
        Ok(Self { answers: Some(answers), stream: Box::pin(stream) })
    }

    /// The next message; `None` at a clean end.
    pub async fn next(&mut self) -> Option<Result<Message, Status>> {
        within(self.stream.next()).await
    }

    /// The next message, which must be a question.
    pub async fn query(&mut self) -> String {
        match self.next().await {
            Some(Ok(Message::Query(text))) => text,
            other => panic!("not a question: {other:?}"),
        }
    }

    /// The next message, which must be a text.
    pub async fn message(&mut self) -> String {
        match self.next().await {
            Some(Ok(Message::Text(text))) => text,
            other => panic!("not a message: {other:?}"),
        }
    }

    pub async fn answer(&self, text: &str) {
        self.answers.as_ref().unwrap().send(text.to_owned()).await.unwrap();
    }

    /// Sends no more answers, but still reads.
    pub fn stop_answering(&mut self) {
        self.answers = None;
    }

    /// All remaining messages, and how it ends.
    pub async fn rest(mut self) -> (Vec<Message>, Result<(), Status>) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(message)) => messages.push(message),
                Some(Err(status)) => return (messages, Err(status)),
                None => return (messages, Ok(())),
            }
        }
    }
}
