//! The two conversations, carried between a caller of the core and an
//! extension.

use std::collections::BTreeMap;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::extensions::{Extensions, Installer};
use gofer_proto as proto;
use gofer_sdk::internal::error;

/// Messages of the extension's that the caller has not read yet; more wait.
const UNREAD: usize = 16;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Extensions {
    /// Starts an extension's image for one conversation and stops it after.
    pub(super) async fn installer(
        &self,
        init: proto::run_extension_installer_client_message::Init,
        answers: mpsc::Receiver<String>,
    ) -> Result<Messages<proto::RunExtensionInstallerExtensionMessage>, Status> {
        let installer = self.start_for_installer(init).await?;
        let answers = ReceiverStream::new(answers)
            .map(|msg| proto::ExtensionRunExtensionInstallerClientMessage { msg });
        match installer.client().run_extension_installer(answers).await {
            Ok(response) => {
                let stopping = self.stopping.clone();
                let messages = response.into_inner();
                Ok(forward(messages, stopping, Some(installer), installer_message))
            }
            Err(status) => {
                installer.stop().await;
                Err(status)
            }
        }
    }

    /// Talks with an installed extension about a subscription.
    pub(super) async fn configurator(
        &self,
        name: &str,
        answers: mpsc::Receiver<String>,
    ) -> Result<Messages<proto::RunPipelineConfiguratorExtensionMessage>, Status> {
        let answers = ReceiverStream::new(answers)
            .map(|msg| proto::ExtensionRunPipelineConfiguratorClientMessage { msg });
        let response = self.running_client(name)?.run_pipeline_configurator(answers).await?;
        let stopping = self.stopping.clone();
        Ok(forward(response.into_inner(), stopping, None, configurator_message))
    }
}

/// Forwards until either side ends or the core stops, then stops what was started for it.
fn forward<From, To>(
    mut messages: Streaming<From>,
    stopping: CancellationToken,
    installer: Option<Installer>,
    convert: fn(From) -> To,
) -> Messages<To>
where
    From: Send + 'static,
    To: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = sender.closed() => break,
                () = stopping.cancelled() => break,
            };
            let (message, last) = match message {
                Ok(Some(message)) => (Ok(convert(message)), false),
                Ok(None) => break,
                Err(status) => (Err(status), true),
            };
            // A caller may have stopped reading.
            let sent = stopping.run_until_cancelled(sender.send(message)).await;
            if !matches!(sent, Some(Ok(()))) || last {
                break;
            }
        }
        // Hung up before the extension is stopped, so that it does not wait
        // for an answer that will not come.
        drop(messages);
        drop(sender);
        if let Some(installer) = installer {
            installer.stop().await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

fn installer_message(
    message: proto::ExtensionRunExtensionInstallerExtensionMessage,
) -> proto::RunExtensionInstallerExtensionMessage {
    use proto::extension_run_extension_installer_extension_message::MessageType as Said;
    use proto::run_extension_installer_extension_message::{ConfigSetting, MessageType};
    proto::RunExtensionInstallerExtensionMessage {
        message_type: message.message_type.map(|said| match said {
            Said::Msg(text) => MessageType::Msg(text),
            Said::Query(text) => MessageType::Query(text),
            Said::ConfigSetting(it) => {
                MessageType::ConfigSetting(ConfigSetting { config: it.config, value: it.value })
            }
        }),
    }
}

fn configurator_message(
    message: proto::ExtensionRunPipelineConfiguratorExtensionMessage,
) -> proto::RunPipelineConfiguratorExtensionMessage {
    use proto::extension_run_pipeline_configurator_extension_message::MessageType as Said;
    use proto::run_pipeline_configurator_extension_message::{MessageType, ParamSetting};
    proto::RunPipelineConfiguratorExtensionMessage {
        message_type: message.message_type.map(|said| match said {
            Said::Msg(text) => MessageType::Msg(text),
            Said::Query(text) => MessageType::Query(text),
            Said::ParamSetting(it) => {
                MessageType::ParamSetting(ParamSetting { param: it.param, value: it.value })
            }
        }),
    }
}

/// What was said in a conversation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Conversation {
    /// What the extension showed.
    pub said: Vec<String>,
    /// What it asked, in order.
    pub asked: Vec<String>,
    /// What it concluded.
    pub settings: BTreeMap<String, String>,
    /// The extension came to an end by itself; false where it asked once more
    /// than there were answers.
    pub is_complete: bool,
}

/// One message of an extension's, of either conversation.
pub(super) enum Heard {
    Said(String),
    Asked(String),
    Set(String, String),
}

impl Conversation {
    /// Listens to the end.
    pub(super) async fn hear<M>(
        mut messages: Streaming<M>,
        meaning: impl Fn(M) -> Option<Heard>,
    ) -> gofer_sdk::Result<Self> {
        let mut conversation = Self { is_complete: true, ..Self::default() };
        while let Some(message) = messages.message().await.map_err(|status| error(&status))? {
            let meaning = meaning(message);
            // Unless something follows, it was not answered.
            conversation.is_complete = !matches!(meaning, Some(Heard::Asked(_)));
            match meaning {
                Some(Heard::Said(text)) => conversation.said.push(text),
                Some(Heard::Asked(text)) => conversation.asked.push(text),
                Some(Heard::Set(key, value)) => {
                    conversation.settings.insert(key, value);
                }
                None => {}
            }
        }
        Ok(conversation)
    }
}
