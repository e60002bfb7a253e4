//! One run for each key.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::{Code, Status};

use super::super::history::beginning_with;
use super::super::usage::RUNS_PER_PIPELINE;
use super::super::{By, ExtensionKey, KeyGuard, KeyHolder, NewKey, Options, Store};
use super::*;
#[cfg(feature = "store")]
use crate::essential::EssentialTasks;
use crate::grants::Grant;
use gofer_net::Clock;
use gofer_proto::initiator::Type;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::{
    ExtensionRegistration, Initiator, PipelineExtensionSubscription as Subscription,
    RetryRunRequest, StartRunRequest,
};

/// The core's side of an extension that `nightly` and `other` are subscribed to.
struct Interval {
    store: Arc<Store>,
    key: Arc<ExtensionKey>,
    _guard: KeyGuard,
}

impl Interval {
    fn of(store: Arc<Store>) -> Self {
        let of = NewKey::Extension { name: "interval".to_owned(), grants: BTreeSet::new() };
        let guard = store.accept_key("the key", of);
        for pipeline in ["nightly", "other"] {
            store.ensure_pipeline("", pipeline).unwrap();
            let subscription = Subscription {
                namespace: "default".to_owned(),
                pipeline: pipeline.to_owned(),
                ..Default::default()
            };
            guard.begin_access(&subscription).keep();
        }
        let Some(KeyHolder::Extension(key)) = store.key_holder(&sha256(b"the key")) else {
            panic!()
        };
        Self { store, key, _guard: guard }
    }

    fn in_memory() -> Self {
        Self::of(Store::new(Clock::derived()).unwrap())
    }

    fn by(&self) -> By {
        By::Extension(Arc::clone(&self.key))
    }

    fn start(&self, pipeline: &str, label: &str, key: &str) -> Result<i64, Status> {
        let request = request(Type::Extension, pipeline, &format!("interval ({label})"), key);
        self.store.start_run(request, &self.by()).map(|run| run.id)
    }
}

/// A start with a key, unless that is empty.
fn request(of: Type, pipeline: &str, name: &str, key: &str) -> StartRunRequest {
    let mut request = StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        initiator: Some(Initiator {
            r#type: of.into(),
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    if !key.is_empty() {
        request.variables.insert(RUN_KEY.to_owned(), key.to_owned());
        request.variables.insert("GOFER_EXTENSION_SCHEDULED_AT".to_owned(), "now".to_owned());
    }
    request
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_run_that_exists() {
    let interval = Interval::in_memory();
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
    assert_eq!(interval.start("nightly", "hourly", "b").unwrap(), 2);
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
    assert_eq!(interval.store.runs("", "nightly").len(), 2);
    // Also if no new run could be started any more.
    interval.store.set_pipeline_state("", "nightly", PipelineState::Disabled, &By::Core).unwrap();
    assert_eq!(interval.start("nightly", "hourly", "b").unwrap(), 2);
    let refused = interval.start("nightly", "hourly", "c").unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_key_counts_for_one_pipeline_and_one_label() {
    let interval = Interval::in_memory();
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
    assert_eq!(interval.start("nightly", "daily", "a").unwrap(), 2);
    assert_eq!(interval.start("other", "hourly", "a").unwrap(), 1);
    // Without a key each start is one.
    assert_eq!(interval.start("nightly", "hourly", "").unwrap(), 3);
    assert_eq!(interval.start("nightly", "hourly", "").unwrap(), 4);
}

#[tokio::test]
async fn from_anybody_else_it_is_an_ordinary_variable() {
    let interval = Interval::in_memory();
    interval.start("nightly", "hourly", "a").unwrap();
    for (id, of) in [(2, Type::Human), (3, Type::Bot), (4, Type::Unknown), (5, Type::Unknown)] {
        let run =
            interval.store.start_run(request(of, "nightly", "interval (hourly)", "a"), &By::Core);
        let run = run.unwrap();
        assert_eq!((run.id, run.variables.len()), (id, 2));
    }
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
}

#[tokio::test]
async fn an_extension_starts_runs_in_its_own_name_and_nobody_else_does() {
    let interval = Interval::in_memory();
    let start = |of, name: &str, by: &By| {
        let outcome = interval.store.start_run(request(of, "nightly", name, ""), by);
        outcome.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    };
    let own = &interval.by();
    start(Type::Extension, "interval (hourly)", own).unwrap();
    start(Type::Extension, "interval (a (b))", own).unwrap();
    for (of, name, by) in [
        (Type::Extension, "cron (hourly)", own),
        (Type::Extension, "interval", own),
        (Type::Extension, "interval ()", own),
        (Type::Extension, "interval2 (hourly)", own),
        (Type::Human, "interval (hourly)", own),
        (Type::Unknown, "", own),
        (Type::Extension, "interval (hourly)", &By::Core),
    ] {
        let (code, message) = start(of, name, by).unwrap_err();
        assert_eq!(code, Code::PermissionDenied, "{of:?} {name}");
        assert!(message.contains("`initiator.type`"), "{message}");
    }
    assert_eq!(interval.store.runs("", "nightly").len(), 2);
}

#[tokio::test]
async fn an_empty_key_is_refused() {
    let interval = Interval::in_memory();
    let mut empty = request(Type::Extension, "nightly", "interval (hourly)", "");
    empty.variables.insert(RUN_KEY.to_owned(), String::new());
    let refused = interval.store.start_run(empty, &interval.by()).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains(RUN_KEY), "{refused}");
}

#[tokio::test]
async fn what_a_run_is_started_with_is_bounded() {
    let interval = Interval::in_memory();
    let start = |of: Type, name: String, reason: usize, variables: usize| {
        let by = &if of == Type::Extension { interval.by() } else { By::Core };
        let mut start = request(of, "nightly", &name, "");
        start.initiator.as_mut().unwrap().reason = "r".repeat(reason);
        // Together with their keys.
        for index in 0..usize::from(variables > 0) * 4 {
            start.variables.insert(index.to_string(), "v".repeat(variables / 4 - 1));
        }
        let initiator = start.initiator.clone();
        let started = interval.store.start_run(start, by);
        let retry = RetryRunRequest {
            pipeline_id: "nightly".to_owned(),
            run_id: 1,
            initiator,
            ..Default::default()
        };
        [started, interval.store.retry_run(retry, by)]
    };
    let of_label = |bytes: usize| format!("interval ({})", "l".repeat(bytes));
    for accepted in [
        start(Type::Human, "n".repeat(512), 4096, 256 * 1024),
        start(Type::Extension, of_label(200), 4096, 256 * 1024),
    ] {
        for outcome in accepted {
            outcome.unwrap();
        }
    }
    let too_many = start(Type::Human, "me".to_owned(), 0, 256 * 1024 + 4);
    let [refused, retried] = too_many;
    // A retry brings no variables.
    retried.unwrap();
    let mut all = vec![("`variables`", refused)];
    for (field, refused) in [
        ("`initiator.name`", start(Type::Human, "n".repeat(513), 0, 0)),
        ("`initiator.name`", start(Type::Extension, of_label(201), 0, 0)),
        ("`initiator.name`", start(Type::Extension, "interval (a/b)".to_owned(), 0, 0)),
        ("`initiator.reason`", start(Type::Human, "me".to_owned(), 4097, 0)),
    ] {
        all.extend(refused.map(|refused| (field, refused)));
    }
    for (field, refused) in all {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
        assert!(refused.message().contains(field), "{refused}");
    }
    assert_eq!(interval.store.runs("", "nightly").len(), 5);
}

#[tokio::test]
async fn a_key_goes_with_its_run() {
    let interval = Interval::in_memory();
    interval.start("nightly", "hourly", "a").unwrap();
    for _ in 1..RUNS_PER_PIPELINE {
        interval.start("nightly", "hourly", "").unwrap();
    }
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
    interval.start("nightly", "hourly", "").unwrap();
    let next = i64::try_from(RUNS_PER_PIPELINE).unwrap() + 2;
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), next);
    let tables = interval.store.tables();
    let keys = beginning_with(RecordKind::RunKey.key(&[], None));
    assert_eq!(tables.journal.history().keys(keys).unwrap().len(), 1);
}

#[tokio::test]
async fn a_retry_is_another_run() {
    let interval = Interval::in_memory();
    let retry = |run_id| {
        let pipeline_id = "nightly".to_owned();
        let request = RetryRunRequest { pipeline_id, run_id, ..Default::default() };
        interval.store.retry_run(request, &By::Core).unwrap()
    };
    interval.start("nightly", "hourly", "a").unwrap();
    let again = retry(1);
    assert_eq!((again.id, again.variables.len()), (2, 0));
    // Those of a person stay.
    interval.store.start_run(request(Type::Human, "nightly", "me", "a"), &By::Core).unwrap();
    assert_eq!(retry(3).variables.len(), 2);
}

#[tokio::test]
async fn an_extension_that_retries_a_run_gives_it_no_key() {
    let interval = Interval::in_memory();
    interval.store.start_run(request(Type::Human, "nightly", "me", "a"), &By::Core).unwrap();
    let StartRunRequest { initiator, .. } =
        request(Type::Extension, "nightly", "interval (hourly)", "");
    let pipeline_id = "nightly".to_owned();
    let retry = RetryRunRequest { pipeline_id, run_id: 1, initiator, ..Default::default() };
    let run = interval.store.retry_run(retry, &interval.by()).unwrap();
    assert!(run.variables.is_empty());
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 3);
}

/// The keys of two installed extensions, of which the name of one begins with that of the other.
fn namesakes(store: &Arc<Store>) -> [(KeyGuard, Arc<ExtensionKey>); 2] {
    ["ci", "ci (eu)"].map(|name| {
        let registration = ExtensionRegistration { name: name.to_owned(), ..Default::default() };
        // Refused if it is stored already.
        let _ = store.put_registration(registration, Options::default());
        let of = NewKey::Extension { name: name.to_owned(), grants: [Grant::Everything].into() };
        let guard = store.accept_key(name, of);
        let Some(KeyHolder::Extension(key)) = store.key_holder(&sha256(name.as_bytes())) else {
            panic!()
        };
        (guard, key)
    })
}

fn start_as(store: &Store, by: &Arc<ExtensionKey>, name: &str) -> Result<i64, Code> {
    let by = By::Extension(Arc::clone(by));
    let started = store.start_run(request(Type::Extension, "nightly", name, "a"), &by);
    started.map(|run| run.id).map_err(|status| status.code())
}

/// One with such a name may be in the store of an earlier version.
#[tokio::test]
async fn an_extension_does_not_pass_for_another_whose_name_begins_with_its_own() {
    let store = Store::new(Clock::derived()).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    let [(_ci, ci), (_eu, eu)] = namesakes(&store);
    assert_eq!(start_as(&store, &eu, "ci (eu) (nightly)"), Ok(1));
    assert_eq!(start_as(&store, &ci, "ci (eu) (nightly)"), Err(Code::PermissionDenied));
    // Its own labels, of which one looks like the other's name.
    assert_eq!(start_as(&store, &ci, "ci (eu)"), Ok(2));
    assert_eq!(start_as(&store, &ci, "ci (us) (nightly)"), Ok(3));
    // The other one's key is not its own, even if it may use the name.
    store.remove_registration("ci (eu)").unwrap();
    assert_eq!(start_as(&store, &ci, "ci (eu) (nightly)"), Ok(4));
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_stored_key_belongs_to_the_extension_with_the_longer_name() {
    let directory = crate::files::tests::Scratch::new();
    let path = directory.path("store.redb");
    let open =
        || Store::open(Clock::system(), &path, None, None, &EssentialTasks::default()).unwrap();
    let store = open();
    store.ensure_pipeline("", "nightly").unwrap();
    let keys = namesakes(&store);
    assert_eq!(start_as(&store, &keys[1].1, "ci (eu) (nightly)"), Ok(1));
    store.close().await;
    drop((keys, store));
    let store = open();
    let [(_ci, ci), (_eu, eu)] = namesakes(&store);
    assert_eq!(start_as(&store, &eu, "ci (eu) (nightly)"), Ok(1));
    assert_eq!(start_as(&store, &ci, "ci (eu) (nightly)"), Err(Code::PermissionDenied));
    store.remove_registration("ci (eu)").unwrap();
    assert_eq!(start_as(&store, &ci, "ci (eu) (nightly)"), Ok(2));
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_key_survives_a_restart_of_the_core() {
    let directory = crate::files::tests::Scratch::new();
    let path = directory.path("store.redb");
    let open = || {
        Interval::of(
            Store::open(Clock::system(), &path, None, None, &EssentialTasks::default()).unwrap(),
        )
    };
    let interval = open();
    interval.start("nightly", "hourly", "a").unwrap();
    interval.store.start_run(request(Type::Human, "nightly", "me", "b"), &By::Core).unwrap();
    interval.store.close().await;
    drop(interval);
    let interval = open();
    assert_eq!(interval.start("nightly", "hourly", "a").unwrap(), 1);
    assert_eq!(interval.start("nightly", "hourly", "b").unwrap(), 3);
}
