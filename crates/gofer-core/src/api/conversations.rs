//! The two conversations. The caller's first message names the extension; all others are answers,
//! which are forwarded to it. Its messages are forwarded back.
//!
//! A conversation ends when its caller loses the access that it required, and when neither side has
//! sent anything for a while, whether the caller reads or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::{Api, ResponseStream};
use crate::authorize::{Authenticated, Caller, TokenTable, TokenWatch};
use crate::conversations::{configurator_message, installer_message};
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

/// Of one token: fewer than the 64 that an extension accepts, so that one token cannot use them all
/// up.
const PER_TOKEN: usize = 16;

/// What a conversation requires, from its first message to its end.
type Requirement = Box<dyn Fn(&Caller) -> Result<(), Status> + Send + Sync>;

impl Api {
    /// Requires a management token, since it starts an image.
    pub(super) async fn run_extension_installer(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunExtensionInstallerClientMessage>,
    ) -> Result<ResponseStream<RunExtensionInstallerExtensionMessage>, Status> {
        let mut opened = self.conversations.open(&self.tokens, by)?;
        opened.require(Box::new(Caller::require_manager))?;
        let init = opened.init(&mut messages).await?;
        self.allowed.check_image(&init.image)?;
        let Begun { mut ended, answers, sent } = opened.begin(messages);
        let replies = tokio::select! {
            biased;
            status = &mut ended => return Err(status),
            replies = self.extensions.installer(init, answers) => replies?,
        };
        Ok(replies.forward(ended, move |message| {
            sent.send_replace(Instant::now());
            installer_message(message)
        }))
    }

    /// Requires access to a namespace that may use the extension; of an extension, the grant
    /// `namespaces` too.
    pub(super) async fn run_pipeline_configurator(
        &self,
        by: Authenticated,
        mut messages: Streaming<RunPipelineConfiguratorClientMessage>,
    ) -> Result<ResponseStream<RunPipelineConfiguratorExtensionMessage>, Status> {
        let mut opened = self.conversations.open(&self.tokens, by)?;
        opened.require(Box::new(Caller::require_token))?;
        let name = opened.init(&mut messages).await?.name;
        let (store, extension) = (Arc::clone(&self.store), name.clone());
        opened.require(Box::new(move |caller| may_configure(&store, caller, &extension)))?;
        let Begun { mut ended, answers, sent } = opened.begin(messages);
        let replies = tokio::select! {
            biased;
            status = &mut ended => return Err(status),
            replies = self.extensions.configurator(&name, answers) => replies?,
        };
        Ok(replies.forward(ended, move |message| {
            sent.send_replace(Instant::now());
            configurator_message(message)
        }))
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

/// How many conversations each token has, by its digest.
#[derive(Clone, Default)]
pub(super) struct Conversations(Arc<Mutex<HashMap<[u8; 32], usize>>>);

impl Conversations {
    fn open(&self, tokens: &TokenTable, by: Authenticated) -> Result<Opened, Status> {
        let digest = by.digest;
        let (_, token) = tokens.watch(by)?;
        let mut open = self.lock();
        let count = open.entry(digest).or_default();
        if *count == PER_TOKEN {
            return Err(Status::resource_exhausted(format!(
                "there are {PER_TOKEN} conversations with this token; end one first"
            )));
        }
        *count += 1;
        drop(open);
        let (sent, _) = watch::channel(Instant::now());
        let requirement: Requirement = Box::new(|_| Ok(()));
        let end = End { token, requirement, sent };
        Ok(Opened { end, place: Place { of: self.clone(), digest } })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the conversations of a token.
struct Place {
    of: Conversations,
    digest: [u8; 32],
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.lock();
        if let Some(count) = open.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.digest);
            }
        }
    }
}

/// The caller's side of a conversation.
struct Opened {
    end: End,
    place: Place,
}

/// What ends a conversation, whatever its two sides do.
struct End {
    token: TokenWatch,
    requirement: Requirement,
    /// When either side has last sent something.
    sent: watch::Sender<Instant>,
}

/// A conversation that the extension is to join.
struct Begun {
    /// Resolves when it has to end. The caller's answers are forwarded while this is polled.
    ended: BoxFuture<'static, Status>,
    answers: mpsc::Receiver<String>,
    sent: watch::Sender<Instant>,
}

impl Opened {
    /// Checks what the conversation requires, now and until it ends.
    fn require(&mut self, requirement: Requirement) -> Result<(), Status> {
        self.end.token.require(&requirement)?;
        self.end.requirement = requirement;
        Ok(())
    }

    /// Waits for the first message.
    async fn init<M: Incoming>(&mut self, messages: &mut Streaming<M>) -> Result<M::Init, Status> {
        let first = tokio::select! {
            biased;
            status = self.end.reached() => return Err(status),
            first = messages.message() => first?,
        };
        match first.and_then(Incoming::parse) {
            Some(Message::Init(init)) => Ok(init),
            Some(Message::Answer(_)) | None => {
                Err(Status::invalid_argument("the first message must be `init`"))
            }
        }
    }

    fn begin<M: Incoming>(self, messages: Streaming<M>) -> Begun {
        let Self { mut end, place } = self;
        let (sender, answers) = mpsc::channel(1);
        let sent = end.sent.clone();
        let ended = Box::pin(async move {
            let _place = place;
            let forward = forward(messages, sender, end.sent.clone());
            tokio::select! {
                // Nothing is forwarded that was sent after the end.
                biased;
                status = end.reached() => status,
                status = forward => status,
            }
        });
        Begun { ended, answers, sent }
    }
}

impl End {
    /// Waits until the caller has lost its access, or nothing has been sent for a while.
    async fn reached(&mut self) -> Status {
        loop {
            let idle_at = *self.sent.borrow() + IDLE;
            tokio::select! {
                biased;
                () = self.token.may_have_changed() => {
                    if let Err(status) = self.token.require(&self.requirement) {
                        return status;
                    }
                }
                () = sleep_until(idle_at) => {
                    if self.sent.borrow().elapsed() >= IDLE {
                        let minutes = IDLE.as_secs() / 60;
                        let why = format!("nothing was sent for {minutes} minutes");
                        return Status::deadline_exceeded(why);
                    }
                }
            }
        }
    }
}

/// A message from the caller.
trait Incoming: Send + 'static {
    type Init: Send;

    /// `None` if it is empty.
    fn parse(self) -> Option<Message<Self::Init>>;
}

enum Message<I> {
    Init(I),
    Answer(String),
}

impl Incoming for RunExtensionInstallerClientMessage {
    type Init = installer::Init;

    fn parse(self) -> Option<Message<Self::Init>> {
        Some(match self.message_type? {
            installer::MessageType::Init(init) => Message::Init(init),
            installer::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

impl Incoming for RunPipelineConfiguratorClientMessage {
    type Init = configurator::Init;

    fn parse(self) -> Option<Message<Self::Init>> {
        Some(match self.message_type? {
            configurator::MessageType::Init(init) => Message::Init(init),
            configurator::MessageType::Msg(text) => Message::Answer(text),
        })
    }
}

/// Forwards answers; resolves if the caller sends what is none.
async fn forward<M: Incoming>(
    mut messages: Streaming<M>,
    answers: mpsc::Sender<String>,
    sent: watch::Sender<Instant>,
) -> Status {
    // If the stream breaks, the caller has disconnected.
    while let Ok(Some(message)) = messages.message().await {
        let Some(Message::Answer(answer)) = message.parse() else {
            return Status::invalid_argument("all messages after the first must be `msg`");
        };
        sent.send_replace(Instant::now());
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    // The extension sees that there are no more.
    drop(answers);
    std::future::pending().await
}
