//! What a token gives access to.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use gofer_net::Clock;
use gofer_proto as proto;
use tonic::Code;

use super::*;
use crate::Core;
use crate::store::NewKey;

thread_local! {
    /// How often this thread has looked up a token.
    pub(super) static LOOK_UPS: Cell<usize> = const { Cell::new(0) };
}

fn token(kind: TokenKind, namespaces: &[&str]) -> proto::Token {
    proto::Token {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        ..Default::default()
    }
}

fn client(namespaces: &[&str]) -> Caller {
    with(token(TokenKind::Client, namespaces), 0).unwrap()
}

fn with(token: proto::Token, now: i64) -> Result<Caller, Status> {
    Caller::with([0; 32], Arc::new(StoredToken::new(token).unwrap()), now)
}

fn event(details: &str) -> proto::Event {
    proto::Event { details: details.to_owned(), ..Default::default() }
}

#[test]
fn a_disabled_an_expired_and_an_unknown_kind_of_token_are_refused() {
    let disabled = proto::Token { disabled: true, ..token(TokenKind::Management, &[]) };
    let expired = proto::Token { expires: 1000, ..token(TokenKind::Management, &[]) };
    let unknown = token(TokenKind::Unknown, &[".*"]);
    for (token, expected) in [(disabled, "disabled"), (expired, "expired"), (unknown, "kind")] {
        let status = with(token, 1000).err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains(expected), "{status}");
    }
}

#[test]
fn a_token_is_valid_until_it_expires() {
    let token = proto::Token { expires: 1000, ..token(TokenKind::Management, &[]) };
    assert!(with(token.clone(), 999).is_ok());
    assert!(with(token, 1000).is_err());
}

#[test]
fn a_client_has_access_to_what_its_patterns_match_and_to_no_management() {
    let client = client(&["ops", "team-.*"]);
    assert_eq!(client.authorize_namespace("ops").unwrap(), "ops");
    assert_eq!(client.authorize_namespace("team-a").unwrap(), "team-a");
    for namespace in ["", "ops2", "team"] {
        let status = client.authorize_namespace(namespace).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert_eq!(client.require_manager().unwrap_err().code(), Code::PermissionDenied);
}

#[test]
fn a_management_token_gives_access_to_everything() {
    let manager = with(token(TokenKind::Management, &[]), 0).unwrap();
    assert_eq!(manager.authorize_namespace("").unwrap(), "default");
    assert_eq!(manager.authorize_namespace("anything").unwrap(), "anything");
    manager.require_manager().unwrap();
}

#[test]
fn a_client_sees_the_events_of_its_namespaces_and_of_none() {
    let client = client(&["ops"]);
    assert!(client.can_see(&event(r#"{"namespace_id":"ops","run_id":1}"#)));
    assert!(client.can_see(&event(r#"{"name":"interval"}"#)));
    assert!(!client.can_see(&event(r#"{"namespace_id":"default"}"#)));
    assert!(!client.can_see(&event("")));
}

#[tokio::test(start_paused = true)]
async fn a_long_call_notices_within_a_minute_that_its_token_expired_by_a_clock_that_was_set() {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let store = Store::new(Clock::set_by(&AHEAD)).unwrap();
    let hour = Some(Duration::from_secs(3600));
    let (_, token) = store
        .create_token(TokenKind::Management, Vec::new(), HashMap::new(), hour, &By::Core)
        .unwrap();
    let tokens = TokenTable::new(store);
    let (_, mut watch) = tokens.watch(tokens.authenticate(token.as_bytes()).unwrap()).unwrap();
    watch.check().unwrap();
    AHEAD.store(2 * 3600 * 1_000_000_000, Ordering::Relaxed);
    tokio::time::timeout(LOOK_AT_CLOCK, watch.may_have_changed()).await.unwrap();
    assert_eq!(watch.check().unwrap_err().code(), Code::Unauthenticated);
}

/// Runs a call, and returns how often a token was looked up for it.
async fn look_ups<T>(call: impl Future<Output = T>) -> usize {
    let before = LOOK_UPS.get();
    call.await;
    LOOK_UPS.get() - before
}

#[tokio::test(start_paused = true)]
async fn a_call_is_authenticated_once() {
    let core = Core::in_memory().await.unwrap();
    let mut api = core.client().api();
    // The first one opens the connection.
    api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let namespaces = api.list_namespaces(proto::ListNamespacesRequest::default());
    assert_eq!(look_ups(async { namespaces.await.unwrap() }).await, 1);
    let id = "ops".to_owned();
    let create = proto::CreateNamespaceRequest { id, ..Default::default() };
    assert_eq!(look_ups(async { api.create_namespace(create).await.unwrap() }).await, 1);
    let follow = proto::ListEventsRequest { follow: true, ..Default::default() };
    assert_eq!(look_ups(async { api.list_events(follow).await.unwrap() }).await, 1);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_or_expires_while_the_message_is_on_its_way_is_refused() {
    let store = Store::new(Clock::derived()).unwrap();
    let tokens = TokenTable::new(Arc::clone(&store));
    let create = |valid| {
        store
            .create_token(TokenKind::Management, Vec::new(), HashMap::new(), valid, &By::Core)
            .unwrap()
    };
    let begin = |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let mut request = tonic::Request::new(());
        let mut extensions = http::Extensions::new();
        tokens.authorize("/proto.Gofer/ListPipelines", &headers, &mut extensions).unwrap();
        *request.extensions_mut() = extensions;
        request
    };
    let refusal = |request: &tonic::Request<()>| {
        let status = tokens.caller(Authenticated::of(request).unwrap()).err().unwrap();
        assert_eq!(status.code(), Code::Unauthenticated);
        status.message().to_owned()
    };
    let (_, disabled) = create(None);
    let request = begin(&disabled);
    tokens.caller(Authenticated::of(&request).unwrap()).unwrap();
    store.disable_token(&disabled, true, &By::Core).unwrap();
    assert!(refusal(&request).contains("disabled"));
    let (_, deleted) = create(None);
    let request = begin(&deleted);
    store.delete_token(&deleted, &By::Core).unwrap();
    assert!(refusal(&request).contains("unknown token"));
    let (_, expired) = create(Some(Duration::from_secs(60)));
    let request = begin(&expired);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(refusal(&request).contains("expired"));
    let key = NewKey::Extension { name: "interval".to_owned(), grants: BTreeSet::new() };
    let key = store.accept_key("the key", key);
    let request = begin("the key");
    drop(key);
    assert!(refusal(&request).contains("unknown token"));
}
