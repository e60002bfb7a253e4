//! The two conversations, forwarded between a caller of the core and an extension.

use std::collections::BTreeMap;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status, Streaming};

use super::extensions::{Extensions, Installer};
use gofer_net::BoxFuture;
use gofer_proto as proto;
use gofer_sdk::internal::error;

/// How many messages of an extension are buffered for the caller. Few: it still gets them once it has
/// lost its access.
const BUFFERED: usize = 1;

/// The messages that a method streams.
pub(super) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Extensions {
    /// Launches an extension for one installer conversation. It is stopped afterwards.
    pub(super) async fn installer(
        &self,
        init: proto::run_extension_installer_client_message::Init,
        answers: mpsc::Receiver<String>,
    ) -> Result<Replies<proto::ExtensionRunExtensionInstallerExtensionMessage>, Status> {
        let installer = self.launch_installer(init).await?;
        let answers = ReceiverStream::new(answers)
            .map(|msg| proto::ExtensionRunExtensionInstallerClientMessage { msg });
        match installer.client().run_extension_installer(answers).await {
            Ok(response) => Ok(Replies {
                messages: response.into_inner(),
                stopping: self.stopping.clone(),
                installer: Some(installer),
            }),
            Err(status) => {
                installer.stop().await;
                Err(status)
            }
        }
    }

    /// Holds a configurator conversation with an installed extension.
    pub(super) async fn configurator(
        &self,
        name: &str,
        answers: mpsc::Receiver<String>,
    ) -> Result<Replies<proto::ExtensionRunPipelineConfiguratorExtensionMessage>, Status> {
        let answers = ReceiverStream::new(answers)
            .map(|msg| proto::ExtensionRunPipelineConfiguratorClientMessage { msg });
        let response = self.running_client(name)?.run_pipeline_configurator(answers).await?;
        let stopping = self.stopping.clone();
        Ok(Replies { messages: response.into_inner(), stopping, installer: None })
    }
}

/// What an extension sends in a conversation.
pub(super) struct Replies<From> {
    messages: Streaming<From>,
    stopping: CancellationToken,
    /// Stopped at the end.
    installer: Option<Installer>,
}

impl<From: Send + 'static> Replies<From> {
    /// Forwards messages until either side ends the conversation, it has to end, or the core stops;
    /// and then stops the installer. In a task, so that it ends also if the caller does not read.
    pub(super) fn forward<To: Send + 'static>(
        self,
        mut ended: BoxFuture<'static, Status>,
        mut convert: impl FnMut(From) -> To + Send + 'static,
    ) -> ResponseStream<To> {
        let Self { mut messages, stopping, installer } = self;
        let (sender, receiver) = mpsc::channel(BUFFERED);
        tokio::spawn(async move {
            let mut error = None;
            loop {
                let message = tokio::select! {
                    biased;
                    status = &mut ended => Err(status),
                    () = stopping.cancelled() => break,
                    () = sender.closed() => break,
                    message = messages.message() => message,
                };
                let message = match message {
                    Ok(Some(message)) => convert(message),
                    Ok(None) => break,
                    Err(status) => {
                        error = Some(status);
                        break;
                    }
                };
                // The caller may have stopped reading.
                let sent = tokio::select! {
                    biased;
                    sent = sender.send(Ok(message)) => sent.is_ok(),
                    status = &mut ended => {
                        error = Some(status);
                        false
                    }
                    () = stopping.cancelled() => false,
                };
                if !sent {
                    break;
                }
            }
            // Both streams are closed before the extension is stopped, so that it does not wait for
            // an answer.
            drop((messages, ended));
            // At once if there is room, and otherwise once the caller reads on or has gone.
            let reported = error.map(|status| sender.try_send(Err(status)));
            let unsent = if let Some(Err(TrySendError::Full(status))) = reported {
                Some((sender, status))
            } else {
                drop(sender);
                None
            };
            if let Some(installer) = installer {
                installer.stop().await;
            }
            if let Some((sender, status)) = unsent {
                let _ = sender.send(status).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

pub(super) fn installer_message(
    message: proto::ExtensionRunExtensionInstallerExtensionMessage,
) -> proto::RunExtensionInstallerExtensionMessage {
    use proto::extension_run_extension_installer_extension_message::MessageType as Sent;
    use proto::run_extension_installer_extension_message::{ConfigSetting, MessageType};
    proto::RunExtensionInstallerExtensionMessage {
        message_type: message.message_type.map(|sent| match sent {
            Sent::Msg(text) => MessageType::Msg(text),
            Sent::Query(text) => MessageType::Query(text),
            Sent::ConfigSetting(it) => {
                MessageType::ConfigSetting(ConfigSetting { config: it.config, value: it.value })
            }
        }),
    }
}

pub(super) fn configurator_message(
    message: proto::ExtensionRunPipelineConfiguratorExtensionMessage,
) -> proto::RunPipelineConfiguratorExtensionMessage {
    use proto::extension_run_pipeline_configurator_extension_message::MessageType as Sent;
    use proto::run_pipeline_configurator_extension_message::{MessageType, ParamSetting};
    proto::RunPipelineConfiguratorExtensionMessage {
        message_type: message.message_type.map(|sent| match sent {
            Sent::Msg(text) => MessageType::Msg(text),
            Sent::Query(text) => MessageType::Query(text),
            Sent::ParamSetting(it) => {
                MessageType::ParamSetting(ParamSetting { param: it.param, value: it.value })
            }
        }),
    }
}

/// The outcome of a conversation with an extension.
///
/// ```
/// use gofer_core::Core;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<()> {
/// let core = Core::in_memory().await?;
/// let conversation = core.converse_with_installer::<Interval>(["30s"]).await?;
/// assert!(conversation.is_complete);
/// assert!(conversation.questions[0].contains("The shortest interval."));
/// assert_eq!(conversation.settings["min_interval"], "30s");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Conversation {
    /// The messages that the extension showed.
    pub messages: Vec<String>,
    /// The questions that it asked, in order.
    pub questions: Vec<String>,
    /// The settings that it chose.
    pub settings: BTreeMap<String, String>,
    /// Whether the extension ended the conversation; false if it asked another question when there
    /// were no answers left.
    pub is_complete: bool,
}

/// A message of an extension in either conversation.
pub(super) enum Reply {
    Message(String),
    Question(String),
    Setting(String, String),
}

impl Conversation {
    /// Collects the messages of a conversation until it ends.
    pub(super) async fn collect<M>(
        mut messages: Streaming<M>,
        reply: impl Fn(M) -> Option<Reply>,
    ) -> gofer_sdk::Result<Self> {
        let mut conversation = Self { is_complete: true, ..Self::default() };
        loop {
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                // The extension says that its last question was not answered.
                Err(status)
                    if status.code() == Code::FailedPrecondition && !conversation.is_complete =>
                {
                    break;
                }
                Err(status) => return Err(error(&status)),
            };
            let reply = reply(message);
            // A question that nothing follows was not answered.
            conversation.is_complete = !matches!(reply, Some(Reply::Question(_)));
            match reply {
                Some(Reply::Message(text)) => conversation.messages.push(text),
                Some(Reply::Question(text)) => conversation.questions.push(text),
                Some(Reply::Setting(key, value)) => {
                    conversation.settings.insert(key, value);
                }
                None => {}
            }
        }
        Ok(conversation)
    }
}
