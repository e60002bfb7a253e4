//! Access to every method of the API by every kind of caller.
//!
//! Requests are built from the API's description, so that each names a namespace if its method
//! takes one. A method that is missing from the table fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
use tokio::sync::Notify;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::{self, Stream, StreamExt as _};
use tonic::{Code, Request, Status};

/// What a method requires of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requires {
    /// Nothing, not even a token.
    Nothing,
    /// Any valid token.
    Token,
    /// A token with access to the namespace that this field names.
    Namespace(&'static str),
    /// A management token.
    Management,
    /// Any token; this core does not implement the method.
    Missing,
}

use Requires::{Management, Missing, Nothing, Token};

const NAMESPACE: Requires = Requires::Namespace("namespace_id");

const TABLE: [(&str, Requires); 71] = [
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
    ("CreateNamespace", Requires::Namespace("id")),
    ("GetNamespace", Requires::Namespace("id")),
    ("UpdateNamespace", Requires::Namespace("id")),
    ("DeleteNamespace", Requires::Namespace("id")),
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
    // Extensions belong to the whole core: any token may list and subscribe to them.
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
    // Those of other namespaces are not found.
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
enum CallerKind {
    NoToken,
    WrongToken,
    Expired,
    Disabled,
    ClientElsewhere,
    ClientHere,
    Manager,
}

/// `None` if the call is allowed, whatever its outcome.
fn expected(requires: Requires, kind: CallerKind) -> Option<Code> {
    match (requires, kind) {
        (Nothing, _) => None,
        (
            _,
            CallerKind::NoToken
            | CallerKind::WrongToken
            | CallerKind::Expired
            | CallerKind::Disabled,
        ) => Some(Code::Unauthenticated),
        (Missing, _) => Some(Code::Unimplemented),
        (Token, _)
        | (_, CallerKind::Manager)
        | (Requires::Namespace(_), CallerKind::ClientHere) => None,
        (Requires::Namespace(_), CallerKind::ClientElsewhere)
        | (Management, CallerKind::ClientHere | CallerKind::ClientElsewhere) => {
            Some(Code::PermissionDenied)
        }
    }
}

fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("proto.Gofer").unwrap();
    service.methods().collect()
}

/// A request of this type with this namespace, `thing` for every other name, and 1 for every
/// number.
fn request(of: &MessageDescriptor, namespace: (&str, &str), thing: &str) -> Bytes {
    Bytes::from(message(of, namespace, thing).encode_to_vec())
}

fn message(of: &MessageDescriptor, namespace: (&str, &str), thing: &str) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        // The first of alternatives, with which a conversation begins.
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
            // One that no launcher tries to pull.
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

/// Calls a method of any kind with one message, and reads the whole response.
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
    let mut grpc = tonic::client::Grpc::new(caller.clone());
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

/// A core with a namespace `here` that holds one of everything, all named `thing`.
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
    core
}

async fn callers(core: &Core) -> Vec<(CallerKind, Caller)> {
    let without_token = Caller::of(core).await;
    let expired = token(core, TokenKind::Management, &[], "1ms").await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let disabled = token(core, TokenKind::Management, &[], "").await;
    let disable = proto::DisableTokenRequest { token: disabled.clone() };
    core.client().api().disable_token(disable).await.unwrap();
    let elsewhere = token(core, TokenKind::Client, &["elsewhere"], "").await;
    let here = token(core, TokenKind::Client, &["here"], "").await;
    let manager = token(core, TokenKind::Management, &[], "").await;
    vec![
        (CallerKind::WrongToken, without_token.with("wrong")),
        (CallerKind::Expired, without_token.with(&expired)),
        (CallerKind::Disabled, without_token.with(&disabled)),
        (CallerKind::ClientElsewhere, without_token.with(&elsewhere)),
        (CallerKind::ClientHere, without_token.with(&here)),
        (CallerKind::Manager, without_token.with(&manager)),
        (CallerKind::NoToken, without_token),
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
        // A method whose request names a namespace requires access to it.
        let names_one = method.input().get_field_by_name("namespace_id").is_some();
        let requires = table[method.name()];
        assert!(
            !names_one || requires == NAMESPACE || requires == Missing,
            "{} takes a namespace",
            method.name()
        );
    }
}

#[tokio::test]
async fn each_method_allows_exactly_the_right_callers() {
    let core = core().await;
    let table: HashMap<_, _> = TABLE.into_iter().collect();
    let mut wrong = Vec::new();
    for (kind, caller) in callers(&core).await {
        for method in methods() {
            let requires = table[method.name()];
            let field =
                if let Requires::Namespace(field) = requires { field } else { "namespace_id" };
            // An allowed call names things that do not exist, so that everything is still there for
            // the next one.
            let expects = expected(requires, kind);
            let thing = if expects.is_some() { "thing" } else { "nothing" };
            // This namespace can neither be created again nor deleted: it has a pipeline.
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
                wrong.push(format!("{} by {kind:?}: {outcome:?}, not {expects:?}", method.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    core.stop().await;
}

/// The core's additions to Gofer's API require the same tokens.
#[tokio::test]
async fn the_cores_own_methods_allow_exactly_the_right_callers() {
    let core = core().await;
    for (kind, caller) in callers(&core).await {
        for (method, requires) in [("UpdateExtension", Management), ("ListExtensionStates", Token)]
        {
            let outcome =
                call_of("gofer_sdk.embedded.EmbeddedCore", &caller, method, Bytes::new()).await;
            let outcome = outcome.map_or_else(|it| it.code(), |()| Code::Ok);
            let allowed = if method == "UpdateExtension" { Code::NotFound } else { Code::Ok };
            assert_eq!(
                outcome,
                expected(requires, kind).unwrap_or(allowed),
                "{method} by {kind:?}"
            );
        }
    }
    core.stop().await;
}

/// A caller can begin a call with a valid token, and send the message when it no longer is.
#[tokio::test]
async fn a_token_that_is_revoked_before_the_message_arrives_gives_no_access() {
    let core = core().await;
    let caller = Caller::of(&core).await;
    let mut api = core.client().api();
    let inputs: HashMap<_, _> =
        methods().iter().map(|it| (it.name().to_owned(), it.input())).collect();
    // One of each kind: immediate, awaited, streaming, and the core's own.
    for (service, method) in [
        ("proto.Gofer", "CreateToken"),
        ("proto.Gofer", "UninstallExtension"),
        ("proto.Gofer", "ListEvents"),
        ("proto.Gofer", "RunExtensionInstaller"),
        ("proto.Gofer", "RunPipelineConfigurator"),
        ("gofer_sdk.embedded.EmbeddedCore", "UpdateExtension"),
    ] {
        let request = inputs
            .get(method)
            .map_or_else(Bytes::new, |of| request(of, ("namespace_id", "here"), "nothing"));
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
        let Some((_, Requires::Namespace(field))) =
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
