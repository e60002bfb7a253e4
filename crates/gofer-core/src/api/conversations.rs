//! The two conversations. The caller's first message names the extension; all others are answers,
//! which are forwarded to it. Its messages are forwarded back.
//!
//! A conversation ends when its caller loses the access that it required, and when neither side has
//! sent anything for a while.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{Api, ResponseStream};
use crate::authorize::{Authenticated, Caller, TokenTable, TokenWatch};
use crate::store::Store;
use gofer_net::BoxFuture;
use gofer_proto::{
    RunExtensionInstallerClientMessage, RunExtensionInstallerExtensionMessage,
    RunPipelineConfiguratorClientMessage, RunPipelineConfiguratorExtensionMessage,
    run_extension_installer_client_message as installer,
    run_pipeline_configurator_client_message as configurator,
};

/// Longer than anybody needs to look up an answer.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// Of one caller, so that it does not use up those of an extension, which are 64.
const PER_CALLER: usize = 16;

/// What a conversation requires, from its first message to its end.
type Requirement = Box<dyn Fn(&Caller) -> Result<(), Status> + Send>;

impl Api {
    /// Requires a management token, since it starts an image.
    pub(super) async fn run_extension_installer(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunExtensionInstallerClientMessage>,
    ) -> Result<ResponseStream<RunExtensionInstallerExtensionMessage>, Status> {
        let opened = self.conversations.open(&self.tokens, by)?;
        opened.caller.require_manager()?;
        let init = opening(&mut messages).await?;
        let ending = opened.require(Box::new(Caller::require_manager))?;
        self.allowed.check_image(&init.image)?;
        let (sender, answers) = mpsc::channel(1);
        let responses = self.extensions.installer(init, answers).await?;
        Ok(converse(messages, sender, responses, ending))
    }

    /// Any token is accepted that gives access to a namespace which may use the extension, but not
    /// an extension's key.
    pub(super) async fn run_pipeline_configurator(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunPipelineConfiguratorClientMessage>,
    ) -> Result<ResponseStream<RunPipelineConfiguratorExtensionMessage>, Status> {
        let opened = self.conversations.open(&self.tokens, by)?;
        opened.caller.require_token()?;
        let init = opening(&mut messages).await?;
        let (store, name) = (Arc::clone(&self.store), init.name.clone());
        let ending =
            opened.require(Box::new(move |caller| may_configure(&store, caller, &name)))?;
        let (sender, answers) = mpsc::channel(1);
        let responses = self.extensions.configurator(&init.name, answers).await?;
        Ok(converse(messages, sender, responses, ending))
    }
}

fn may_configure(store: &Store, caller: &Caller, extension: &str) -> Result<(), Status> {
    caller.require_token()?;
    if caller.is_manager() || store.may_be_used(extension, caller.readable()) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "the token gives access to no namespace that may use the extension `{extension}`"
    )))
}

/// How many conversations each caller has.
#[derive(Clone, Default)]
pub(super) struct Conversations(Arc<Mutex<HashMap<Authenticated, usize>>>);

impl Conversations {
    fn open(&self, tokens: &TokenTable, by: Authenticated) -> Result<Opened, Status> {
        let (caller, token) = tokens.watch(by)?;
        let mut open = self.lock();
        let count = open.entry(by).or_default();
        if *count == PER_CALLER {
            return Err(Status::resource_exhausted(format!(
                "there are {PER_CALLER} conversations with this token; end one first"
            )));
        }
        *count += 1;
        Ok(Opened { caller, token, place: Place { of: self.clone(), by } })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Authenticated, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the conversations of a caller.
struct Place {
    of: Conversations,
    by: Authenticated,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.lock();
        if let Some(count) = open.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.by);
            }
        }
    }
}

/// A conversation before its first message.
struct Opened {
    caller: Caller,
    token: TokenWatch,
    place: Place,
}

impl Opened {
    /// Checks what the conversation requires, now and until it ends.
    fn require(mut self, requirement: Requirement) -> Result<Ending, Status> {
        self.token.require(&requirement)?;
        let Self { mut token, place, .. } = self;
        let revoked = Box::pin(async move {
            loop {
                token.may_have_changed().await;
                if let Err(status) = token.require(&requirement) {
                    return status;
                }
            }
        });
        Ok(Ending { revoked, idle: Box::pin(tokio::time::sleep(IDLE)), _place: place })
    }
}

/// What ends a conversation, apart from its two sides.
struct Ending {
    revoked: BoxFuture<'static, Status>,
    idle: Pin<Box<Sleep>>,
    _place: Place,
}

impl Ending {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if let Poll::Ready(status) = self.revoked.as_mut().poll(context) {
            return Poll::Ready(status);
        }
        self.idle.as_mut().poll(context).map(|()| {
            let minutes = IDLE.as_secs() / 60;
            Status::deadline_exceeded(format!("nothing was sent for {minutes} minutes"))
        })
    }

    /// A message was sent.
    fn postpone(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE);
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
    ending: Ending,
}

fn converse<M: Incoming, T: 'static>(
    messages: Streaming<M>,
    answers: mpsc::Sender<String>,
    responses: ResponseStream<T>,
    ending: Ending,
) -> ResponseStream<T> {
    let answers: BoxFuture<'static, _> = Box::pin(forward(messages, answers));
    Box::pin(TwoWay { answers: Some(answers), responses: Some(responses), ending })
}

impl<T> TwoWay<T> {
    /// Ends the call to the extension.
    fn fail(&mut self, status: Status) -> Poll<Option<Result<T, Status>>> {
        (self.answers, self.responses) = (None, None);
        Poll::Ready(Some(Err(status)))
    }
}

impl<T> Stream for TwoWay<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.responses.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.ending.poll(context) {
            return self.fail(status);
        }
        if let Some(answers) = &mut self.answers
            && let Poll::Ready(outcome) = answers.as_mut().poll(context)
        {
            self.answers = None;
            if let Err(status) = outcome {
                return self.fail(status);
            }
        }
        let Some(responses) = &mut self.responses else { return Poll::Ready(None) };
        let next = responses.as_mut().poll_next(context);
        if next.is_ready() {
            self.ending.postpone();
        }
        next
    }
}
