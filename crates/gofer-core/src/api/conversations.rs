//! The two conversations. The caller's first message names the extension; all others are answers,
//! which are forwarded to it. Its messages are forwarded back.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{Api, ResponseStream};
use crate::authorize::Authenticated;
use gofer_net::BoxFuture;
use gofer_proto::{
    RunExtensionInstallerClientMessage, RunExtensionInstallerExtensionMessage,
    RunPipelineConfiguratorClientMessage, RunPipelineConfiguratorExtensionMessage,
    run_extension_installer_client_message as installer,
    run_pipeline_configurator_client_message as configurator,
};

impl Api {
    /// Requires a management token, since it starts an image.
    pub(super) async fn run_extension_installer(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunExtensionInstallerClientMessage>,
    ) -> Result<ResponseStream<RunExtensionInstallerExtensionMessage>, Status> {
        self.tokens.caller(by)?.require_manager()?;
        let init = opening(&mut messages).await?;
        // The token may have been revoked meanwhile.
        self.tokens.caller(by)?.require_manager()?;
        self.allowed.check_image(&init.image)?;
        let (sender, answers) = mpsc::channel(1);
        let responses = self.extensions.installer(init, answers).await?;
        Ok(converse(messages, sender, responses))
    }

    /// Any token is accepted, but not an extension's key.
    pub(super) async fn run_pipeline_configurator(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunPipelineConfiguratorClientMessage>,
    ) -> Result<ResponseStream<RunPipelineConfiguratorExtensionMessage>, Status> {
        self.tokens.caller(by)?.require_token()?;
        let init = opening(&mut messages).await?;
        self.tokens.caller(by)?.require_token()?;
        let (sender, answers) = mpsc::channel(1);
        let responses = self.extensions.configurator(&init.name, answers).await?;
        Ok(converse(messages, sender, responses))
    }
}

/// A message from the caller.
trait Incoming: Send + 'static {
    type First;

    /// `None` if it is empty.
    fn parse(self) -> Option<Message<Self::First>>;
}

enum Message<I> {
    Init(I),
    Answer(String),
}

impl Incoming for RunExtensionInstallerClientMessage {
    type First = installer::Init;

    fn parse(self) -> Option<Message<Self::First>> {
        Some(match self.message_type? {
            installer::MessageType::Init(init) => Message::Init(init),
            installer::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

impl Incoming for RunPipelineConfiguratorClientMessage {
    type First = configurator::Init;

    fn parse(self) -> Option<Message<Self::First>> {
        Some(match self.message_type? {
            configurator::MessageType::Init(init) => Message::Init(init),
            configurator::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

async fn opening<M: Incoming>(messages: &mut Streaming<M>) -> Result<M::First, Status> {
    match messages.message().await?.and_then(Incoming::parse) {
        Some(Message::Init(init)) => Ok(init),
        Some(Message::Answer(_)) | None => {
            Err(Status::invalid_argument("the first message must be `init`"))
        }
    }
}

/// Forwards answers until either side ends.
async fn forward<M: Incoming>(
    mut messages: Streaming<M>,
    answers: mpsc::Sender<String>,
) -> Result<(), Status> {
    // If the stream breaks, the caller has disconnected.
    while let Ok(Some(message)) = messages.message().await {
        let Some(Message::Answer(answer)) = message.parse() else {
            return Err(Status::invalid_argument("all messages after the first must be `msg`"));
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Both directions in one stream, so that neither outlives the call.
struct TwoWay<T> {
    answers: Option<BoxFuture<'static, Result<(), Status>>>,
    responses: Option<ResponseStream<T>>,
}

fn converse<M: Incoming, T: 'static>(
    messages: Streaming<M>,
    answers: mpsc::Sender<String>,
    responses: ResponseStream<T>,
) -> ResponseStream<T> {
    let answers: BoxFuture<'static, _> = Box::pin(forward(messages, answers));
    Box::pin(TwoWay { answers: Some(answers), responses: Some(responses) })
}

impl<T> Stream for TwoWay<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(answers) = &mut self.answers
            && let Poll::Ready(outcome) = answers.as_mut().poll(context)
        {
            self.answers = None;
            if let Err(status) = outcome {
                // Ends the call to the extension.
                self.responses = None;
                return Poll::Ready(Some(Err(status)));
            }
        }
        match &mut self.responses {
            Some(responses) => responses.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }
}
