//! A file of version 1 or 2 becomes one of version 3, and nothing in it is lost, whatever the disk does
//! meanwhile.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::essential::EssentialTasks;
use crate::files::tests::Scratch;
use crate::store::backing::Backing;
use crate::store::backing::simulated::Disk;
use crate::store::journal::Journal;
use crate::store::patterns::Patterns;
use crate::store::seal::{Seal, key_from_hex};
use crate::store::secrets::Secret;
use crate::store::tests::all_events;
use crate::store::{By, Holder, KeyHolder, NewKey, Owner, Page, Store};
use gofer_net::Clock;
use gofer_net::auth::sha256;
use gofer_proto as proto;
use gofer_proto::{Initiator, Variable};
use gofer_sdk::internal::RUN_KEY;

fn open(path: &Path, key: Option<[u8; 32]>) -> Result<Arc<Store>> {
    Store::open(Clock::system(), path, key, None, &EssentialTasks::default())
}

fn run(id: i64, state: RunState) -> Run {
    let key =
        Variable { key: RUN_KEY.to_owned(), value: format!("key-{id}"), ..Default::default() };
    Run {
        namespace: "default".to_owned(),
        pipeline: "nightly".to_owned(),
        version: 2,
        id,
        state: state.into(),
        initiator: Some(Initiator {
            r#type: Type::Extension.into(),
            name: "interval (hourly)".to_owned(),
            ..Default::default()
        }),
        variables: vec![key],
        ..Default::default()
    }
}

fn config(version: i64) -> PipelineConfig {
    PipelineConfig {
        namespace: "default".to_owned(),
        pipeline: "nightly".to_owned(),
        version,
        ..Default::default()
    }
}

/// The records of an earlier version, with what is encrypted.
fn records(version: u32, seal: &Arc<Seal>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of = ["default", "nightly"];
    let namespace = proto::Namespace { id: "default".to_owned(), ..Default::default() };
    let interval =
        proto::ExtensionRegistration { name: "interval".to_owned(), ..Default::default() };
    let mut records = vec![
        (RecordKind::Version.key(&[], None), version.to_be_bytes().to_vec()),
        (RecordKind::Namespace.key(&["default"], None), namespace.encode_to_vec()),
        (RecordKind::Pipeline.key(&of, None), pipeline(of[0], of[1]).encode_to_vec()),
    ];
    for version in 1..=3 {
        let record = config(version).encode_to_vec();
        records.push((RecordKind::Config.key(&of, Some(version)), record));
    }
    for id in 7..=9 {
        let state = if id == 9 { RunState::Pending } else { RunState::Complete };
        records.push((RecordKind::Run.key(&of, Some(id)), run(id, state).encode_to_vec()));
    }
    let key = RecordKind::Registration.key(&["interval"], None);
    let sealed = seal.seal(&key, &interval.encode_to_vec()).unwrap();
    records.push((key, sealed));
    for id in 4..=6 {
        let details = r#"{"namespace_id":"default"}"#.to_owned();
        let event = Event { id, details, ..Default::default() };
        records.push((RecordKind::Event.key(&[], Some(id)), event.encode_to_vec()));
    }
    let secret = Secret {
        namespace: of[0].to_owned(),
        pipeline: of[1].to_owned(),
        key: "password".to_owned(),
        namespaces: Vec::new(),
        patterns: Patterns::restore(&[]),
        created: 3,
        content: "hunter22".to_owned(),
    };
    let mut journal = Journal::new(Some(Arc::clone(seal)), Arc::default());
    let sealed = journal.sealed_secret(&secret).unwrap();
    journal.put_secret(sealed);
    let secret = journal.writes.pop().unwrap();
    records.push((secret.key, secret.value.unwrap().to_vec()));
    let object = Object {
        namespace: of[0].to_owned(),
        pipeline: of[1].to_owned(),
        run: 8,
        key: "log".to_owned(),
        content: "content".into(),
        created: 5,
    };
    let key = RecordKind::Object.key(&[of[0], of[1], "log"], Some(8));
    records.push((key, object.encode_to_vec()));
    records
}

fn write(database: &Database, version: u32, seal: &Arc<Seal>) {
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        for (key, value) in records(version, seal) {
            table.insert(&*key, &*value).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn everything_is_still_there() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let key = key_from_hex(&"0a".repeat(32)).unwrap();
    write(&Database::create(&path).unwrap(), 2, &Arc::new(Seal::new(&key).unwrap()));
    let before = std::fs::read(&path).unwrap();
    let why = open(&path, Some([7; 32])).err().unwrap().to_string();
    assert!(why.contains("another key"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "one that is refused stays as it is");

    // Once more after the upgrade.
    for _ in 0..2 {
        let store = open(&path, Some(key)).unwrap();
        let page = || Page::new(0, 0).unwrap();
        let runs = store.list_runs("", "nightly", page()).unwrap();
        assert_eq!(
            runs,
            [9, 8, 7]
                .map(|id| run(id, [RunState::Complete, RunState::Pending][usize::from(id == 9)]))
        );
        let versions: Vec<_> =
            store.configs("", "nightly", page()).unwrap().iter().map(|it| it.version).collect();
        assert_eq!(versions, [3, 2, 1]);
        assert_eq!(store.pipeline("", "nightly", 0).unwrap().config.unwrap().version, 3);
        assert_eq!(all_events(&store).iter().map(|it| it.id).collect::<Vec<_>>(), [4, 5, 6]);
        let of = Owner { namespace: "", pipeline: "nightly", run: Some(8), by: &By::Core };
        assert_eq!(store.object(of, "log").unwrap(), "content");
        assert_eq!(store.objects(of).unwrap()[0].created, 5);
        assert!(store.registration("interval").is_some());
        let holder = Holder::Pipeline { namespace: "", pipeline: "nightly", by: &By::Core };
        assert_eq!(store.secret(holder, "password").unwrap().1, "hunter22");
        let usage = store.tables().pipeline("", "nightly").unwrap().usage;
        assert_eq!((usage.last_run, usage.runs, usage.earlier_configs), (9, 2, 2));
        assert!(usage.run_bytes > 0 && usage.content_bytes > 0, "{usage:?}");
        // Keys are those of the runs that have them.
        let new_key = NewKey::Extension { name: "interval".to_owned(), grants: BTreeSet::new() };
        let guard = store.accept_key("the key", new_key);
        let subscription = proto::PipelineExtensionSubscription {
            namespace: "default".to_owned(),
            pipeline: "nightly".to_owned(),
            ..Default::default()
        };
        guard.begin_access(&subscription).keep();
        let Some(KeyHolder::Extension(by)) = store.key_holder(&sha256(b"the key")) else { return };
        for id in [7, 9] {
            let request = proto::StartRunRequest {
                pipeline_id: "nightly".to_owned(),
                variables: [(RUN_KEY.to_owned(), format!("key-{id}"))].into(),
                initiator: run(id, RunState::Pending).initiator,
                ..Default::default()
            };
            let by = By::Extension(Arc::clone(&by));
            assert_eq!(store.start_run(request, &by).unwrap().id, id);
        }
        drop(guard);
        store.close().await;
    }
    // What follows needs no more than the new version.
    let store = open(&path, Some(key)).unwrap();
    store.begin_runs(None).unwrap();
    assert_eq!(store.run("", "nightly", 9).unwrap().state(), RunState::Complete);
    store.close().await;
}

/// Key of the stores on simulated disks.
const KEY: [u8; 32] = [7; 32];

fn open_on(disk: &Disk) -> Result<Arc<Store>> {
    let backing: Arc<dyn Backing> = Arc::new(disk.clone());
    let essential = EssentialTasks::default();
    Store::open(Clock::derived(), Path::new("simulated"), Some(KEY), Some(backing), &essential)
}

/// A file of an earlier version, which has been closed or not.
fn earlier(version: u32, is_closed: bool, seal: &Arc<Seal>) -> Vec<u8> {
    let disk = Disk::new(0);
    let database = Database::builder().create_with_backend(Disk::open(&disk)).unwrap();
    write(&database, version, seal);
    if is_closed {
        database.close().unwrap();
    } else {
        disk.kill();
    }
    disk.content()
}

/// All records in a file, by their tables.
fn dump(content: Vec<u8>) -> [Vec<(Vec<u8>, Vec<u8>)>; 2] {
    let file = Disk::holding(content, 0);
    let database = Database::builder().create_with_backend(Disk::open(&file)).unwrap();
    let transaction = database.begin_read().unwrap();
    [RECORDS, HISTORY].map(|table| {
        let Ok(table) = transaction.open_table(table) else { return Vec::new() };
        let records = table.iter().unwrap().map(|record| {
            let (key, value) = record.unwrap();
            (key.value().to_vec(), value.value().to_vec())
        });
        records.collect()
    })
}

/// Upgrades files with a fault at the first write, at the second, and so on, until there is none.
/// Opens each twice: the fault may last.
fn upgrade_with(fault: impl Fn(&Disk, u64)) {
    let seal = Arc::new(Seal::new(&KEY).unwrap());
    for (version, is_closed) in [(1, true), (1, false), (2, true), (2, false)] {
        let file = earlier(version, is_closed, &seal);
        let before = dump(file.clone());
        assert!(before[1].is_empty(), "there is no history of its own");
        let disk = Disk::holding(file.clone(), 0);
        open_on(&disk).unwrap();
        disk.kill();
        let after = dump(disk.content());
        assert!(!after[1].is_empty() && after != before);
        for nth in 0.. {
            let disk = Disk::holding(file.clone(), nth);
            fault(&disk, nth);
            for _ in 0..2 {
                let opened = open_on(&disk).map(drop);
                disk.kill();
                let found = dump(disk.content());
                match opened {
                    Ok(()) => assert!(found == after, "it is half an upgrade: {found:?}"),
                    Err(error) => {
                        assert!(disk.has_refused(), "{error}");
                        assert!(found == before || found == after, "{error}: {found:?}");
                        let error = error.to_string();
                        assert!(error.contains("cannot be "), "{error}");
                        assert!(!error.contains("damaged"), "{error}");
                    }
                }
            }
            let is_over = !disk.has_refused();
            disk.set_room(u64::MAX);
            disk.fail_once_after(u64::MAX);
            open_on(&disk).unwrap();
            disk.kill();
            assert!(dump(disk.content()) == after);
            if is_over {
                assert!(nth > 3, "it is no test of an upgrade");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_a_full_disk_ends_can_be_made_later() {
    upgrade_with(|disk, nth| disk.set_room(nth * 4096));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_a_failing_write_ends_can_be_made_later() {
    upgrade_with(Disk::fail_once_after);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_a_loss_of_power_ends_can_be_made_later() {
    upgrade_with(|disk, nth| disk.lose_power_after(nth + 1));
}
