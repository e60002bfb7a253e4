//! What is on disk is exactly what was acknowledged, and other files are refused.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use redb::{Database, TableDefinition};

use super::super::file::commit;
use super::super::history::{Order, beginning_with};
use super::super::journal::RecordKind;
use super::super::usage::RUNS_PER_PIPELINE;
use super::super::{By, Holder, Options, Owner, Page, Store, exposed};
use super::*;
use crate::files::tests::Scratch;
use crate::launcher::Recorded;
use gofer_net::Clock;
use gofer_proto as proto;
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::token::Kind as TokenKind;

fn try_open(path: &Path, key: Option<[u8; 32]>) -> Result<Arc<Store>> {
    Store::open(Clock::system(), path, key, None, &EssentialTasks::default())
}

fn open_store(path: &Path) -> Arc<Store> {
    try_open(path, None).unwrap()
}

fn refusal(path: &Path) -> String {
    try_open(path, None).err().unwrap().to_string()
}

fn start(pipeline: &str) -> proto::StartRunRequest {
    proto::StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        initiator: Some(proto::Initiator { name: "test".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn subscription(pipeline: &str, label: &str) -> proto::PipelineExtensionSubscription {
    proto::PipelineExtensionSubscription {
        namespace: "default".to_owned(),
        pipeline: pipeline.to_owned(),
        name: "interval".to_owned(),
        label: label.to_owned(),
        settings: HashMap::from([("every".to_owned(), "5m".to_owned())]),
        status: State::Active.into(),
        status_reason: None,
    }
}

/// Everything that can be read, as one text.
fn everything(store: &Store) -> String {
    let page = || Page::new(0, i64::MAX).unwrap();
    let mut all = Vec::new();
    for namespace in store.namespaces(page(), |_| true) {
        for pipeline in store.pipelines(&namespace.id, page()).unwrap() {
            let (of, id) = (&namespace.id, &pipeline.id);
            all.push(format!("{pipeline:?}"));
            all.push(format!("{:?}", store.configs(of, id, page()).unwrap()));
            all.push(format!("{:?}", store.list_runs(of, id, page()).unwrap()));
            all.push(format!("{:?}", store.subscriptions(of, id).unwrap()));
        }
        all.push(format!("{namespace:?}"));
    }
    for registration in store.registrations() {
        all.push(format!("{:?}", store.subscriptions_of_extension(&registration.name)));
        all.push(format!("{registration:?}"));
    }
    // Tokens made within the same millisecond have no order.
    let mut tokens: Vec<_> =
        store.tokens("").into_iter().map(|token| format!("{token:?}")).collect();
    tokens.sort();
    all.extend(tokens);
    all.push(format!("{:?}", stored_events(store)));
    all.join("\n")
}

/// All of them, announced or not.
fn stored_events(store: &Store) -> Vec<proto::Event> {
    let mut events = Vec::new();
    let all = beginning_with(RecordKind::Event.key(&[], None));
    let tables = store.tables();
    let visited = tables.journal.history().visit(all, Order::OldestFirst, |_, record| {
        events.push(proto::Event::decode(record).unwrap());
        ControlFlow::Continue(())
    });
    visited.unwrap();
    events
}

#[tokio::test]
async fn when_a_subscription_was_made_survives_changes_of_it_and_a_restart() {
    let directory = Scratch::new();
    let path = directory.path("gofer.redb");
    let store = open_store(&path);
    store.ensure_pipeline("", "one").unwrap();
    let registration =
        proto::ExtensionRegistration { name: "interval".to_owned(), ..Default::default() };
    store.put_registration(registration, Options::default()).unwrap();
    store.start_run(start("one"), &By::Core).unwrap();
    let made = subscription("one", "a");
    let beginning = store.beginning(&made);
    assert_eq!(beginning.unwrap().after_run, 1);
    store.put_subscription(made.clone(), beginning, &By::Core).unwrap();
    store.start_run(start("one"), &By::Core).unwrap();
    let names = ["", "one", "interval", "a"];
    store.set_subscription_status(names, State::Error, "", &By::Core).unwrap();
    store.close().await;
    drop(store);
    let store = open_store(&path);
    assert_eq!(store.beginning(&made), beginning);
    store.set_subscription_status(names, State::Disabled, "", &By::Core).unwrap();
    store.set_subscription_status(names, State::Active, "", &By::Core).unwrap();
    assert_eq!(store.beginning(&made).unwrap().after_run, 2, "it has begun anew");
    store.remove_subscription(names, &By::Core).unwrap();
    assert_eq!(store.beginning(&made).unwrap().after_run, 2, "the next one is another");
    store.close().await;
}

#[tokio::test]
async fn everything_is_restored() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    let (_, bootstrap) = store.bootstrap_token().unwrap();
    let access = vec!["ops.*".to_owned()];
    let valid = Some(Duration::from_secs(3600));
    let (_, client) =
        store.create_token(TokenKind::Client, access, HashMap::new(), valid, &By::Core).unwrap();
    let (_, gone) = store
        .create_token(TokenKind::Management, Vec::new(), HashMap::new(), None, &By::Core)
        .unwrap();
    store.disable_token(&client, true, &By::Core).unwrap();
    store.delete_token(&gone, &By::Core).unwrap();
    for pipeline in ["one", "two", "three"] {
        store.ensure_pipeline("ops", pipeline).unwrap();
        store.ensure_pipeline("", pipeline).unwrap();
    }
    let config = proto::UserPipelineConfig { id: "one".to_owned(), ..Default::default() };
    for _ in 0..3 {
        store.register_config("", config.clone(), &By::Core).unwrap();
    }
    store.delete_config("", "one", 2, &By::Core).unwrap();
    store.set_pipeline_state("ops", "two", PipelineState::Disabled, &By::Core).unwrap();
    for name in ["interval", "cron"] {
        let registration =
            proto::ExtensionRegistration { name: name.to_owned(), ..Default::default() };
        store.put_registration(registration, Options::default()).unwrap();
    }
    store.remove_registration("cron").unwrap();
    for (pipeline, label) in [("one", "a"), ("one", "b"), ("two", "a"), ("three", "a")] {
        store.put_subscription(subscription(pipeline, label), None, &By::Core).unwrap();
    }
    store.remove_subscription(["", "one", "interval", "b"], &By::Core).unwrap();
    store
        .set_subscription_status(
            ["", "two", "interval", "a"],
            State::Error,
            "it was refused",
            &By::Core,
        )
        .unwrap();
    for _ in 0..5 {
        store.start_run(start("one"), &By::Core).unwrap();
        store.start_run(start("three"), &By::Core).unwrap();
    }
    store
        .delete_pipeline(
            "",
            "three",
            proto::run_status_reason::RunStatusReasonKind::UserCancelled,
            &By::Core,
        )
        .unwrap();
    store.toggle_ignoring_runs(&By::Core).unwrap();
    let (of, global) = (
        Owner { namespace: "", pipeline: "one", run: None, by: &By::Core },
        Holder::Global { by: &By::Core },
    );
    let holder = Holder::Pipeline { namespace: "", pipeline: "one", by: &By::Core };
    for (owner, key) in [(of, "kept"), (of, "gone"), (Owner { run: Some(5), ..of }, "log")] {
        store.put_object(owner, key.to_owned(), "content".into(), false).unwrap();
    }
    store.delete_object(of, "gone").unwrap();
    for (of, key) in [(holder, "kept"), (holder, "gone"), (global, "shared")] {
        store.put_secret(of, key.to_owned(), "hunter22".to_owned(), vec![], false).unwrap();
    }
    store.delete_secret(holder, "gone").unwrap();
    store.durable(Mark::default()).await.unwrap();
    let before = everything(&store);
    store.close().await;
    let store = open_store(&directory.path("store.redb"));
    assert_eq!(everything(&store), before);
    assert_eq!(store.object(of, "kept").unwrap(), "content");
    assert_eq!(store.object(Owner { run: Some(5), ..of }, "log").unwrap(), "content");
    assert_eq!(store.secret(holder, "kept").unwrap().1, "hunter22");
    assert_eq!(store.secret(global, "shared").unwrap().1, "hunter22");
    assert!(store.object(of, "gone").is_err() && store.secret(holder, "gone").is_err());
    assert!(store.token(&bootstrap).is_ok() && store.token(&client).unwrap().1.disabled);
    assert!(store.token(&gone).is_err());
    assert!(store.bootstrap_token().is_err(), "the first token is made once");
    assert!(store.start_run(start("one"), &By::Core).is_err(), "no run is started");
    store.toggle_ignoring_runs(&By::Core).unwrap();
    assert_eq!(store.start_run(start("one"), &By::Core).unwrap().id, 6, "numbers go on");
}

#[tokio::test]
async fn what_is_dropped_from_memory_is_dropped_from_disk() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    store.ensure_pipeline("", "busy").unwrap();
    let most = i64::try_from(RUNS_PER_PIPELINE).unwrap();
    for _ in 0..most + 10 {
        store.start_run(start("busy"), &By::Core).unwrap();
    }
    store.durable(Mark::default()).await.unwrap();
    let before = everything(&store);
    store.close().await;
    let store = open_store(&directory.path("store.redb"));
    assert_eq!(everything(&store), before);
    assert!(store.run("", "busy", 10).is_err());
    assert_eq!(store.run("", "busy", 11).unwrap().id, 11);
}

#[tokio::test]
async fn an_event_is_announced_once_it_is_on_disk() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    store.durable(Mark::default()).await.unwrap();
    let mut progress = store.progress();
    let last = progress.borrow().last;
    store.ensure_pipeline("", "one").unwrap();
    // Registered, and its first configuration.
    progress.wait_for(|it| it.last == last + 2).await.unwrap();
    assert_eq!(store.events_after(last, i64::MAX, 9, &|_| true).unwrap().events.len(), 2);
    assert_eq!(store.event(last + 2, &|_| true).unwrap().unwrap().id, last + 2);
}

#[tokio::test]
async fn nothing_is_acknowledged_after_the_store_was_closed() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    store.close().await;
    let late = store.ensure_pipeline("", "late");
    assert_eq!(late.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(store.pipeline("", "late", 0).is_err());
}

#[tokio::test]
async fn secrets_are_encrypted_with_a_key_that_only_its_owner_can_read() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    let secret = "correct horse battery staple";
    store
        .put_secret(
            Holder::Global { by: &By::Core },
            "it".to_owned(),
            secret.to_owned(),
            vec![],
            false,
        )
        .unwrap();
    // So is the configuration of an extension.
    let registration = gofer_proto::ExtensionRegistration {
        name: "it".to_owned(),
        pass: secret.to_owned(),
        variables: [("token".to_owned(), secret.to_owned())].into(),
        ..Default::default()
    };
    store.put_registration(registration.clone(), Options::default()).unwrap();
    store.durable(Mark::default()).await.unwrap();
    store.close().await;
    let file = std::fs::read(directory.path("store.redb")).unwrap();
    assert!(!file.windows(secret.len()).any(|window| window == secret.as_bytes()));
    let key = directory.path("store.redb.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    // Another key is refused, whether or not its own one is there, and its own one opens it.
    let other = || {
        let opened = try_open(&directory.path("store.redb"), Some([7; 32]));
        opened.err().unwrap().to_string()
    };
    let own = std::fs::read_to_string(&key).unwrap();
    assert!(other().contains("store.redb.key` holds another one"), "{}", other());
    std::fs::remove_file(&key).unwrap();
    assert!(other().contains("encrypted with another key"), "{}", other());
    std::fs::write(&key, &own).unwrap();
    let own = super::super::seal::key_from_hex(own.trim()).unwrap();
    let store = try_open(&directory.path("store.redb"), Some(own)).unwrap();
    assert_eq!(store.secret(Holder::Global { by: &By::Core }, "it").unwrap().1, secret);
    assert_eq!(store.registration("it"), Some(registration));
    store.close().await;
    std::fs::write(&key, "not a key").unwrap();
    let why = refusal(&directory.path("store.redb"));
    assert!(why.contains("64 hexadecimal digits"), "{why}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_store_is_private_to_its_owner() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    open_store(&path).close().await;
    assert_eq!((mode(&path), exposed(&path)), (0o600, None));
    // One of an older version, made with the usual umask, opens with a warning.
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    open_store(&path).close().await;
    let warning = exposed(&path).unwrap();
    assert!(warning.contains("store.redb`; `chmod 600`"), "{warning}");
    assert_eq!(mode(&path), 0o644);
}

#[tokio::test]
async fn a_lost_key_is_reported_and_no_other_is_made() {
    let directory = Scratch::new();
    let (path, key) = (directory.path("store.redb"), directory.path("store.redb.key"));
    open_store(&path).close().await;
    let before = std::fs::read(&path).unwrap();
    let kept = directory.path("kept");
    std::fs::rename(&key, &kept).unwrap();
    let why = refusal(&path);
    assert!(why.contains("there is no `") && why.contains("store.redb.key`"), "{why}");
    assert!(why.contains("backup") && why.contains("GOFER_ENCRYPTION_KEY"), "{why}");
    assert!(!key.exists());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::rename(&kept, &key).unwrap();
    open_store(&path).close().await;
    // One that was made with a key that was given has no file, and needs none.
    let given = directory.path("given.redb");
    let open = |key| try_open(&given, key);
    open(Some([7; 32])).unwrap().close().await;
    assert!(open(None).err().unwrap().to_string().contains("encryption_key"));
    open(Some([7; 32])).unwrap().close().await;
    // A file that is not begun is no store yet.
    let empty = directory.path("empty.redb");
    std::fs::write(&empty, "").unwrap();
    open_store(&empty).close().await;
}

#[tokio::test]
async fn a_new_store_is_not_begun_with_one_of_two_keys() {
    let directory = Scratch::new();
    let (path, key) = (directory.path("store.redb"), directory.path("store.redb.key"));
    std::fs::write(&key, "0a".repeat(32)).unwrap();
    let why = try_open(&path, Some([7; 32])).err().unwrap().to_string();
    for text in ["GOFER_ENCRYPTION_KEY", "`encryption_key`", "store.redb.key", "another one"] {
        assert!(why.contains(text), "{why}");
    }
    assert_eq!(directory.names(), ["store.redb.key"]);
    try_open(&path, Some([10; 32])).unwrap().close().await;
    open_store(&path).close().await;
}

#[tokio::test]
async fn a_file_that_is_in_use_is_refused() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    let refusal = refusal(&directory.path("store.redb"));
    assert!(refusal.contains("in use by another process"), "{refusal}");
    store.ensure_pipeline("", "one").unwrap();
    store.durable(Mark::default()).await.unwrap();
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = Scratch::new();
    open_store(&directory.path("store.redb")).close().await;
    {
        let database = Database::open(directory.path("store.redb")).unwrap();
        let key = RecordKind::Version.key(&[], None);
        commit(
            &database,
            &[Write {
                of: Part::Alive,
                key,
                value: Some(Bytes::copy_from_slice(&7_u32.to_be_bytes())),
            }],
        )
        .unwrap();
    }
    let before = std::fs::read(directory.path("store.redb")).unwrap();
    let refusal = refusal(&directory.path("store.redb"));
    assert!(refusal.contains("version 7") && refusal.contains("up to 3"), "{refusal}");
    assert_eq!(std::fs::read(directory.path("store.redb")).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused_and_left_as_it_is() {
    let directory = Scratch::new();
    {
        let database = Database::create(directory.path("store.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TableDefinition::<u64, u64>::new("mine")).unwrap();
        transaction.commit().unwrap();
    }
    for content in
        [std::fs::read(directory.path("store.redb")).unwrap(), b"dear diary".repeat(1000)]
    {
        std::fs::write(directory.path("store.redb"), &content).unwrap();
        let refusal = refusal(&directory.path("store.redb"));
        assert!(refusal.contains("store.redb"), "{refusal}");
        assert_eq!(std::fs::read(directory.path("store.redb")).unwrap(), content);
    }
}

#[tokio::test]
async fn a_damaged_store_is_refused_and_left_as_it_is() {
    let directory = Scratch::new();
    let store = open_store(&directory.path("store.redb"));
    for n in 0..300 {
        store.ensure_pipeline("", &format!("pipeline-{n}")).unwrap();
    }
    store.durable(Mark::default()).await.unwrap();
    store.close().await;
    drop(store);
    let whole = std::fs::read(directory.path("store.redb")).unwrap();
    let mut refused = 0;
    // All pages that mention a pipeline are in use.
    let places: Vec<usize> = whole
        .windows(9)
        .enumerate()
        .filter(|(_, window)| *window == b"pipeline-")
        .map(|(at, _)| at)
        .step_by(97)
        .collect();
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        std::fs::write(directory.path("store.redb"), &damaged).unwrap();
        match try_open(&directory.path("store.redb"), None) {
            // A freed page may hold an old copy: damage there does no harm.
            Ok(store) => store.close().await,
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("damaged") && error.contains("backup"), "{error}");
                assert!(std::fs::read(directory.path("store.redb")).unwrap() == damaged, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no damage was noticed");
    // At some of these the library panics.
    let overwritten = (1..8).map(|eighth| {
        let (intact, rest) = whole.split_at(whole.len() / 8 * eighth);
        [intact, &vec![0xff; rest.len()]].concat()
    });
    let half = whole[..whole.len() / 2].to_vec();
    for content in overwritten.chain([half]) {
        std::fs::write(directory.path("store.redb"), &content).unwrap();
        let refusal = refusal(&directory.path("store.redb"));
        assert!(refusal.contains("damaged") && refusal.contains("backup"), "{refusal}");
        assert!(std::fs::read(directory.path("store.redb")).unwrap() == content, "{refusal}");
    }
}

#[tokio::test]
async fn launches_are_restored_also_those_of_earlier_versions() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let store = open_store(&path);
    let launch = Recorded::new([2; 32], true);
    store.begin_launch(launch.clone()).await.unwrap();
    store.close().await;
    drop(store);
    {
        let database = Database::open(&path).unwrap();
        let key = [&[RecordKind::Launch as u8], &[1; 32][..]].concat();
        commit(&database, &[Write { of: Part::Alive, key, value: Some(Bytes::new()) }]).unwrap();
    }
    let store = open_store(&path);
    let earlier = Recorded { digest: [1; 32], is_container: None, owner: String::new() };
    assert_eq!(store.launches(), [earlier.clone(), launch]);
    store.end_launch(&[2; 32]);
    store.close().await;
    drop(store);
    assert_eq!(open_store(&path).launches(), [earlier]);
}

#[tokio::test]
async fn a_file_that_is_far_too_large_is_compacted_on_a_clean_stop() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let store = open_store(&path);
    store.ensure_pipeline("", "large").unwrap();
    store.ensure_pipeline("", "small").unwrap();
    let of = |pipeline| Owner { namespace: "", pipeline, run: None, by: &By::Core };
    for n in 0..40 {
        let content = vec![n; 1 << 20].into();
        store.put_object(of("large"), format!("key-{n}"), content, false).unwrap();
    }
    store.put_object(of("small"), "kept".to_owned(), "content".into(), false).unwrap();
    store.durable(Mark::default()).await.unwrap();
    let reason = proto::run_status_reason::RunStatusReasonKind::UserCancelled;
    store.delete_pipeline("", "large", reason, &By::Core).unwrap();
    store.durable(Mark::default()).await.unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    let before = length();
    assert!(before > 32 << 20, "{before}");
    store.close().await;
    drop(store);
    assert!(length() < 8 << 20, "{} of {before}", length());
    let store = open_store(&path);
    assert_eq!(store.object(of("small"), "kept").unwrap(), "content");
    store.close().await;
}

mod closing;
mod damaged;
mod failing;
