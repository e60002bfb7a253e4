//! Methods that are called as if the server had not authenticated anyone.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::codegen::tokio_stream::StreamExt as _;

use gofer_net::auth::{Authorize as _, Decision};
use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use gofer_proto::token::Kind;
use gofer_sdk::{Extension, NoConfig, NoParams, Result, Subscription};
use tonic::Code;

use super::*;
use crate::store::{By, NewKey};
use crate::{Core, NO_SETTINGS};

async fn api() -> Api {
    let core = Core::in_memory().await.unwrap();
    let (store, extensions) = (Arc::clone(core.store()), Arc::clone(&core.inner.extensions));
    let tokens = TokenTable::new(Arc::clone(&store));
    Api::new(store, extensions, tokens, Allowed::default())
}

/// Calls a method of a trait with an empty request.
macro_rules! call {
    ($api:expr, $service:ident::$method:ident($request:ty)) => {
        $service::$method($api, Request::new(<$request>::default())).await
    };
}

#[tokio::test]
async fn a_call_that_was_not_authenticated_is_refused() {
    let api = &api().await;
    let outcomes = [
        // One of each kind: immediate, awaited, streaming, and the core's own.
        call!(api, Gofer::list_runs(proto::ListRunsRequest)).err(),
        call!(api, Gofer::list_namespaces(proto::ListNamespacesRequest)).err(),
        call!(api, Gofer::install_extension(proto::InstallExtensionRequest)).err(),
        call!(api, Gofer::list_events(proto::ListEventsRequest)).err(),
        call!(api, EmbeddedCore::list_extension_states(ListExtensionStatesRequest)).err(),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.unwrap().code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn open_methods_require_no_authentication() {
    let api = &api().await;
    call!(api, Gofer::get_system_info(proto::GetSystemInfoRequest)).unwrap();
    // Refused, but not for want of a token.
    let refused = call!(api, Gofer::bootstrap_token(proto::BootstrapTokenRequest)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

/// As if it had been authenticated.
fn request_with<T>(api: &Api, key: &str, message: T) -> Request<T> {
    let mut request = http::Request::new(());
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {key}").try_into().unwrap());
    api.tokens.authorize("/proto.Gofer/", &headers, request.extensions_mut()).unwrap();
    let mut of = Request::new(message);
    *of.extensions_mut() = std::mem::take(request.extensions_mut());
    of
}

#[tokio::test]
async fn events_that_were_read_before_the_access_ended_are_not_sent() {
    let api = &api().await;
    let name = "watch".to_owned();
    let of = NewKey::Extension { name: name.clone(), grants: BTreeSet::new() };
    let guard = api.store.accept_key("the key", of);
    let subscription = proto::PipelineExtensionSubscription {
        namespace: "default".to_owned(),
        pipeline: "nightly".to_owned(),
        name,
        ..Default::default()
    };
    guard.begin_access(&subscription).keep();
    api.store.ensure_pipeline("", "nightly").unwrap();
    api.store.ensure_pipeline("", "other").unwrap();
    let request = request_with(api, "the key", proto::ListEventsRequest::default());
    let mut events = Gofer::list_events(api, request).await.unwrap().into_inner();
    events.next().await.unwrap().unwrap();
    api.store.end_access(&subscription);
    assert!(events.next().await.is_none());
}

/// On a paused clock, on which a stream that goes on waiting times out at once.
#[tokio::test(start_paused = true)]
async fn a_stream_of_events_ends_with_the_key() {
    let api = &api().await;
    let of = NewKey::Extension { name: "watch".to_owned(), grants: BTreeSet::new() };
    let guard = api.store.accept_key("the key", of);
    let request = proto::ListEventsRequest { follow: true, ..Default::default() };
    let request = request_with(api, "the key", request);
    let mut events = Gofer::list_events(api, request).await.unwrap().into_inner();
    let next = tokio::spawn(async move { events.next().await });
    // The stream waits for an event that the extension may see.
    tokio::task::yield_now().await;
    drop(guard);
    let ended = tokio::time::timeout(crate::hours(1), next).await.unwrap().unwrap().unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_key_of_an_installer_is_for_nothing() {
    let api = &api().await;
    let _guard = api.store.accept_key("the key", NewKey::Installer);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, "Bearer the key".parse().unwrap());
    let authorize = |path| api.tokens.authorize(path, &headers, &mut http::Extensions::new());
    authorize("/proto.Gofer/GetSystemInfo").unwrap();
    for path in ["/proto.Gofer/ListExtensions", "/gofer_sdk.embedded.EmbeddedCore/GetCapabilities"]
    {
        assert_eq!(authorize(path).unwrap_err().code(), Code::PermissionDenied);
    }
}

/// An extension that accepts every subscription.
struct Any;

impl Extension for Any {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: gofer_sdk::Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }
}

fn client_token(store: &Store) -> String {
    let (kind, all) = (Kind::Client, vec![".*".to_owned()]);
    let created = store.create_token(kind, all, HashMap::new(), None, &By::Core);
    created.unwrap().1
}

#[tokio::test]
async fn a_change_that_waited_for_its_subscription_is_refused_if_the_token_was_revoked() {
    let core = Core::in_memory().await.unwrap();
    let any = core.install::<Any>("any", NO_SETTINGS).await.unwrap();
    any.subscribe("nightly", "one", NO_SETTINGS).await.unwrap();
    let (store, extensions) = (Arc::clone(core.store()), Arc::clone(&core.inner.extensions));
    let tokens = TokenTable::new(Arc::clone(&store));
    let api = &Api::new(Arc::clone(&store), extensions, tokens, Allowed::default());
    let stored = || store.subscription("default", "nightly", "any", "one").unwrap();
    let before = stored();

    /// Begins the change, which waits, and revokes the token.
    macro_rules! refused {
        ($method:ident($Request:ident)) => {{
            let token = client_token(&store);
            let lock = store.lock_subscription(&before).await;
            let request = proto::$Request {
                pipeline_id: "nightly".to_owned(),
                extension_name: "any".to_owned(),
                extension_label: "one".to_owned(),
                ..Default::default()
            };
            let mut call = Gofer::$method(api, request_with(api, &token, request));
            tokio::select! {
                biased;
                _ = &mut call => panic!("it must wait"),
                () = tokio::task::yield_now() => {}
            }
            store.delete_token(&token, &By::Core).unwrap();
            drop(lock);
            assert_eq!(call.await.unwrap_err().code(), Code::Unauthenticated);
            assert_eq!(stored(), before);
        }};
    }
    refused!(create_pipeline_extension_subscription(CreatePipelineExtensionSubscriptionRequest));
    refused!(enable_pipeline_extension_subscription(EnablePipelineExtensionSubscriptionRequest));
    refused!(disable_pipeline_extension_subscription(DisablePipelineExtensionSubscriptionRequest));
    refused!(delete_pipeline_extension_subscription(DeletePipelineExtensionSubscriptionRequest));
    core.stop().await;
}

/// Revokes a token as soon as it is subscribed with `new`.
struct Late;

static REVOKE: Mutex<Option<(Core, String)>> = Mutex::new(None);
/// What it was subscribed with, and `end` for each end.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Deserialize, JsonSchema)]
struct LateParams {
    /// Tells subscriptions apart.
    what: String,
}

impl Extension for Late {
    type Config = NoConfig;
    type Params = LateParams;

    async fn init(_: NoConfig, _: gofer_sdk::Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, LateParams { what }: &LateParams) -> Result<()> {
        SEEN.lock().unwrap().push(what.clone());
        if let Some((core, token)) = &*REVOKE.lock().unwrap() {
            let _ = core.store().delete_token(token, &By::Core);
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<LateParams>) -> Result<()> {
        subscription.cancelled().await;
        SEEN.lock().unwrap().push("end".to_owned());
        Ok(())
    }
}

/// What the extension has is what is stored.
#[tokio::test]
async fn what_is_changed_too_late_stays_as_it_was() {
    let core = Core::in_memory().await.unwrap();
    let late = core.install::<Late>("late", NO_SETTINGS).await.unwrap();
    late.subscribe("nightly", "one", [("what", "old")]).await.unwrap();
    let (store, extensions) = (Arc::clone(core.store()), Arc::clone(&core.inner.extensions));
    let tokens = TokenTable::new(Arc::clone(&store));
    let api = &Api::new(Arc::clone(&store), extensions, tokens, Allowed::default());
    let stored = || store.subscription("default", "nightly", "late", "one").unwrap();
    let before = stored();
    let begin = || {
        let token = client_token(&store);
        *REVOKE.lock().unwrap() = Some((core.clone(), token.clone()));
        SEEN.lock().unwrap().clear();
        token
    };

    let replace = proto::CreatePipelineExtensionSubscriptionRequest {
        pipeline_id: "nightly".to_owned(),
        extension_name: "late".to_owned(),
        extension_label: "one".to_owned(),
        settings: [("what".to_owned(), "new".to_owned())].into(),
        ..Default::default()
    };
    let replace = request_with(api, &begin(), replace);
    let refused = Gofer::create_pipeline_extension_subscription(api, replace).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(*SEEN.lock().unwrap(), ["end", "new", "end", "old"]);
    assert_eq!(stored(), before);

    let enable = proto::EnablePipelineExtensionSubscriptionRequest {
        pipeline_id: "nightly".to_owned(),
        extension_name: "late".to_owned(),
        extension_label: "one".to_owned(),
        ..Default::default()
    };
    let disable = proto::DisablePipelineExtensionSubscriptionRequest {
        pipeline_id: "nightly".to_owned(),
        extension_name: "late".to_owned(),
        extension_label: "one".to_owned(),
        ..Default::default()
    };
    let disable = request_with(api, core.token(), disable);
    Gofer::disable_pipeline_extension_subscription(api, disable).await.unwrap();
    let disabled = stored();
    let enable = request_with(api, &begin(), enable);
    let refused = Gofer::enable_pipeline_extension_subscription(api, enable).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(*SEEN.lock().unwrap(), ["old", "end"]);
    assert_eq!(stored(), disabled);

    REVOKE.lock().unwrap().take();
    core.stop().await;
}

#[tokio::test]
async fn health_checks_have_their_limits_with_a_token_too() {
    let core = Core::in_memory().await.unwrap();
    let tokens = TokenTable::new(Arc::clone(core.store()));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {}", core.token()).try_into().unwrap());
    let decision =
        tokens.authorize("/grpc.health.v1.Health/Watch", &headers, &mut http::Extensions::new());
    assert_eq!(decision.unwrap(), Decision::Open);
}
