//! What the key of an extension gives access to, and for how long.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;

use tonic::Code;

use super::super::Owner;
use super::*;
use gofer_net::Clock;
use gofer_proto::initiator::Type;
use gofer_proto::{Initiator, StartRunRequest};

fn store() -> Arc<Store> {
    let store = Store::new(Clock::derived());
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

fn start(store: &Store, by: &ExtensionKey) -> Result<i64, Code> {
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
    store.start_run(request, Some(by)).map(|run| run.id).map_err(|status| status.code())
}

fn object(store: &Store, by: &ExtensionKey, pipeline: &str) -> Result<(), Code> {
    let of = Owner { namespace: "", pipeline, run: None, by: Some(by) };
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
