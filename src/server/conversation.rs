//! Carries a conversation over the wire: the author's [`Dialogue`] on one side, two gRPC streams on
//! the other.
//!
//! The author's future runs in a task of its own and is dropped as soon as the caller goes away, the
//! extension drains or its server is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use gofer_net::Throttle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::error::to_status;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{AnswerSource, Check, Dialogue, DialogueMessage, call_span};
use gofer_proto::{
    ExtensionRunExtensionInstallerClientMessage as InstallerAnswer,
    ExtensionRunExtensionInstallerExtensionMessage as InstallerMessage,
    ExtensionRunPipelineConfiguratorClientMessage as ConfiguratorAnswer,
    ExtensionRunPipelineConfiguratorExtensionMessage as ConfiguratorMessage,
    extension_run_extension_installer_extension_message as installer,
    extension_run_pipeline_configurator_extension_message as configurator,
};

/// Messages that may be sent before the caller has read them; the next one waits.
const MAX_UNREAD: usize = 16;

/// A message of the caller: the answer to a question.
pub(crate) trait AnswerMessage: Send + 'static {
    const METHOD: &'static str;

    fn text(self) -> String;
}

/// Both kinds of conversation: only the names in their messages differ.
macro_rules! conversation {
    ($method:literal, $Answer:ident, $Message:ident, $module:ident, $Setting:ident, $key:ident) => {
        impl AnswerMessage for $Answer {
            const METHOD: &'static str = $method;

            fn text(self) -> String {
                self.msg
            }
        }

        impl From<DialogueMessage> for $Message {
            fn from(message: DialogueMessage) -> Self {
                use $module::{MessageType, $Setting};
                let message = match message {
                    DialogueMessage::Say(text) => MessageType::Msg(text),
                    DialogueMessage::Ask(text) => MessageType::Query(text),
                    DialogueMessage::Set { key, value } => {
                        MessageType::$Setting($Setting { $key: key, value })
                    }
                };
                Self { message_type: Some(message) }
            }
        }
    };
}

conversation! {
    "RunExtensionInstaller", InstallerAnswer, InstallerMessage, installer, ConfigSetting, config
}
conversation! {
    "RunPipelineConfigurator", ConfiguratorAnswer, ConfiguratorMessage, configurator, ParamSetting,
    param
}

struct Incoming<A>(Streaming<A>);

#[async_trait]
impl<A: AnswerMessage> AnswerSource for Incoming<A> {
    async fn next(&mut self) -> Option<String> {
        // A broken stream means that the caller has gone away.
        self.0.message().await.ok().flatten().map(AnswerMessage::text)
    }
}

/// The extension's messages, as the stream that the caller reads.
pub(crate) struct ResponseStream<M> {
    messages: mpsc::Receiver<DialogueMessage>,
    /// The error that the conversation ended with, if any.
    error: mpsc::Receiver<Status>,
    wire: std::marker::PhantomData<fn() -> M>,
}

impl<M: From<DialogueMessage>> Stream for ResponseStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.messages.poll_recv(context) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(Ok(message.into()))),
            Poll::Ready(None) => self.error.poll_recv(context).map(|error| error.map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Starts a conversation; returns the stream that its caller reads.
pub(crate) fn start_conversation<A, M, F, Fut>(
    answers: Streaming<A>,
    check: Option<Check>,
    permit: OwnedSemaphorePermit,
    tasks: &Tasks,
    failures: Arc<Throttle>,
    draining: CancellationToken,
    converse: F,
) -> ResponseStream<M>
where
    A: AnswerMessage,
    F: FnOnce(Dialogue) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (send, messages) = mpsc::channel(MAX_UNREAD);
    let (fail, error) = mpsc::channel(1);
    let caller = send.clone();
    let conversation = converse(Dialogue::new(send, Box::new(Incoming(answers)), check));
    let converse = async move {
        let _permit = permit;
        let outcome = tokio::select! {
            biased;
            outcome = conversation => outcome,
            () = caller.closed() => return,
            () = draining.cancelled() => Err(Error::shutting_down()),
        };
        match outcome {
            Ok(()) => {}
            // The caller ended it; for a conversation that is a clean end.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                let _ = fail.send(to_status(A::METHOD, &error, &failures)).await;
            }
        }
    };
    tasks.spawn(converse.instrument(call_span(A::METHOD)));
    ResponseStream { messages, error, wire: std::marker::PhantomData }
}
