//! Access to every method of the API by every kind of caller.
//!
//! Requests are built from the API's description, so that each names a namespace if its method
//! takes one, and a method that is new is called too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::caller::Caller;
use crate::files::{Directory, write_script};
use crate::metronome;
use bytes::{Buf, BufMut, Bytes};
use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind as TokenKind;
use http::uri::PathAndQuery;
use protox::prost::Message as _;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
    Value,
};
use tokio::sync::Notify;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::{self, Stream, StreamExt as _};
use tonic::{Code, Request, Status};

/// What is expected; also a page of the documentation. To write it again from what the core does:
const UPDATE: &str = "UPDATE_ACCESS=1 cargo test -p gofer-core --test core authorization";

fn page() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md")
}

/// Gofer's API, then the core's additions to it.
fn services() -> [ServiceDescriptor; 2] {
    let gofer = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    [
        gofer.get_service_by_name("proto.Gofer").unwrap(),
        embedded().get_service_by_name("gofer_sdk.embedded.EmbeddedCore").unwrap(),
    ]
}

/// The description of the core's additions.
pub(crate) fn embedded() -> DescriptorPool {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let embedded = protox::compile(["embedded_core.proto"], [protos]).unwrap();
    DescriptorPool::from_file_descriptor_set(embedded).unwrap()
}

/// The methods of Gofer's API.
fn methods() -> Vec<MethodDescriptor> {
    services()[0].methods().collect()
}

/// What a request names.
#[derive(Clone, Copy)]
struct Names {
    namespace: &'static str,
    pipeline: &'static str,
    extension: &'static str,
    /// Every other name.
    thing: &'static str,
    /// An extension starts runs in its own name.
    is_extension: bool,
}

/// What exists, and what belongs to the extension.
const OWN: Names = Names {
    namespace: "here",
    pipeline: "thing",
    extension: "own",
    thing: "nothing",
    is_extension: false,
};

/// A request of a method with these names, and 1 for every number.
fn request(method: &MethodDescriptor, names: Names) -> Bytes {
    Bytes::from(message(method.name(), &method.input(), names).encode_to_vec())
}

fn message(method: &str, of: &MessageDescriptor, names: Names) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        // The first of alternatives, with which a conversation begins.
        let is_another = field
            .containing_oneof()
            .is_some_and(|oneof| oneof.fields().next().is_some_and(|first| first != field));
        if field.is_list() || field.is_map() || is_another {
            continue;
        }
        let text = |text: &str| Value::String(text.to_owned());
        let value = match (field.kind(), field.name()) {
            (Kind::String, "namespace_id") => text(names.namespace),
            (Kind::String, "id") if method.ends_with("Namespace") => text(names.namespace),
            (Kind::String, "id" | "pipeline_id") => text(names.pipeline),
            (Kind::String, "extension_name") => text(names.extension),
            (Kind::String, "name") if method == "GetExtension" => text(names.extension),
            // An initiator's.
            (Kind::String, "name") if names.is_extension => text("own (table)"),
            (Kind::Enum(_), "type") if names.is_extension => Value::EnumNumber(3),
            // A duration, and where a page begins.
            (Kind::String, "expires") | (Kind::Int64, "offset") => continue,
            // One that no launcher tries to pull.
            (Kind::String, "image") => text(&format!("in-process:{}", names.thing)),
            (Kind::String, _) => text(names.thing),
            (Kind::Int64, _) => Value::I64(1),
            (Kind::Message(inner), _) => Value::Message(message(method, &inner, names)),
            _ => continue,
        };
        made.set_field(&field, value);
    }
    made
}

/// Messages as bytes; responses are ignored.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// Calls a method of any kind with one message, and reads the whole response, or the beginning of one
/// that does not end.
async fn call(caller: &Caller, method: &str, request: Bytes) -> Result<(), Status> {
    call_of("proto.Gofer", caller, method, request).await
}

async fn call_of(
    service: &str,
    caller: &Caller,
    method: &str,
    request: Bytes,
) -> Result<(), Status> {
    call_with(service, caller, method, tokio_stream::once(request)).await
}

async fn call_with(
    service: &str,
    caller: &Caller,
    method: &str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<(), Status> {
    let path = PathAndQuery::try_from(format!("/{service}/{method}")).unwrap();
    let mut grpc = tonic::client::Grpc::new(caller.0.clone());
    let mut answers = grpc.streaming(Request::new(messages), path, Raw).await?.into_inner();
    while let Some(answer) = answers.next().await {
        answer?;
        if method == "FollowEvents" {
            break;
        }
    }
    Ok(())
}

async fn token(core: &Core, kind: TokenKind, namespaces: &[&str], expires: &str) -> String {
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        expires: if expires.is_empty() { "24h" } else { expires }.to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

/// A core with two namespaces, and in each two pipelines that hold one of everything.
async fn core() -> Core {
    // Programs are allowed for the installer, whose key the program writes down.
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).allow_programs().start().await.unwrap();
    let mut api = core.client().api();
    for id in ["here", "elsewhere"] {
        let namespace = proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
        api.create_namespace(namespace).await.unwrap();
        for pipeline in ["thing", "sibling"] {
            fill(&core, id, pipeline).await;
        }
    }
    core
}

/// Registers a pipeline with a run, an object of each kind and a secret, all named `thing`.
async fn fill(core: &Core, namespace: &str, pipeline: &str) {
    let mut api = core.client().api();
    let (namespace_id, pipeline_id) = (namespace.to_owned(), pipeline.to_owned());
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let register = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace_id.clone(),
        pipeline_config: Some(config),
    };
    api.register_pipeline_config(register).await.unwrap();
    let start = proto::StartRunRequest {
        namespace_id: namespace_id.clone(),
        pipeline_id: pipeline_id.clone(),
        initiator: Some(proto::Initiator { name: "thing".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    api.start_run(start).await.unwrap();
    let object = proto::PutPipelineObjectRequest {
        namespace_id: namespace_id.clone(),
        pipeline_id: pipeline_id.clone(),
        key: "thing".to_owned(),
        ..Default::default()
    };
    api.put_pipeline_object(object).await.unwrap();
    let object = proto::PutRunObjectRequest {
        namespace_id: namespace_id.clone(),
        pipeline_id: pipeline_id.clone(),
        run_id: 1,
        key: "thing".to_owned(),
        ..Default::default()
    };
    api.put_run_object(object).await.unwrap();
    let secret = proto::PutPipelineSecretRequest {
        namespace_id,
        pipeline_id,
        key: "thing".to_owned(),
        content: "hidden".to_owned(),
        ..Default::default()
    };
    api.put_pipeline_secret(secret).await.unwrap();
}

/// Subscribes the pipeline `here/thing` to the extension `own`.
async fn subscribe(core: &Core) {
    let own = core.installed("own").unwrap();
    own.subscribe("here/thing", "daily", [("every", "24h")]).await.unwrap();
}

/// The extension's program, and the file that it writes its key to.
fn program(directory: &Directory, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (program, key) = (directory.0.join(name), directory.0.join(format!("{name}.key")));
    let write = format!("printf %s \"$GOFER_EXTENSION_SYSTEM_KEY\" > '{}'", key.display());
    write_script(&program, &format!("{write}\nexec '{}'", metronome::program().display()));
    (program, key)
}

/// A column of the table: who calls, and what the requests name. One kind of caller may have several
/// tokens, which must get the same answers.
struct Column {
    title: &'static str,
    callers: Vec<Caller>,
    names: Names,
}

/// All callers. The conversation lasts as long as the sender of the caller's messages.
async fn columns(core: &Core, directory: &Directory) -> (Vec<Column>, tokio::task::JoinHandle<()>) {
    let without_token = Caller::of(core).await;
    let expired = token(core, TokenKind::Management, &[], "1ms").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let disabled = token(core, TokenKind::Management, &[], "").await;
    let disable = proto::DisableTokenRequest { token: disabled.clone() };
    core.client().api().disable_token(disable).await.unwrap();
    let elsewhere = token(core, TokenKind::Client, &["elsewhere"], "").await;
    let here = token(core, TokenKind::Client, &["here"], "").await;
    let manager = token(core, TokenKind::Management, &[], "").await;
    let (own, key) = program(directory, "own");
    core.install_program("own", &own, [("min_interval", "1s")]).await.unwrap();
    subscribe(core).await;
    let own = without_token.with(&std::fs::read_to_string(key).unwrap());
    let (installer, conversation) = installer(core, directory).await;
    let wrong = ["wrong", &expired, &disabled].map(|token| without_token.with(token));
    let foreign = Names { extension: "other", is_extension: true, ..OWN };
    let column = |title, caller: Caller, names| Column { title, callers: vec![caller], names };
    let columns = vec![
        column("no token", without_token.clone(), OWN),
        Column { title: "invalid token", callers: wrong.into(), names: OWN },
        column("client of the namespace", without_token.with(&here), OWN),
        column("client of another", without_token.with(&elsewhere), OWN),
        column("manager", without_token.with(&manager), OWN),
        column("extension: its pipeline", own.clone(), Names { is_extension: true, ..OWN }),
        column("another of the namespace", own.clone(), Names { pipeline: "sibling", ..foreign }),
        column("another namespace", own, Names { namespace: "elsewhere", ..foreign }),
        column("installer", without_token.with(&installer), OWN),
    ];
    (columns, conversation)
}

/// The key of an installer's conversation, and the conversation, which waits for an answer.
async fn installer(core: &Core, directory: &Directory) -> (String, tokio::task::JoinHandle<()>) {
    use proto::run_extension_installer_client_message::{Init, MessageType};
    let (program, key) = program(directory, "installer");
    let image = format!("exec:{}", program.display());
    let init = MessageType::Init(Init { image, ..Default::default() });
    let init = proto::RunExtensionInstallerClientMessage { message_type: Some(init) };
    let messages = tokio_stream::once(init).chain(tokio_stream::pending());
    let answers = core.client().api().run_extension_installer(messages).await.unwrap();
    let conversation = tokio::spawn(async move {
        let mut answers = answers.into_inner();
        while let Some(Ok(_)) = answers.next().await {}
    });
    (std::fs::read_to_string(key).unwrap(), conversation)
}

/// How a call ends, as the table shows it.
fn outcome(outcome: Result<(), Status>) -> &'static str {
    match outcome.map_or_else(|status| status.code(), |()| Code::Ok) {
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "denied",
        Code::Unimplemented => "unimplemented",
        // Allowed, whatever comes of it.
        _ => "yes",
    }
}

const INTRODUCTION: &str = "\
# Who may call what

Every method of the core's API, and what becomes of a call by each caller: `yes` if it is allowed, \
`denied` if it is answered with `PERMISSION_DENIED`, `unauthenticated` with `UNAUTHENTICATED`. A \
test makes all of these calls and compares the outcomes with this page.

An extension calls with the key it was launched with. It has access to the pipelines that are \
subscribed to it (*its pipeline*), and reads what is in their namespaces (*another of the \
namespace*). It starts runs in its own name: the initiator is its name and a label. The columns show \
an extension without grants.

Where a method lists or looks up something for any token, its answer holds only what the caller may \
see: `GetEvent`, `ListEvents` and `FollowEvents` the events of its namespaces, `ListNamespaces` these namespaces; to \
an extension, `ListExtensions`, `ListExtensionStates` and the lists of subscriptions show itself. \
`ListSubscriptionStates` lists the subscriptions in the caller's namespaces, with their errors. Only a manager sees why an extension failed. `BootstrapToken` needs no token, and makes one only in a \
core that was started to allow it.
";

/// Undoes what some callers are allowed to do and the next calls would notice.
async fn undo(core: &Core, method: &str, is_allowed: bool) {
    match method {
        "ToggleEventIngress" if is_allowed => {
            let request = proto::ToggleEventIngressRequest {};
            core.client().api().toggle_event_ingress(request).await.unwrap();
        }
        "DeletePipeline" if is_allowed => {
            fill(core, "here", "thing").await;
            subscribe(core).await;
        }
        _ => {}
    }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The page, from what the core does.
async fn written(core: &Core, columns: &[Column]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for service in services() {
        page.extend(["\n## ", service.full_name(), "\n\n"]);
        let titles = columns.iter().map(|column| column.title);
        page += &row(&["method"].into_iter().chain(titles).collect::<Vec<_>>());
        page += &row(&vec!["---"; columns.len() + 1]);
        for method in service.methods() {
            let mut cells = vec![method.name()];
            for Column { title, callers, names } in columns {
                let request = request(&method, *names);
                let mut seen = Vec::new();
                for caller in callers {
                    let call = call_of(service.full_name(), caller, method.name(), request.clone());
                    let outcome = outcome(call.await);
                    undo(core, method.name(), outcome == "yes").await;
                    seen.push(outcome);
                }
                seen.dedup();
                assert_eq!(seen.len(), 1, "{} by {title}: {seen:?}", method.name());
                cells.push(seen[0]);
            }
            page += &row(&cells);
        }
    }
    page
}

#[cfg(unix)]
#[tokio::test]
async fn each_method_allows_exactly_the_callers_of_the_page() {
    let core = core().await;
    let directory = Directory::new("authorization");
    let (columns, conversation) = columns(&core, &directory).await;
    let written = written(&core, &columns).await;
    assert!(!conversation.is_finished(), "the installer's key was valid until now");
    conversation.abort();
    core.stop().await;
    if std::env::var_os("UPDATE_ACCESS").is_some_and(|value| value == "1") {
        std::fs::write(page(), written).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(page()).unwrap();
    let wrong: Vec<_> = written.lines().filter(|line| !expected.contains(line)).collect();
    assert!(
        wrong.is_empty(),
        "not as docs/access.md says: {wrong:#?}. To write it again: {UPDATE}"
    );
    assert_eq!(written, expected);
}

#[test]
fn the_services_have_the_methods_that_the_page_lists() {
    let page = std::fs::read_to_string(page()).unwrap();
    // Each has two more lines, its head.
    let [gofer, embedded] = services().map(|service| service.methods().len());
    assert_eq!(gofer, 71);
    assert_eq!(page.lines().filter(|line| line.starts_with("| ")).count(), gofer + embedded + 4);
}

/// A caller can begin a call with a valid token, and send the message when it no longer is.
#[tokio::test]
async fn a_token_that_is_revoked_before_the_message_arrives_gives_no_access() {
    let core = core().await;
    let caller = Caller::of(&core).await;
    let mut api = core.client().api();
    let all: HashMap<_, _> = services()
        .iter()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|it| (it.full_name().to_owned(), it))
        .collect();
    // One of each kind: immediate, awaited, streaming, and the core's own.
    for (service, method) in [
        ("proto.Gofer", "CreateToken"),
        ("proto.Gofer", "UninstallExtension"),
        ("proto.Gofer", "ListEvents"),
        ("proto.Gofer", "RunExtensionInstaller"),
        ("proto.Gofer", "RunPipelineConfigurator"),
        ("gofer_sdk.embedded.EmbeddedCore", "UpdateExtension"),
        ("gofer_sdk.embedded.EmbeddedCore", "FollowEvents"),
    ] {
        let request = request(&all[&format!("{service}.{method}")], OWN);
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut tokens = Vec::new();
        let mut calls = Vec::new();
        for _ in 0..3 {
            let token = token(&core, TokenKind::Management, &[], "").await;
            let (caller, begun_too, go_on) =
                (caller.with(&token), Arc::clone(&begun), Arc::clone(&go_on));
            let messages = tokio_stream::once(request.clone()).then(move |request| {
                let (begun, go_on) = (Arc::clone(&begun_too), Arc::clone(&go_on));
                async move {
                    let go_on = go_on.notified();
                    begun.notify_one();
                    go_on.await;
                    request
                }
            });
            calls.push(tokio::spawn(
                async move { call_with(service, &caller, method, messages).await },
            ));
            begun.notified().await;
            tokens.push(token);
        }
        // Answered on the same connection after the headers of the calls have arrived.
        caller.with(core.token()).call("ListExtensions").await.unwrap();
        let [disabled, deleted, _kept] = &tokens[..] else { panic!() };
        api.disable_token(proto::DisableTokenRequest { token: disabled.clone() }).await.unwrap();
        api.delete_token(proto::DeleteTokenRequest { token: deleted.clone() }).await.unwrap();
        go_on.notify_waiters();
        for (call, revoked) in calls.into_iter().zip([true, true, false]) {
            let outcome = call.await.unwrap().map_or_else(|it| it.code(), |()| Code::Ok);
            assert_eq!(outcome == Code::Unauthenticated, revoked, "{method}: {outcome:?}");
        }
    }
    core.stop().await;
}

/// The error about another namespace is the same whatever it contains, and whether it exists or
/// not.
#[tokio::test]
async fn errors_reveal_nothing_about_a_namespace_without_access() {
    let core = core().await;
    let client = token(&core, TokenKind::Client, &["elsewhere"], "").await;
    let client = Caller::of(&core).await.with(&client);
    for method in methods() {
        let names_one = method.input().get_field_by_name("namespace_id").is_some()
            || method.name().ends_with("Namespace");
        let ask = async |namespace: &'static str, thing: &'static str| {
            let names = Names { namespace, pipeline: thing, extension: thing, thing, ..OWN };
            let status = call(&client, method.name(), request(&method, names)).await.unwrap_err();
            (status.code(), status.message().replace(namespace, "<namespace>"))
        };
        if !names_one || ask("here", "thing").await.0 == Code::Unimplemented {
            continue;
        }
        let there = ask("here", "thing").await;
        assert_eq!(there.0, Code::PermissionDenied, "{}", method.name());
        assert!(there.1.contains("<namespace>"), "{}: {}", method.name(), there.1);
        for (namespace, thing) in [("here", "nothing"), ("absent", "thing")] {
            assert_eq!(ask(namespace, thing).await, there, "{}", method.name());
        }
        // No name means `default`.
        let request = request(&method, Names { namespace: "", ..OWN });
        let status = call(&client, method.name(), request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{}", method.name());
    }
    let mut api = client.api();
    let namespaces = api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let seen: Vec<_> = namespaces.into_inner().namespaces.into_iter().map(|it| it.id).collect();
    assert_eq!(seen, ["elsewhere"]);
    // The first is of `here`, the last does not exist.
    let mut messages = Vec::new();
    for id in [1, 1_000_000] {
        let status = api.get_event(proto::GetEventRequest { id }).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        messages.push(status.message().replace(&id.to_string(), "<id>"));
    }
    assert_eq!(messages[0], messages[1]);
    core.stop().await;
}
