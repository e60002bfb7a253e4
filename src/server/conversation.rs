//! Carries a conversation over the wire: the author's [`Dialogue`] on one side, two gRPC streams on
//! the other.
//!
//! The author's future runs in a task of its own and is dropped as soon as the caller goes away or
//! the extension drains.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::service::to_status;
use crate::error::{ErrorKind, Result};
use crate::extension::{Answers, Check, Dialogue, DialogueMessage};
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
pub(crate) trait Answer: Send + 'static {
    fn text(self) -> String;
}

impl Answer for InstallerAnswer {
    fn text(self) -> String {
        self.msg
    }
}

impl Answer for ConfiguratorAnswer {
    fn text(self) -> String {
        self.msg
    }
}

/// A dialogue's message as one of a conversation, in which a setting has a name of its own.
macro_rules! message {
    ($Message:ident, $module:ident, $Setting:ident, $key:ident) => {
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

message!(InstallerMessage, installer, ConfigSetting, config);
message!(ConfiguratorMessage, configurator, ParamSetting, param);

struct Incoming<A>(Streaming<A>);

#[async_trait]
impl<A: Answer> Answers for Incoming<A> {
    async fn next(&mut self) -> Option<String> {
        // A broken stream means that the caller has gone away.
        self.0.message().await.ok().flatten().map(Answer::text)
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
    tasks: &TaskTracker,
    draining: CancellationToken,
    converse: F,
) -> ResponseStream<M>
where
    A: Answer,
    F: FnOnce(Dialogue) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (send, messages) = mpsc::channel(MAX_UNREAD);
    let (fail, error) = mpsc::channel(1);
    let caller = send.clone();
    let conversation = converse(Dialogue::new(send, Box::new(Incoming(answers)), check));
    tasks.spawn(async move {
        let _permit = permit;
        let outcome = tokio::select! {
            outcome = conversation => outcome,
            () = caller.closed() => return,
            () = draining.cancelled() => {
                Err(crate::error::Error::shutting_down())
            }
        };
        match outcome {
            Ok(()) => {}
            // The caller ended it; for a conversation that is a clean end.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                let _ = fail.send(to_status(&error)).await;
            }
        }
    });
    ResponseStream { messages, error, wire: std::marker::PhantomData }
}

/// Runs one of the author's conversations, and keeps the definition alive meanwhile.
pub(crate) async fn converse_with<D: ?Sized, F>(
    definition: Arc<D>,
    mut dialogue: Dialogue,
    converse: F,
) -> Result<()>
where
    F: for<'a> FnOnce(
        &'a D,
        &'a mut Dialogue,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>,
{
    super::catch_panic::catch_panic(converse(&definition, &mut dialogue)).await
}
