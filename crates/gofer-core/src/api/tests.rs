//! Methods that are called as if the server had not authenticated anyone.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::codegen::tokio_stream::StreamExt as _;

use gofer_net::auth::Authorize as _;
use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use tonic::Code;

use super::*;
use crate::Core;
use crate::store::NewKey;

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
