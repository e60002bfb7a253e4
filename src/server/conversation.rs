//! Carries a conversation over the wire: the author's [`Dialogue`] on one side,
//! two gRPC streams on the other.
//!
//! The author's future runs in a task of its own and is dropped as soon as the
//! caller is gone or the extension drains.

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
use crate::extension::{Answers, Check, Dialogue, Utterance};
use gofer_proto::{
    ExtensionRunExtensionInstallerClientMessage as InstallerAnswer,
    ExtensionRunExtensionInstallerExtensionMessage as InstallerMessage,
    ExtensionRunPipelineConfiguratorClientMessage as ConfiguratorAnswer,
    ExtensionRunPipelineConfiguratorExtensionMessage as ConfiguratorMessage,
    extension_run_extension_installer_extension_message as installer,
    extension_run_pipeline_configurator_extension_message as configurator,
};

/// What is said before the caller has read it; more waits.
const UNREAD: usize = 16;

/// A message of the caller's: the answer to a question.
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

impl From<Utterance> for InstallerMessage {
    fn from(utterance: Utterance) -> Self {
        use installer::{ConfigSetting, MessageType};
        Self {
            message_type: Some(match utterance {
                Utterance::Say(text) => MessageType::Msg(text),
                Utterance::Ask(text) => MessageType::Query(text),
                Utterance::Set { key, value } => {
                    MessageType::ConfigSetting(ConfigSetting { config: key, value })
                }
            }),
        }
    }
}

impl From<Utterance> for ConfiguratorMessage {
    fn from(utterance: Utterance) -> Self {
        use configurator::{MessageType, ParamSetting};
        Self {
            message_type: Some(match utterance {
                Utterance::Say(text) => MessageType::Msg(text),
                Utterance::Ask(text) => MessageType::Query(text),
                Utterance::Set { key, value } => {
                    MessageType::ParamSetting(ParamSetting { param: key, value })
                }
            }),
        }
    }
}

struct Incoming<A>(Streaming<A>);

#[async_trait]
impl<A: Answer> Answers for Incoming<A> {
    async fn next(&mut self) -> Option<String> {
        // A broken stream is a caller that has gone away.
        self.0.message().await.ok().flatten().map(Answer::text)
    }
}

/// What the extension says, as the stream that the caller reads.
pub(crate) struct Speech<M> {
    said: mpsc::Receiver<Utterance>,
    /// The last word: how it ended, where it did not end well.
    end: mpsc::Receiver<Status>,
    message: std::marker::PhantomData<fn() -> M>,
}

impl<M: From<Utterance>> Stream for Speech<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.said.poll_recv(context) {
            Poll::Ready(Some(utterance)) => Poll::Ready(Some(Ok(utterance.into()))),
            Poll::Ready(None) => self.end.poll_recv(context).map(|end| end.map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Starts a conversation and gives what the caller reads of it.
pub(crate) fn hold<A, M, F, Fut>(
    answers: Streaming<A>,
    check: Option<Check>,
    permit: OwnedSemaphorePermit,
    tasks: &TaskTracker,
    draining: CancellationToken,
    talk: F,
) -> Speech<M>
where
    A: Answer,
    F: FnOnce(Dialogue) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (say, said) = mpsc::channel(UNREAD);
    let (finish, end) = mpsc::channel(1);
    let gone = say.clone();
    let talk = talk(Dialogue::new(say, Box::new(Incoming(answers)), check));
    tasks.spawn(async move {
        let _permit = permit;
        let outcome = tokio::select! {
            outcome = talk => outcome,
            () = gone.closed() => return,
            () = draining.cancelled() => {
                Err(crate::error::Error::shutting_down())
            }
        };
        match outcome {
            Ok(()) => {}
            // The caller hung up: for a conversation that is a clean end.
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                let _ = finish.send(to_status(&error)).await;
            }
        }
    });
    Speech { said, end, message: std::marker::PhantomData }
}

/// Keeps the definition alive for as long as it talks.
pub(crate) async fn talk_to<D: ?Sized, F>(
    definition: Arc<D>,
    mut dialogue: Dialogue,
    talk: F,
) -> Result<()>
where
    F: for<'a> FnOnce(
        &'a D,
        &'a mut Dialogue,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>,
{
    super::contain::contain(talk(&definition, &mut dialogue)).await
}
