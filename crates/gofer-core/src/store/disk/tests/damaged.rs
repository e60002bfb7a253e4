//! A record of the history that is damaged: what needs it is refused, and everything else goes on.

use std::collections::BTreeSet;

use redb::ReadableTable as _;

use super::failing::check_usage;
use super::*;
use crate::store::run_keys::{RunKey, record_key};
use crate::store::usage::EARLIER_CONFIGS;
use crate::store::{KeyGuard, KeyHolder, NewKey};
use gofer_net::auth::sha256;
use gofer_proto::initiator::Type;
use gofer_sdk::internal::RUN_KEY;

/// Changes a byte of a record.
fn damage(path: &Path, key: &[u8]) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let definition = TableDefinition::<&[u8], &[u8]>::new("history");
        let mut table = transaction.open_table(definition).unwrap();
        let mut record = table.get(key).unwrap().unwrap().value().to_vec();
        record[3] ^= 1;
        table.insert(key, &*record).unwrap();
    }
    transaction.commit().unwrap();
}

fn record(kind: RecordKind, number: i64) -> Vec<u8> {
    kind.key(&["default", "nightly"], Some(number))
}

/// The record of the key of runs that [`start_with_key`] starts.
fn key_record() -> Vec<u8> {
    let of = proto::PipelineMetadata {
        namespace: "default".to_owned(),
        id: "nightly".to_owned(),
        ..Default::default()
    };
    let key =
        proto::Variable { key: RUN_KEY.to_owned(), value: "one".to_owned(), ..Default::default() };
    record_key(&of, RunKey::of("interval", "often", &[key]).unwrap())
}

/// Access of an extension, until what is returned is dropped.
fn extension(store: &Arc<Store>) -> (By, KeyGuard) {
    let key = NewKey::Extension { name: "interval".to_owned(), grants: BTreeSet::new() };
    let guard = store.accept_key("the key", key);
    guard.begin_access(&subscription("nightly", "often")).keep();
    let Some(KeyHolder::Extension(by)) = store.key_holder(&sha256(b"the key")) else {
        panic!("the key is not known")
    };
    (By::Extension(by), guard)
}

fn start_with_key(store: &Store, by: &By) -> Result<i64, Status> {
    let initiator = proto::Initiator {
        r#type: Type::Extension.into(),
        name: "interval (often)".to_owned(),
        ..Default::default()
    };
    let request = proto::StartRunRequest {
        variables: [(RUN_KEY.to_owned(), "one".to_owned())].into(),
        initiator: Some(initiator),
        ..start("nightly")
    };
    store.start_run(request, by).map(|run| run.id)
}

/// A pipeline with as many runs as are kept, of which the first has a key, and its file, closed.
async fn full_of_runs(directory: &Scratch) -> std::path::PathBuf {
    let path = directory.path("store.redb");
    let store = open_store(&path);
    store.ensure_pipeline("", "nightly").unwrap();
    let registration =
        proto::ExtensionRegistration { name: "interval".to_owned(), ..Default::default() };
    store.put_registration(registration, Options::default()).unwrap();
    let (by, guard) = extension(&store);
    assert_eq!(start_with_key(&store, &by).unwrap(), 1);
    for _ in 1..RUNS_PER_PIPELINE {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    drop(guard);
    store.close().await;
    path
}

#[tokio::test]
async fn a_damaged_run_makes_room_for_a_new_one() {
    let directory = Scratch::new();
    let path = full_of_runs(&directory).await;
    damage(&path, &record(RecordKind::Run, 1));
    let store = open_store(&path);
    let why = store.run("", "nightly", 1).unwrap_err();
    assert_eq!(why.code(), tonic::Code::DataLoss, "{why}");
    let most = i64::try_from(RUNS_PER_PIPELINE).unwrap();
    let started = store.start_run(start("nightly"), &By::Core).unwrap();
    assert_eq!(started.id, most + 1);
    assert_eq!(store.run("", "nightly", 1).unwrap_err().code(), tonic::Code::NotFound);
    check_usage(&store);
    // Its key is forgotten with it.
    let (by, _guard) = extension(&store);
    assert_eq!(start_with_key(&store, &by).unwrap(), most + 2);
    check_usage(&store);
    store.close().await;
}

#[tokio::test]
async fn a_run_whose_key_is_damaged_makes_room_for_a_new_one() {
    let directory = Scratch::new();
    let path = full_of_runs(&directory).await;
    damage(&path, &key_record());
    let store = open_store(&path);
    store.start_run(start("nightly"), &By::Core).unwrap();
    assert_eq!(store.run("", "nightly", 1).unwrap_err().code(), tonic::Code::NotFound);
    check_usage(&store);
    let (by, _guard) = extension(&store);
    start_with_key(&store, &by).unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_damaged_configuration_makes_room_for_a_new_one() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let store = open_store(&path);
    let register = |store: &Store| {
        let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
        store.register_config("", config, &By::Core).unwrap();
    };
    (0..=EARLIER_CONFIGS).for_each(|_| register(&store));
    store.close().await;
    drop(store);
    damage(&path, &record(RecordKind::Config, 1));
    let store = open_store(&path);
    register(&store);
    check_usage(&store);
    assert_eq!(store.configs("", "nightly", Page::ALL).unwrap().len(), 101);
    store.close().await;
}

#[tokio::test]
async fn a_pipeline_with_a_damaged_run_can_be_deleted() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let store = open_store(&path);
    store.ensure_pipeline("", "nightly").unwrap();
    for _ in 0..3 {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    store.close().await;
    drop(store);
    damage(&path, &record(RecordKind::Run, 2));
    let store = open_store(&path);
    let reason = proto::run_status_reason::RunStatusReasonKind::UserCancelled;
    store.delete_pipeline("", "nightly", reason, &By::Core).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    assert!(store.runs("", "nightly").is_empty());
    check_usage(&store);
    store.close().await;
}
