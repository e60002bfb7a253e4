//! A full Gofer as the command line sees one: it answers when a change is stored, says in words what
//! is wrong, ends conversations with an error, and lacks what an embedded core has in addition.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "what answers a call has one signature"
)]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use gofer_proto as proto;
use gofer_proto::extension::{ExtensionState, ExtensionStatus};
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run_extension_installer_extension_message::{self as installer, ConfigSetting};
use gofer_proto::run_pipeline_configurator_extension_message as configurator;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::support::IDENTITY;
use crate::support::serving::{Port, acceptor, unary};

/// What an extension does in a conversation.
#[derive(Clone)]
pub(crate) enum Step {
    Say(&'static str),
    /// Waits for the answer.
    Ask(&'static str),
    /// Asks without waiting.
    AskOnly(&'static str),
    /// A setting whose value is the last answer.
    SetAnswer(&'static str),
    End(Status),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) deployed: bool,
    pub(crate) pipeline_disabled: bool,
    pub(crate) extensions: HashMap<String, (ExtensionState, ExtensionStatus)>,
    /// The state of what is installed.
    pub(crate) installed_as: ExtensionState,
    /// The outcomes of the next changes; after that they succeed.
    pub(crate) refusals: VecDeque<Status>,
    pub(crate) conversation: Vec<Step>,
    /// All answers that were given in conversations.
    pub(crate) answers: Vec<String>,
    /// The settings of each installation and subscription, also of those that were refused.
    pub(crate) settings: Vec<HashMap<String, String>>,
}

pub(crate) struct FullGofer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FullGofer {
    /// Listens until the test's runtime ends.
    pub(crate) fn start() -> Self {
        let port = Port::reserve();
        let (listener, address) = (port.listen(), port.address());
        let state = State { installed_as: ExtensionState::Running, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let (shared, tls) = (Arc::clone(&state), acceptor(&IDENTITY));
        tokio::spawn(async move {
            let _port = port;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

type Shared = Arc<Mutex<State>>;

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Shared) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(answer(request, shared).await) }
    });
    let http = http2::Builder::new(TokioExecutor::new());
    drop(http.serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if !request.headers().contains_key(http::header::AUTHORIZATION) {
        return unary(request, |(): ()| async {
            Err::<(), _>(Status::permission_denied("access denied"))
        })
        .await;
    }
    // What answers at once.
    macro_rules! answer {
        ($act:expr) => {
            unary(request, move |sent| async move { $act(&mut *shared.lock().unwrap(), sent) })
                .await
        };
    }
    match path.strip_prefix("/proto.Gofer/").unwrap_or(&path) {
        "RegisterPipelineConfig" => answer!(register),
        "GetPipeline" => answer!(get_pipeline),
        "ListPipelineConfigs" => answer!(list_configs),
        "StartRun" => answer!(start_run),
        "RetryRun" => answer!(|_: &mut State, _: proto::RetryRunRequest| {
            let why = "an initiator and its name are required";
            Err::<proto::RetryRunResponse, _>(Status::failed_precondition(why))
        }),
        "GetExtension" => answer!(get_extension),
        "InstallExtension" => answer!(install),
        "EnableExtension" => answer!(|state: &mut State, sent: proto::EnableExtensionRequest| {
            mark(state, &sent.name, ExtensionStatus::Enabled)?;
            Ok(proto::EnableExtensionResponse {})
        }),
        "DisableExtension" => answer!(|state: &mut State, sent: proto::DisableExtensionRequest| {
            mark(state, &sent.name, ExtensionStatus::Disabled)?;
            Ok(proto::DisableExtensionResponse {})
        }),
        "CreatePipelineExtensionSubscription" => answer!(subscribe),
        "DisablePipelineExtensionSubscription" => {
            answer!(|_: &mut State, _: proto::DisablePipelineExtensionSubscriptionRequest| {
                Ok(proto::DisablePipelineExtensionSubscriptionResponse {})
            })
        }
        "RunExtensionInstaller" => conversation(request, shared, true).await,
        "RunPipelineConfigurator" => conversation(request, shared, false).await,
        _ => answer!(|_: &mut State, (): ()| Err::<(), _>(Status::unimplemented("unknown method"))),
    }
}

type Answer<T> = Result<T, Status>;

fn config(state: &State) -> proto::PipelineConfig {
    let is =
        if state.deployed { PipelineConfigState::Live } else { PipelineConfigState::Unreleased };
    proto::PipelineConfig {
        namespace: "default".to_owned(),
        pipeline: "nightly".to_owned(),
        version: 3,
        state: is.into(),
        ..Default::default()
    }
}

fn pipeline(state: &State) -> proto::Pipeline {
    let is = if state.pipeline_disabled { PipelineState::Disabled } else { PipelineState::Active };
    let metadata = proto::PipelineMetadata { state: is.into(), ..Default::default() };
    proto::Pipeline { metadata: Some(metadata), config: Some(config(state)) }
}

fn register(
    state: &mut State,
    _: proto::RegisterPipelineConfigRequest,
) -> Answer<proto::RegisterPipelineConfigResponse> {
    Ok(proto::RegisterPipelineConfigResponse { pipeline: Some(pipeline(state)) })
}

fn get_pipeline(
    state: &mut State,
    request: proto::GetPipelineRequest,
) -> Answer<proto::GetPipelineResponse> {
    if request.id != "nightly" {
        return Err(Status::failed_precondition("pipeline not found"));
    }
    Ok(proto::GetPipelineResponse { pipeline: Some(pipeline(state)) })
}

fn list_configs(
    state: &mut State,
    _: proto::ListPipelineConfigsRequest,
) -> Answer<proto::ListPipelineConfigsResponse> {
    Ok(proto::ListPipelineConfigsResponse { configs: vec![config(state)] })
}

fn start_run(_: &mut State, _: proto::StartRunRequest) -> Answer<proto::StartRunResponse> {
    Err(Status::failed_precondition("could not start run"))
}

fn get_extension(
    state: &mut State,
    request: proto::GetExtensionRequest,
) -> Answer<proto::GetExtensionResponse> {
    let Some((is, status)) = state.extensions.get(&request.name) else {
        return Err(Status::unknown("extension not found"));
    };
    let extension = proto::Extension {
        name: request.name,
        state: (*is).into(),
        status: (*status).into(),
        ..Default::default()
    };
    Ok(proto::GetExtensionResponse { extension: Some(extension) })
}

fn install(
    state: &mut State,
    request: proto::InstallExtensionRequest,
) -> Answer<proto::InstallExtensionResponse> {
    state.settings.push(request.variables);
    if let Some(refusal) = state.refusals.pop_front() {
        return Err(refusal);
    }
    if state.extensions.contains_key(&request.name) {
        return Err(Status::failed_precondition("extension already exists"));
    }
    state.extensions.insert(request.name, (state.installed_as, ExtensionStatus::Enabled));
    Ok(proto::InstallExtensionResponse {})
}

/// Stores that it is enabled or disabled, and does nothing about it.
fn mark(state: &mut State, name: &str, status: ExtensionStatus) -> Answer<()> {
    let extension = state.extensions.get_mut(name);
    extension.ok_or_else(|| Status::internal("extension not found"))?.1 = status;
    Ok(())
}

fn subscribe(
    state: &mut State,
    request: proto::CreatePipelineExtensionSubscriptionRequest,
) -> Answer<proto::CreatePipelineExtensionSubscriptionResponse> {
    state.settings.push(request.settings);
    match state.refusals.pop_front() {
        Some(refusal) => Err(refusal),
        None => Ok(proto::CreatePipelineExtensionSubscriptionResponse {}),
    }
}

async fn conversation(
    request: Request<Incoming>,
    shared: Shared,
    is_installer: bool,
) -> Response<Body> {
    if is_installer {
        let codec = tonic_prost::ProstCodec::default();
        let service = Converses {
            shared,
            answer: |message: proto::RunExtensionInstallerClientMessage| match message
                .message_type?
            {
                proto::run_extension_installer_client_message::MessageType::Msg(text) => Some(text),
                proto::run_extension_installer_client_message::MessageType::Init(_) => None,
            },
            message: |step: Sent| {
                use installer::MessageType;
                proto::RunExtensionInstallerExtensionMessage {
                    message_type: Some(match step {
                        Sent::Say(text) => MessageType::Msg(text),
                        Sent::Ask(text) => MessageType::Query(text),
                        Sent::Set(config, value) => {
                            MessageType::ConfigSetting(ConfigSetting { config, value })
                        }
                    }),
                }
            },
        };
        return tonic::server::Grpc::new(codec).streaming(service, request).await;
    }
    let codec = tonic_prost::ProstCodec::default();
    let service = Converses {
        shared,
        answer: |message: proto::RunPipelineConfiguratorClientMessage| match message.message_type? {
            proto::run_pipeline_configurator_client_message::MessageType::Msg(text) => Some(text),
            proto::run_pipeline_configurator_client_message::MessageType::Init(_) => None,
        },
        message: |step: Sent| {
            use configurator::{MessageType, ParamSetting};
            proto::RunPipelineConfiguratorExtensionMessage {
                message_type: Some(match step {
                    Sent::Say(text) => MessageType::Msg(text),
                    Sent::Ask(text) => MessageType::Query(text),
                    Sent::Set(param, value) => {
                        MessageType::ParamSetting(ParamSetting { param, value })
                    }
                }),
            }
        },
    };
    tonic::server::Grpc::new(codec).streaming(service, request).await
}

enum Sent {
    Say(String),
    Ask(String),
    Set(String, String),
}

struct Converses<Q, A> {
    shared: Shared,
    answer: fn(Q) -> Option<String>,
    message: fn(Sent) -> A,
}

impl<Q, A> tower_service::Service<tonic::Request<Streaming<Q>>> for Converses<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    type Response = tonic::Response<Messages<A>>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(1);
        let (shared, answer, message) = (Arc::clone(&self.shared), self.answer, self.message);
        let mut answers = request.into_inner();
        tokio::spawn(async move {
            let steps = shared.lock().unwrap().conversation.clone();
            let mut last = String::new();
            for step in steps {
                let sent = match step {
                    Step::Say(text) => Sent::Say(text.to_owned()),
                    Step::Ask(text) | Step::AskOnly(text) => Sent::Ask(text.to_owned()),
                    Step::SetAnswer(key) => Sent::Set(key.to_owned(), last.clone()),
                    Step::End(status) => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                };
                if sender.send(Ok(message(sent))).await.is_err() {
                    return;
                }
                if matches!(step, Step::Ask(_)) {
                    last = loop {
                        let Ok(Some(sent)) = answers.message().await else { return };
                        if let Some(text) = answer(sent) {
                            break text;
                        }
                    };
                    shared.lock().unwrap().answers.push(last.clone());
                }
            }
        });
        Box::pin(async move { Ok(tonic::Response::new(Messages(receiver))) })
    }
}

struct Messages<A>(mpsc::Receiver<Result<A, Status>>);

impl<A> Stream for Messages<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
