//! Who may call what: every method of the API, by every kind of caller.
//!
//! Requests are put together from the API's own description, so that each names
//! the namespace where its method takes one. A method that the table does not
//! have fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, unreachable_pub, reason = "another test file uses the rest")]
use std::collections::{BTreeMap, HashMap};

use crate::caller::Caller;
use bytes::{Buf, BufMut, Bytes};
use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind as TokenKind;
use http::uri::PathAndQuery;
use protox::prost::Message as _;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic::{Code, Request, Status};

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// Not even a token.
    Nothing,
    /// Any token that is valid.
    Token,
    /// A token with access to the namespace that this field names.
    Namespace(&'static str),
    /// A management token.
    Management,
    /// Any token; this core does not have the method.
    Missing,
}

use Asks::{Management, Missing, Nothing, Token};

const NAMESPACE: Asks = Asks::Namespace("namespace_id");

const TABLE: [(&str, Asks); 71] = [
    ("GetSystemInfo", Nothing),
    ("BootstrapToken", Nothing),
    ("RepairOrphan", Missing),
    ("ToggleEventIngress", Management),
    ("CreateToken", Management),
    ("ListTokens", Management),
    ("GetToken", Management),
    ("EnableToken", Management),
    ("DisableToken", Management),
    ("DeleteToken", Management),
    // Lists what the token gives access to.
    ("ListNamespaces", Token),
    ("CreateNamespace", Asks::Namespace("id")),
    ("GetNamespace", Asks::Namespace("id")),
    ("UpdateNamespace", Asks::Namespace("id")),
    ("DeleteNamespace", Asks::Namespace("id")),
    ("GetPipeline", NAMESPACE),
    ("ListPipelines", NAMESPACE),
    ("EnablePipeline", NAMESPACE),
    ("DisablePipeline", NAMESPACE),
    ("DeletePipeline", NAMESPACE),
    ("DeployPipeline", Missing),
    ("ListDeployments", Missing),
    ("GetDeployment", Missing),
    ("ListPipelineConfigs", NAMESPACE),
    ("GetPipelineConfig", NAMESPACE),
    ("RegisterPipelineConfig", NAMESPACE),
    ("DeletePipelineConfig", NAMESPACE),
    ("GetRun", NAMESPACE),
    ("ListRuns", NAMESPACE),
    ("StartRun", NAMESPACE),
    ("RetryRun", NAMESPACE),
    ("CancelRun", NAMESPACE),
    ("CancelAllRuns", NAMESPACE),
    ("GetTaskRun", Missing),
    ("ListTaskRuns", Missing),
    ("CancelTaskRun", Missing),
    ("AttachToTaskRun", Missing),
    ("GetTaskRunLogs", Missing),
    ("DeleteTaskRunLogs", Missing),
    // Extensions are of the whole core; everyone may see and subscribe to them.
    ("GetExtension", Token),
    ("ListExtensions", Token),
    ("RunPipelineConfigurator", Token),
    ("InstallExtension", Management),
    ("UninstallExtension", Management),
    ("EnableExtension", Management),
    ("DisableExtension", Management),
    ("RunExtensionInstaller", Management),
    ("CreatePipelineExtensionSubscription", NAMESPACE),
    ("GetPipelineExtensionSubscription", NAMESPACE),
    ("ListPipelineExtensionSubscriptions", NAMESPACE),
    ("EnablePipelineExtensionSubscription", NAMESPACE),
    ("DisablePipelineExtensionSubscription", NAMESPACE),
    ("DeletePipelineExtensionSubscription", NAMESPACE),
    // Those of other namespaces are as if they were not there.
    ("GetEvent", Token),
    ("ListEvents", Token),
    ("ListPipelineObjects", NAMESPACE),
    ("GetPipelineObject", NAMESPACE),
    ("PutPipelineObject", NAMESPACE),
    ("DeletePipelineObject", NAMESPACE),
    ("ListRunObjects", NAMESPACE),
    ("GetRunObject", NAMESPACE),
    ("PutRunObject", NAMESPACE),
    ("DeleteRunObject", NAMESPACE),
    ("ListPipelineSecrets", NAMESPACE),
    ("GetPipelineSecret", NAMESPACE),
    ("PutPipelineSecret", NAMESPACE),
    ("DeletePipelineSecret", NAMESPACE),
    ("ListGlobalSecrets", Management),
    ("GetGlobalSecret", Management),
    ("PutGlobalSecret", Management),
    ("DeleteGlobalSecret", Management),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    WrongToken,
    Expired,
    Disabled,
    ClientElsewhere,
    ClientHere,
    Manager,
}

/// `None` where the call goes through: to whatever comes of it.
fn expected(asks: Asks, who: Who) -> Option<Code> {
    match (asks, who) {
        (Nothing, _) => None,
        (_, Who::Nobody | Who::WrongToken | Who::Expired | Who::Disabled) => {
            Some(Code::Unauthenticated)
        }
        (Missing, _) => Some(Code::Unimplemented),
        (Token, _) | (_, Who::Manager) | (Asks::Namespace(_), Who::ClientHere) => None,
        (Asks::Namespace(_), Who::ClientElsewhere)
        | (Management, Who::ClientHere | Who::ClientElsewhere) => Some(Code::PermissionDenied),
    }
}

fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("proto.Gofer").unwrap();
    service.methods().collect()
}

/// A request of this kind that names a namespace and, for everything else that
/// it names, `thing`, with a 1 for each number.
fn request(of: &MessageDescriptor, namespace: (&str, &str), thing: &str) -> Bytes {
    Bytes::from(message(of, namespace, thing).encode_to_vec())
}

fn message(of: &MessageDescriptor, namespace: (&str, &str), thing: &str) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        // Of alternatives the first, which is what a conversation begins with.
        let is_another = field
            .containing_oneof()
            .is_some_and(|oneof| oneof.fields().next().is_some_and(|first| first != field));
        if field.is_list() || field.is_map() || is_another {
            continue;
        }
        let value = match field.kind() {
            Kind::String if field.name() == namespace.0 => Value::String(namespace.1.to_owned()),
            // A duration.
            Kind::String if field.name() == "expires" => continue,
            // One that no launcher goes looking for elsewhere.
            Kind::String if field.name() == "image" => Value::String(format!("in-process:{thing}")),
            Kind::String => Value::String(thing.to_owned()),
            Kind::Int64 if field.name() == "offset" => continue,
            Kind::Int64 => Value::I64(1),
            Kind::Message(inner) => Value::Message(message(&inner, namespace, thing)),
            _ => continue,
        };
        made.set_field(&field, value);
    }
    made
}

/// Messages as bytes, whatever they are; answers are not looked at.
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

/// Calls a method of any kind with one message, and looks at all that comes back.
async fn call(caller: &Caller, method: &str, request: Bytes) -> Result<(), Status> {
    call_of("proto.Gofer", caller, method, request).await
}

async fn call_of(
    service: &str,
    caller: &Caller,
    method: &str,
    request: Bytes,
) -> Result<(), Status> {
    let path = PathAndQuery::try_from(format!("/{service}/{method}")).unwrap();
    let mut grpc = tonic::client::Grpc::new(caller.clone());
    let messages = tokio_stream::once(request);
    let mut answers = grpc.streaming(Request::new(messages), path, Raw).await?.into_inner();
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

async fn token(core: &Core, kind: TokenKind, namespaces: &[&str], expires: &str) -> String {
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        expires: expires.to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

/// A core with one of everything that is in a namespace: in `here`, all of it
/// named `thing`.
async fn core() -> Core {
    let core = Core::on_loopback().await.unwrap();
    let mut api = core.client().api();
    let namespace =
        |id: &str| proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
    api.create_namespace(namespace("here")).await.unwrap();
    api.create_namespace(namespace("elsewhere")).await.unwrap();
    let (namespace_id, pipeline_id) = ("here".to_owned(), "thing".to_owned());
    let config = proto::UserPipelineConfig { id: "thing".to_owned(), ..Default::default() };
    let register = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace_id.clone(),
        pipeline_config: Some(config),
    };
    api.register_pipeline_config(register).await.unwrap();
    let start = proto::StartRunRequest {
        namespace_id: namespace_id.clone(),
        pipeline_id: pipeline_id.clone(),
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
    // Whoever asks without any token is too late, then.
    api.bootstrap_token(proto::BootstrapTokenRequest {}).await.unwrap();
    core
}

async fn callers(core: &Core) -> Vec<(Who, Caller)> {
    let nobody = Caller::of(core).await;
    let expired = token(core, TokenKind::Management, &[], "1ms").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let disabled = token(core, TokenKind::Management, &[], "").await;
    let disable = proto::DisableTokenRequest { token: disabled.clone() };
    core.client().api().disable_token(disable).await.unwrap();
    let elsewhere = token(core, TokenKind::Client, &["elsewhere"], "").await;
    let here = token(core, TokenKind::Client, &["here"], "").await;
    let manager = token(core, TokenKind::Management, &[], "").await;
    vec![
        (Who::WrongToken, nobody.with("wrong")),
        (Who::Expired, nobody.with(&expired)),
        (Who::Disabled, nobody.with(&disabled)),
        (Who::ClientElsewhere, nobody.with(&elsewhere)),
        (Who::ClientHere, nobody.with(&here)),
        (Who::Manager, nobody.with(&manager)),
        (Who::Nobody, nobody),
    ]
}

#[test]
fn each_method_is_in_the_table_once() {
    let table: BTreeMap<_, _> = TABLE.into_iter().collect();
    assert_eq!(table.len(), TABLE.len());
    let mut names: Vec<_> = methods().iter().map(|method| method.name().to_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, table.keys().copied().collect::<Vec<_>>());
    for method in methods() {
        // A method whose request names a namespace asks for access to it.
        let names_one = method.input().get_field_by_name("namespace_id").is_some();
        let asks = table[method.name()];
        assert!(
            !names_one || asks == NAMESPACE || asks == Missing,
            "{} takes a namespace",
            method.name()
        );
    }
}

#[tokio::test]
async fn each_method_lets_in_whom_it_should_and_nobody_else() {
    let core = core().await;
    let table: HashMap<_, _> = TABLE.into_iter().collect();
    let mut wrong = Vec::new();
    for (who, caller) in callers(&core).await {
        for method in methods() {
            let asks = table[method.name()];
            let field = if let Asks::Namespace(field) = asks { field } else { "namespace_id" };
            // What goes through is about nothing that is there, so that all is
            // there for the next one.
            let expects = expected(asks, who);
            let thing = if expects.is_some() { "thing" } else { "nothing" };
            // This one can neither be made again nor deleted: it has a pipeline.
            let request = request(&method.input(), (field, "here"), thing);
            let outcome = call(&caller, method.name(), request)
                .await
                .map_or_else(|it| it.code(), |()| Code::Ok);
            let right = match expects {
                Some(expected) => outcome == expected,
                None => !matches!(
                    outcome,
                    Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
                ),
            };
            if !right {
                wrong.push(format!("{} by {who:?}: {outcome:?}, not {expects:?}", method.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    core.stop().await;
}

/// What the core has beside Gofer's API is behind the same tokens.
#[tokio::test]
async fn the_cores_own_methods_let_in_whom_they_should_and_nobody_else() {
    let core = core().await;
    for (who, caller) in callers(&core).await {
        for (method, asks) in [("UpdateExtension", Management), ("ListExtensionStates", Token)] {
            let outcome =
                call_of("gofer_sdk.embedded.EmbeddedCore", &caller, method, Bytes::new()).await;
            let told = outcome.map_or_else(|it| it.code(), |()| Code::Ok);
            let let_in = if method == "UpdateExtension" { Code::NotFound } else { Code::Ok };
            assert_eq!(told, expected(asks, who).unwrap_or(let_in), "{method} by {who:?}");
        }
    }
    core.stop().await;
}

/// What a client is told of another namespace is the same, whatever is in it and
/// whether it is there.
#[tokio::test]
async fn nothing_is_learned_of_a_namespace_without_access() {
    let core = core().await;
    let client = token(&core, TokenKind::Client, &["elsewhere"], "").await;
    let client = Caller::of(&core).await.with(&client);
    for method in methods() {
        let Some((_, Asks::Namespace(field))) =
            TABLE.into_iter().find(|(name, _)| *name == method.name())
        else {
            continue;
        };
        let ask = async |namespace: &str, thing: &str| {
            let request = request(&method.input(), (field, namespace), thing);
            let status = call(&client, method.name(), request).await.unwrap_err();
            (status.code(), status.message().replace(namespace, "<namespace>"))
        };
        let there = ask("here", "thing").await;
        assert_eq!(there.0, Code::PermissionDenied, "{}", method.name());
        assert!(there.1.contains("<namespace>"), "{}: {}", method.name(), there.1);
        for (namespace, thing) in [("here", "nothing"), ("absent", "thing")] {
            assert_eq!(ask(namespace, thing).await, there, "{}", method.name());
        }
        // No name means `default`.
        let request = request(&method.input(), (field, ""), "thing");
        let status = call(&client, method.name(), request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{}", method.name());
    }
    let mut api = client.api();
    let namespaces = api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let seen: Vec<_> = namespaces.into_inner().namespaces.into_iter().map(|it| it.id).collect();
    assert_eq!(seen, ["elsewhere"]);
    // The first is of `here`, the last is not there.
    let mut told = Vec::new();
    for id in [1, 1_000_000] {
        let status = api.get_event(proto::GetEventRequest { id }).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        told.push(status.message().replace(&id.to_string(), "<id>"));
    }
    assert_eq!(told[0], told[1]);
    core.stop().await;
}
