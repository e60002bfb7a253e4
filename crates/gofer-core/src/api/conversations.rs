//! The two conversations: the first message says with whom, all others are
//! answers, carried to the extension; what it says is carried back.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{Api, BoxFuture, Messages};
use crate::authorize::Caller;
use gofer_proto::run_extension_installer_client_message as installer;
use gofer_proto::run_pipeline_configurator_client_message as configurator;
use gofer_proto::{
    RunExtensionInstallerClientMessage, RunExtensionInstallerExtensionMessage,
    RunPipelineConfiguratorClientMessage, RunPipelineConfiguratorExtensionMessage,
};

impl Api {
    /// For management, since it starts an image.
    pub(super) async fn run_extension_installer(
        &self,
        caller: &Caller,
        mut messages: Streaming<RunExtensionInstallerClientMessage>,
    ) -> Result<Messages<RunExtensionInstallerExtensionMessage>, Status> {
        caller.manage()?;
        let init = opening(&mut messages).await?;
        let (sender, answers) = mpsc::channel(1);
        let speech = self.extensions.installer(init, answers).await?;
        Ok(converse(messages, sender, speech))
    }

    pub(super) async fn run_pipeline_configurator(
        &self,
        mut messages: Streaming<RunPipelineConfiguratorClientMessage>,
    ) -> Result<Messages<RunPipelineConfiguratorExtensionMessage>, Status> {
        let init = opening(&mut messages).await?;
        let (sender, answers) = mpsc::channel(1);
        let speech = self.extensions.configurator(&init.name, answers).await?;
        Ok(converse(messages, sender, speech))
    }
}

/// A message of the caller's.
trait Heard: Send + 'static {
    type Init;

    /// `None` where it says nothing.
    fn heard(self) -> Option<Message<Self::Init>>;
}

enum Message<I> {
    Init(I),
    Answer(String),
}

impl Heard for RunExtensionInstallerClientMessage {
    type Init = installer::Init;

    fn heard(self) -> Option<Message<Self::Init>> {
        Some(match self.message_type? {
            installer::MessageType::Init(init) => Message::Init(init),
            installer::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

impl Heard for RunPipelineConfiguratorClientMessage {
    type Init = configurator::Init;

    fn heard(self) -> Option<Message<Self::Init>> {
        Some(match self.message_type? {
            configurator::MessageType::Init(init) => Message::Init(init),
            configurator::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

async fn opening<M: Heard>(messages: &mut Streaming<M>) -> Result<M::Init, Status> {
    match messages.message().await?.and_then(Heard::heard) {
        Some(Message::Init(init)) => Ok(init),
        Some(Message::Answer(_)) | None => {
            Err(Status::invalid_argument("the first message must be `init`"))
        }
    }
}

/// Hands answers on until either side has had enough.
async fn carry<M: Heard>(
    mut messages: Streaming<M>,
    answers: mpsc::Sender<String>,
) -> Result<(), Status> {
    // A broken stream is a caller that has gone away.
    while let Ok(Some(message)) = messages.message().await {
        let Some(Message::Answer(answer)) = message.heard() else {
            return Err(Status::invalid_argument("all messages after the first must be `msg`"));
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Both directions in one stream, so that neither outlives the call.
struct Conversation<T> {
    answers: Option<BoxFuture<Result<(), Status>>>,
    speech: Option<Messages<T>>,
}

fn converse<M: Heard, T: 'static>(
    messages: Streaming<M>,
    answers: mpsc::Sender<String>,
    speech: Messages<T>,
) -> Messages<T> {
    let answers: BoxFuture<_> = Box::pin(carry(messages, answers));
    Box::pin(Conversation { answers: Some(answers), speech: Some(speech) })
}

impl<T> Stream for Conversation<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(answers) = &mut self.answers
            && let Poll::Ready(outcome) = answers.as_mut().poll(context)
        {
            self.answers = None;
            if let Err(status) = outcome {
                // Hangs up on the extension.
                self.speech = None;
                return Poll::Ready(Some(Err(status)));
            }
        }
        match &mut self.speech {
            Some(speech) => speech.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }
}
