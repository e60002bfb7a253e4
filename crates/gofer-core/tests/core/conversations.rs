//! Conversations through the core: who may hold one, and what ends it.

use crate::caller::Caller;
use crate::metronome::Metronome;
use gofer_core::{Core, InstallOptions, NO_SETTINGS, minutes};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::{
    run_extension_installer_client_message as installer,
    run_pipeline_configurator_client_message as configurator,
    run_pipeline_configurator_extension_message as reply,
};
use gofer_sdk::{Dialogue, Extension, Gofer, NoConfig, NoParams, Result, Subscription};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::codegen::tokio_stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

#[track_caller]
fn refused<T>(outcome: Result<T, Status>, code: Code, expected: &str) {
    let status = outcome.err().expect("must be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(expected), "{status}");
}

async fn client_token(core: &Core, namespaces: &[&str]) -> String {
    let request = proto::CreateTokenRequest {
        kind: Kind::Client.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

async fn create_namespace(core: &Core, id: &str) {
    let request = proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
    core.client().api().create_namespace(request).await.unwrap();
}

type Sent = proto::RunPipelineConfiguratorClientMessage;
type Received = proto::RunPipelineConfiguratorExtensionMessage;

/// A configurator conversation whose extension waits for an answer.
struct Waiting {
    answers: mpsc::Sender<Sent>,
    messages: Streaming<Received>,
}

impl Waiting {
    /// With the metronome.
    async fn begin(
        call: impl AsyncFnOnce(ReceiverStream<Sent>) -> Result<Response<Streaming<Received>>, Status>,
    ) -> Result<Self, Status> {
        let (answers, receiver) = mpsc::channel(1);
        let init = configurator::Init { name: "metronome".to_owned() };
        let message_type = Some(configurator::MessageType::Init(init));
        answers.send(Sent { message_type }).await.unwrap();
        let messages = call(ReceiverStream::new(receiver)).await?.into_inner();
        let mut waiting = Self { answers, messages };
        waiting.question().await?;
        Ok(waiting)
    }

    /// On this caller's connection.
    async fn of(caller: &Caller) -> Result<Self, Status> {
        Self::begin(async |sent| caller.api().run_pipeline_configurator(sent).await).await
    }

    /// Reads on until the extension asks something.
    async fn question(&mut self) -> Result<(), Status> {
        while let Some(message) = self.messages.message().await? {
            if let Some(reply::MessageType::Query(_)) = message.message_type {
                return Ok(());
            }
        }
        panic!("it must not end")
    }

    async fn answer(&mut self, text: &str) {
        let message_type = Some(configurator::MessageType::Msg(text.to_owned()));
        self.answers.send(Sent { message_type }).await.unwrap();
    }

    /// Waits for its end.
    async fn end(mut self) -> Result<(), Status> {
        while self.messages.message().await?.is_some() {}
        Ok(())
    }
}

async fn with_metronome() -> Core {
    let core = Core::on_loopback().await.unwrap();
    core.install::<Metronome>("metronome", NO_SETTINGS).await.unwrap();
    core
}

#[tokio::test(start_paused = true)]
async fn a_conversation_begins_with_init_and_goes_on_with_answers() {
    use configurator::MessageType::{Init, Msg};
    let core = Core::in_memory().await.unwrap();
    core.install::<Metronome>("metronome", NO_SETTINGS).await.unwrap();
    let talk = async |messages: Vec<configurator::MessageType>| {
        let messages = messages
            .into_iter()
            .map(|it| proto::RunPipelineConfiguratorClientMessage { message_type: Some(it) });
        let messages = tokio_stream::iter(messages.collect::<Vec<_>>());
        let mut heard = core.client().api().run_pipeline_configurator(messages).await?.into_inner();
        let mut settings = Vec::new();
        while let Some(message) = heard.message().await? {
            if let Some(reply::MessageType::ParamSetting(it)) = message.message_type {
                settings.push((it.param, it.value));
            }
        }
        Ok::<_, Status>(settings)
    };
    let init = |name: &str| Init(configurator::Init { name: name.to_owned() });
    let answer = |text: &str| Msg(text.to_owned());

    let settings = talk(vec![init("metronome"), answer("90s"), answer("")]).await.unwrap();
    assert_eq!(settings[0], ("every".to_owned(), "90s".to_owned()));
    refused(talk(vec![answer("90s")]).await, Code::InvalidArgument, "`init`");
    refused(talk(vec![]).await, Code::InvalidArgument, "`init`");
    let twice = talk(vec![init("metronome"), init("metronome")]).await;
    refused(twice, Code::InvalidArgument, "`msg`");
    refused(talk(vec![init("absent")]).await, Code::NotFound, "`absent`");
    core.stop().await;
}

#[tokio::test]
async fn an_installer_requires_a_management_token() {
    let core = Core::on_loopback().await.unwrap();
    let caller = Caller::of(&core).await.with(&client_token(&core, &[".*"]).await);
    let init = installer::MessageType::Init(installer::Init::default());
    let message = proto::RunExtensionInstallerClientMessage { message_type: Some(init) };
    let outcome = caller.api().run_extension_installer(tokio_stream::iter([message])).await;
    refused(outcome, Code::PermissionDenied, "management");
    core.stop().await;
}

#[tokio::test]
async fn a_conversation_ends_with_its_token() {
    let core = with_metronome().await;
    let token = client_token(&core, &[".*"]).await;
    let caller = Caller::of(&core).await;
    let conversation = Waiting::of(&caller.with(&token)).await.unwrap();
    let manager = Waiting::of(&caller.with(core.token())).await.unwrap();
    core.client().api().delete_token(proto::DeleteTokenRequest { token }).await.unwrap();
    refused(conversation.end().await, Code::Unauthenticated, "unknown token");
    // Another's goes on.
    let mut manager = manager;
    manager.answer("not a duration").await;
    manager.question().await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn a_configurator_is_for_the_namespaces_that_may_use_the_extension() {
    let core = Core::on_loopback().await.unwrap();
    create_namespace(&core, "ops").await;
    let options = InstallOptions::new().namespaces(["ops"]);
    let metronome =
        core.install_with::<Metronome>("metronome", NO_SETTINGS, options).await.unwrap();
    let caller = Caller::of(&core).await;
    let ops = caller.with(&client_token(&core, &["ops"]).await);
    let default = caller.with(&client_token(&core, &["default"]).await);
    refused(Waiting::of(&default).await, Code::PermissionDenied, "no namespace that may use");
    let conversation = Waiting::of(&ops).await.unwrap();
    // Also if that changes meanwhile.
    metronome.update_options(InstallOptions::new().namespaces(["default"])).await.unwrap();
    refused(conversation.end().await, Code::PermissionDenied, "no namespace that may use");
    Waiting::of(&default).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn the_conversations_of_a_token_are_limited() {
    let core = with_metronome().await;
    let caller = Caller::of(&core).await;
    let (one, other) = (client_token(&core, &[".*"]).await, client_token(&core, &[".*"]).await);
    let one = caller.with(&one);
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Waiting::of(&one).await.unwrap());
    }
    refused(Waiting::of(&one).await, Code::ResourceExhausted, "16 conversations");
    Waiting::of(&caller.with(&other)).await.unwrap();
    let mut last = open.pop().unwrap();
    last.answer("90s").await;
    last.question().await.unwrap();
    last.answer("").await;
    last.end().await.unwrap();
    Waiting::of(&one).await.unwrap();
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_ends_if_nothing_is_sent() {
    let core = Core::in_memory().await.unwrap();
    core.install::<Metronome>("metronome", NO_SETTINGS).await.unwrap();
    let mut api = core.client().api();
    let begin = async |sent| api.run_pipeline_configurator(sent).await;
    let mut conversation = Waiting::begin(begin).await.unwrap();
    tokio::time::sleep(minutes(14)).await;
    conversation.answer("not a duration").await;
    conversation.question().await.unwrap();
    let answered = Instant::now();
    refused(conversation.end().await, Code::DeadlineExceeded, "15 minutes");
    assert_eq!(answered.elapsed().as_secs() / 60, 15);

    // Also before it has begun.
    let (_answers, receiver) = mpsc::channel(1);
    let silent = api.run_pipeline_configurator(ReceiverStream::new(receiver)).await;
    let silent = match silent {
        Ok(messages) => messages.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    refused(silent, Code::DeadlineExceeded, "15 minutes");
    core.stop().await;
}

/// Records how many of its conversations have ended.
struct Asking;

static ENDED: Semaphore = Semaphore::const_new(0);

struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        ENDED.add_permits(1);
    }
}

impl Extension for Asking {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, _: Subscription<NoParams>) -> Result<()> {
        Ok(())
    }

    async fn configure(dialogue: &mut Dialogue) -> Result<()> {
        let _ended = Ended;
        loop {
            dialogue.ask("again").await?;
        }
    }
}

#[tokio::test]
async fn a_conversation_ends_with_its_token_also_if_nothing_is_read() {
    let core = Core::on_loopback().await.unwrap();
    core.install::<Asking>("asking", NO_SETTINGS).await.unwrap();
    let token = client_token(&core, &[".*"]).await;
    let caller = Caller::unread(&core).await.with(&token);
    let (answers, receiver) = mpsc::channel(1);
    let init = configurator::Init { name: "asking".to_owned() };
    let message_type = Some(configurator::MessageType::Init(init));
    answers.send(Sent { message_type }).await.unwrap();
    let messages = ReceiverStream::new(receiver);
    let _unread = caller.api().run_pipeline_configurator(messages).await.unwrap();
    core.client().api().delete_token(proto::DeleteTokenRequest { token }).await.unwrap();
    ENDED.acquire().await.unwrap().forget();
    core.stop().await;
}
