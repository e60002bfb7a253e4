//! What the key of an extension gives access to, and for how long.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;
use std::time::Duration;

use tonic::Code;

use super::super::{Holder, Owner};
use super::*;
use gofer_net::Clock;
use gofer_proto as proto;
use gofer_proto::initiator::Type;
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::token::Kind;
use gofer_proto::{Initiator, RetryRunRequest, StartRunRequest};

fn store() -> Arc<Store> {
    let store = Store::new(Clock::derived()).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    store.ensure_pipeline("", "other").unwrap();
    store
}

fn key(store: &Arc<Store>, grants: &[Grant]) -> (KeyGuard, Arc<ExtensionKey>) {
    let grants = grants.iter().copied().collect();
    let of = NewKey::Extension { name: "interval".to_owned(), grants };
    let guard = store.accept_key("the key", of);
    let Some(KeyHolder::Extension(key)) = store.key_holder(&sha256(b"the key")) else { panic!() };
    (guard, key)
}

fn subscription(pipeline: &str, label: &str) -> Subscription {
    Subscription {
        namespace: "default".to_owned(),
        pipeline: pipeline.to_owned(),
        name: "interval".to_owned(),
        label: label.to_owned(),
        ..Default::default()
    }
}

fn start(store: &Store, by: &Arc<ExtensionKey>) -> Result<i64, Code> {
    let initiator = Initiator {
        r#type: Type::Extension.into(),
        name: "interval (hourly)".to_owned(),
        ..Default::default()
    };
    let request = StartRunRequest {
        pipeline_id: "nightly".to_owned(),
        initiator: Some(initiator),
        ..Default::default()
    };
    let by = By::Extension(Arc::clone(by));
    store.start_run(request, &by).map(|run| run.id).map_err(|status| status.code())
}

fn object(store: &Store, by: &Arc<ExtensionKey>, pipeline: &str) -> Result<(), Code> {
    let by = By::Extension(Arc::clone(by));
    let of = Owner { namespace: "", pipeline, run: None, by: &by };
    let put = store.put_object(of, "cursor".to_owned(), "1".into(), true);
    put.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn access_is_to_the_pipeline_of_a_subscription_and_to_no_other() {
    let store = store();
    let (guard, key) = key(&store, &[]);
    assert_eq!(start(&store, &key), Err(Code::PermissionDenied));
    guard.begin_access(&subscription("nightly", "hourly")).keep();
    assert_eq!(start(&store, &key), Ok(1));
    assert_eq!(object(&store, &key, "nightly"), Ok(()));
    assert_eq!(object(&store, &key, "other"), Err(Code::PermissionDenied));
    // Whether it exists or not.
    assert_eq!(object(&store, &key, "absent"), Err(Code::PermissionDenied));
    assert!(store.is_subscribed_in(&key, "default") && !store.is_subscribed_in(&key, "ops"));
    store.end_access(&subscription("nightly", "hourly"));
    assert_eq!(start(&store, &key), Err(Code::PermissionDenied));
    assert!(store.namespaces_of(&key).is_empty());
}

#[tokio::test]
async fn access_lasts_as_long_as_one_of_several_labels() {
    let store = store();
    let (guard, key) = key(&store, &[]);
    for label in ["hourly", "daily"] {
        guard.begin_access(&subscription("nightly", label)).keep();
    }
    store.end_access(&subscription("nightly", "hourly"));
    assert_eq!(start(&store, &key), Ok(1));
    store.end_access(&subscription("nightly", "daily"));
    assert_eq!(start(&store, &key), Err(Code::PermissionDenied));
}

#[tokio::test]
async fn a_refused_subscribe_leaves_the_access_that_there_was() {
    let store = store();
    let (guard, key) = key(&store, &[]);
    let during = guard.begin_access(&subscription("nightly", "hourly"));
    assert_eq!(start(&store, &key), Ok(1));
    drop(during);
    assert_eq!(start(&store, &key), Err(Code::PermissionDenied));
    guard.begin_access(&subscription("nightly", "hourly")).keep();
    drop(guard.begin_access(&subscription("nightly", "hourly")));
    assert_eq!(start(&store, &key), Ok(2));
}

#[tokio::test]
async fn a_key_that_has_ended_gives_access_to_nothing() {
    let store = store();
    let (guard, key) = key(&store, &[Grant::Everything]);
    assert_eq!(start(&store, &key), Ok(1));
    guard.end();
    assert_eq!(start(&store, &key), Err(Code::Unauthenticated));
    assert!(store.key_holder(&sha256(b"the key")).is_none());
    guard.begin_access(&subscription("nightly", "hourly")).keep();
    assert_eq!(start(&store, &key), Err(Code::Unauthenticated));
}

#[tokio::test]
async fn a_grant_of_namespaces_is_for_those_with_a_subscription() {
    let store = store();
    let (guard, key) = key(&store, &[Grant::Namespaces]);
    assert_eq!(object(&store, &key, "other"), Err(Code::PermissionDenied));
    guard.begin_access(&subscription("nightly", "hourly")).keep();
    assert_eq!(object(&store, &key, "other"), Ok(()));
}

/// The check and the change are one: nothing is started once the access has ended.
#[test]
fn no_run_starts_after_the_access_has_ended() {
    let store = store();
    let (guard, key) = key(&store, &[]);
    for _ in 0..200 {
        guard.begin_access(&subscription("nightly", "hourly")).keep();
        let (begun, wait) = mpsc::channel();
        let starts = std::thread::spawn({
            let (store, key) = (Arc::clone(&store), Arc::clone(&key));
            move || {
                let mut last = 0;
                while let Ok(id) = start(&store, &key) {
                    last = id;
                    let _ = begun.send(());
                }
                last
            }
        });
        wait.recv().unwrap();
        store.end_access(&subscription("nightly", "hourly"));
        let newest = store.runs("", "nightly")[0].id;
        assert_eq!(starts.join().unwrap(), newest);
        assert_eq!(store.runs("", "nightly")[0].id, newest);
    }
}

fn with(id: &str) -> proto::UserPipelineConfig {
    proto::UserPipelineConfig { id: id.to_owned(), ..Default::default() }
}

/// Tries what a client token is for, in `default` and with the namespace `spare`.
fn changes(store: &Store, by: &By) -> Vec<(&'static str, Result<(), Status>)> {
    let names = ["default", "nightly", "interval", "hourly"];
    let (namespace, pipeline) = ("default", "nightly");
    let start = StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        initiator: Some(Initiator { name: "test".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let retry =
        RetryRunRequest { pipeline_id: pipeline.to_owned(), run_id: 1, ..Default::default() };
    let reason = RunStatusReasonKind::UserCancelled;
    let owner = Owner { namespace, pipeline, run: None, by };
    let of_run = Owner { run: Some(1), ..owner };
    let holder = Holder::Pipeline { namespace, pipeline, by };
    let key = || "key".to_owned();
    let put_secret = |force| store.put_secret(holder, key(), "1".to_owned(), Vec::new(), force);
    let update = proto::UpdateNamespaceRequest {
        id: namespace.to_owned(),
        name: namespace.to_owned(),
        ..Default::default()
    };
    let spare = proto::CreateNamespaceRequest { id: "spare".to_owned(), ..Default::default() };
    vec![
        ("create a namespace", store.create_namespace(spare, by).map(drop)),
        ("update a namespace", store.update_namespace(update, by)),
        ("delete a namespace", store.delete_namespace("spare", by)),
        ("register a pipeline", store.register_config("", with("new"), by).map(drop)),
        ("register a configuration", store.register_config("", with(pipeline), by).map(drop)),
        ("delete a configuration", store.delete_config("", pipeline, 1, by)),
        ("start a run", store.start_run(start, by).map(drop)),
        ("retry a run", store.retry_run(retry, by).map(drop)),
        ("cancel runs", store.cancel_runs("", pipeline, reason, by).map(drop)),
        ("put an object", store.put_object(owner, key(), "1".into(), true).map(drop)),
        ("read an object", store.object(owner, "key").map(drop)),
        ("list objects", store.objects(owner).map(drop)),
        ("delete an object", store.delete_object(owner, "key")),
        ("put a run's object", store.put_object(of_run, key(), "1".into(), true).map(drop)),
        ("read a run's object", store.object(of_run, "key").map(drop)),
        ("list a run's objects", store.objects(of_run).map(drop)),
        ("delete a run's object", store.delete_object(of_run, "key")),
        ("put a secret", put_secret(true)),
        ("read a secret", store.secret(holder, "key").map(drop)),
        ("list secrets", store.secrets(holder).map(drop)),
        ("delete a secret", store.delete_secret(holder, "key")),
        ("subscribe", store.put_subscription(subscription(pipeline, "hourly"), None, by)),
        ("mark a subscription", store.set_subscription_status(names, State::Disabled, "", by)),
        ("unsubscribe", store.remove_subscription(names, by)),
        ("disable", store.set_pipeline_state("", pipeline, PipelineState::Disabled, by)),
        ("delete", store.delete_pipeline("", pipeline, reason, by).map(drop)),
    ]
}

fn refused_changes(store: &Store, by: &By, code: Code) {
    let before = store.progress().borrow().last;
    for (change, outcome) in changes(store, by) {
        assert_eq!(outcome.err().map(|status| status.code()), Some(code), "{change}");
    }
    assert_eq!(store.progress().borrow().last, before, "nothing happened");
}

fn client_token(store: &Store, namespaces: &str, valid_for: Option<Duration>) -> (String, By) {
    let (kind, namespaces) = (Kind::Client, vec![namespaces.to_owned()]);
    let (_, token) =
        store.create_token(kind, namespaces, HashMap::new(), valid_for, &By::Core).unwrap();
    let by = By::Token(sha256(token.as_bytes()));
    (token, by)
}

#[tokio::test(start_paused = true)]
async fn each_change_checks_its_caller_in_its_own_transaction() {
    let store = store();
    let registration =
        proto::ExtensionRegistration { name: "interval".to_owned(), ..Default::default() };
    store.put_registration(registration, Options::default()).unwrap();

    let (token, client) = client_token(&store, "default|spare", None);
    store.disable_token(&token, true, &By::Core).unwrap();
    refused_changes(&store, &client, Code::Unauthenticated);
    let (_, elsewhere) = client_token(&store, "ops.*", None);
    refused_changes(&store, &elsewhere, Code::PermissionDenied);
    let (guard, key) = key(&store, &[Grant::Namespaces]);
    let extension = By::Extension(key);
    refused_changes(&store, &extension, Code::PermissionDenied);
    guard.end();
    refused_changes(&store, &extension, Code::Unauthenticated);

    let (_, short) = client_token(&store, "default|spare", Some(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    refused_changes(&store, &short, Code::Unauthenticated);

    store.disable_token(&token, false, &By::Core).unwrap();
    for (change, outcome) in changes(&store, &client) {
        outcome.unwrap_or_else(|status| panic!("{change}: {status}"));
    }
    store.delete_token(&token, &By::Core).unwrap();
    refused_changes(&store, &client, Code::Unauthenticated);
}

#[tokio::test]
async fn what_requires_a_management_token_is_checked_with_the_change() {
    let store = store();
    let create = |kind, by: &By| {
        let namespaces = vec![".*".to_owned()];
        store.create_token(kind, namespaces, HashMap::new(), None, by).map(|(_, token)| token)
    };
    let manager = create(Kind::Management, &By::Core).unwrap();
    let by = By::Token(sha256(manager.as_bytes()));
    let (client, as_client) = client_token(&store, ".*", None);
    let changes = |by: &By| {
        let global = Holder::Global { by };
        [
            create(Kind::Management, by).map(drop),
            store.disable_token(&client, true, by),
            store.disable_token(&client, false, by),
            store.put_secret(global, "key".to_owned(), "1".to_owned(), Vec::new(), true),
            store.secret(global, "key").map(drop),
            store.secrets(global).map(drop),
            store.delete_secret(global, "key"),
            store.toggle_ignoring_runs(by).map(drop),
        ]
    };
    let codes = |by: &By| changes(by).map(|outcome| outcome.err().map(|status| status.code()));
    assert_eq!(codes(&by), [None; 8]);
    assert_eq!(codes(&as_client), [Some(Code::PermissionDenied); 8]);
    store.delete_token(&manager, &by).unwrap();
    assert_eq!(codes(&by), [Some(Code::Unauthenticated); 8]);
    let (_guard, key) = key(&store, &[Grant::GlobalSecrets]);
    let denied = Some(Code::PermissionDenied);
    store
        .put_secret(
            Holder::Global { by: &By::Core },
            "key".to_owned(),
            "1".to_owned(),
            vec![],
            true,
        )
        .unwrap();
    assert_eq!(
        codes(&By::Extension(key)),
        [denied, denied, denied, denied, None, None, denied, denied]
    );
}
