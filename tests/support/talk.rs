//! The caller's side of a conversation: answers in, what was said out.

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

/// One thing that the extension said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Message(String),
    Query(String),
    Setting(String, String),
}

type Speech = Pin<Box<dyn Stream<Item = Result<Heard, Status>> + Send>>;

pub struct Talk {
    answers: Option<mpsc::Sender<String>>,
    speech: Speech,
}

impl Talk {
    pub async fn installer(client: &Client) -> Result<Self, Status> {
        let (answers, given) = mpsc::channel(16);
        let given = ReceiverStream::new(given).map(|msg| InstallerAnswer { msg });
        let speech = within(client.raw().run_extension_installer(given)).await?.into_inner();
        let speech = speech.map(|message| {
            use installer::MessageType;
            Ok(match message?.message_type.unwrap() {
                MessageType::Msg(text) => Heard::Message(text),
                MessageType::Query(text) => Heard::Query(text),
                MessageType::ConfigSetting(set) => Heard::Setting(set.config, set.value),
            })
        });
        Ok(Self { answers: Some(answers), speech: Box::pin(speech) })
    }

    pub async fn configurator(client: &Client) -> Result<Self, Status> {
        let (answers, given) = mpsc::channel(16);
        let given = ReceiverStream::new(given).map(|msg| ConfiguratorAnswer { msg });
        let speech = within(client.raw().run_pipeline_configurator(given)).await?.into_inner();
        let speech = speech.map(|message| {
            use configurator::MessageType;
            Ok(match message?.message_type.unwrap() {
                MessageType::Msg(text) => Heard::Message(text),
                MessageType::Query(text) => Heard::Query(text),
                MessageType::ParamSetting(set) => Heard::Setting(set.param, set.value),
            })
        });
        Ok(Self { answers: Some(answers), speech: Box::pin(speech) })
    }

    /// What is said next; `None` at a clean end.
    pub async fn next(&mut self) -> Option<Result<Heard, Status>> {
        within(self.speech.next()).await
    }

    /// The question that comes next.
    pub async fn query(&mut self) -> String {
        match self.next().await {
            Some(Ok(Heard::Query(text))) => text,
            other => panic!("not a question: {other:?}"),
        }
    }

    /// What is shown next.
    pub async fn message(&mut self) -> String {
        match self.next().await {
            Some(Ok(Heard::Message(text))) => text,
            other => panic!("not a message: {other:?}"),
        }
    }

    pub async fn answer(&self, text: &str) {
        self.answers.as_ref().unwrap().send(text.to_owned()).await.unwrap();
    }

    /// Answers no more; still listens.
    pub fn hang_up(&mut self) {
        self.answers = None;
    }

    /// All that is still said, and how it ends.
    pub async fn rest(mut self) -> (Vec<Heard>, Result<(), Status>) {
        let mut heard = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(said)) => heard.push(said),
                Some(Err(status)) => return (heard, Err(status)),
                None => return (heard, Ok(())),
            }
        }
    }
}
