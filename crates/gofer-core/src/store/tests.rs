//! The rules of the store, one by one.
#![allow(clippy::unwrap_used)]

use gofer_proto as proto;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::patterns::Patterns;
use super::usage::{
    CONTENT_PER_NAMESPACE, NamespaceUsage, RUN_BYTES_PER_PIPELINE, RUNS_PER_PIPELINE,
};
use super::*;
use gofer_net::auth::sha256;
use gofer_proto::extension_registration::ExtensionStatus;
use gofer_proto::initiator::Type;
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_proto::token::Kind;

pub(super) fn all_events(store: &Store) -> Vec<proto::Event> {
    store.events_after(0, i64::MAX, usize::MAX, &|_| true).unwrap().events
}

fn store() -> Arc<Store> {
    let store = Store::new(Clock::derived()).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    store
}

fn start(pipeline: &str) -> proto::StartRunRequest {
    proto::StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        initiator: Some(proto::Initiator {
            r#type: Type::Bot.into(),
            name: "interval (hourly)".to_owned(),
            reason: "an hour passed".to_owned(),
        }),
        ..Default::default()
    }
}

fn namespace(id: &str) -> proto::CreateNamespaceRequest {
    proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() }
}

fn config(id: &str) -> proto::UserPipelineConfig {
    proto::UserPipelineConfig { id: id.to_owned(), ..Default::default() }
}

fn task(id: &str) -> proto::UserPipelineTaskConfig {
    proto::UserPipelineTaskConfig { id: id.to_owned(), ..Default::default() }
}

fn subscription(label: &str) -> proto::PipelineExtensionSubscription {
    proto::PipelineExtensionSubscription {
        namespace: "default".to_owned(),
        pipeline: "nightly".to_owned(),
        name: "interval".to_owned(),
        label: label.to_owned(),
        settings: HashMap::from([("every".to_owned(), "5m".to_owned())]),
        status: State::Active.into(),
        status_reason: None,
    }
}

fn with_interval() -> Arc<Store> {
    let store = store();
    let name = "interval".to_owned();
    let registration = proto::ExtensionRegistration { name, ..Default::default() };
    store.put_registration(registration, Options::default()).unwrap();
    store
}

fn kinds(store: &Store) -> Vec<String> {
    all_events(store).into_iter().map(|event| event.r#type).collect()
}

#[track_caller]
fn refused<T>(outcome: Result<T, Status>, code: Code, problem: &str) {
    let status = outcome.err().unwrap();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(problem), "{status}");
}

#[tokio::test]
async fn the_default_namespace_always_exists() {
    let store = store();
    assert_eq!(store.namespace("").unwrap().id, "default");
    refused(store.delete_namespace("default", &By::Core), Code::FailedPrecondition, "`default`");
}

#[tokio::test]
async fn a_namespace_is_created_changed_and_deleted() {
    let store = store();
    store.create_namespace(namespace("ops"), &By::Core).unwrap();
    refused(store.create_namespace(namespace("ops"), &By::Core), Code::AlreadyExists, "already");
    let change = proto::UpdateNamespaceRequest {
        id: "ops".to_owned(),
        name: "Operations".to_owned(),
        description: String::new(),
    };
    store.update_namespace(change, &By::Core).unwrap();
    assert_eq!(store.namespace("ops").unwrap().name, "Operations");
    store.delete_namespace("ops", &By::Core).unwrap();
    refused(store.namespace("ops"), Code::NotFound, "`ops`");
    assert_eq!(kinds(&store)[2..], ["NAMESPACE_CREATED", "NAMESPACE_DELETED"]);
}

#[tokio::test]
async fn a_namespace_with_pipelines_is_not_deleted() {
    let store = store();
    store.ensure_pipeline("ops", "backup").unwrap();
    refused(store.delete_namespace("ops", &By::Core), Code::FailedPrecondition, "pipelines");
    store.delete_pipeline("ops", "backup", Reason::UserCancelled, &By::Core).unwrap();
    store.delete_namespace("ops", &By::Core).unwrap();
}

#[tokio::test]
async fn ambiguous_and_unprintable_names_are_refused() {
    let store = store();
    for name in ["", "a/b", "a\nb", &"x".repeat(201)] {
        refused(
            store.create_namespace(namespace(name), &By::Core),
            Code::InvalidArgument,
            "namespace's id",
        );
        refused(
            store.register_config("", config(name), &By::Core),
            Code::InvalidArgument,
            "pipeline's id",
        );
    }
    store.create_namespace(namespace("Ä b.c-d_e"), &By::Core).unwrap();
}

#[tokio::test]
async fn configurations_count_their_versions_and_the_newest_is_live() {
    let store = store();
    let second = store.register_config("", config("nightly"), &By::Core).unwrap().config.unwrap();
    assert_eq!((second.version, second.state()), (2, PipelineConfigState::Live));
    let first = store.config("", "nightly", 1).unwrap();
    assert_eq!(first.state(), PipelineConfigState::Deprecated);
    assert!(first.deprecated > 0);
    assert_eq!(store.pipeline("", "nightly", 0).unwrap().config.unwrap().version, 2);
    let all = store.configs("", "nightly", Page::new(0, 0).unwrap()).unwrap();
    assert_eq!(all.iter().map(|it| it.version).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn the_live_configuration_is_not_deleted_and_versions_are_not_given_twice() {
    let store = store();
    refused(
        store.delete_config("", "nightly", 1, &By::Core),
        Code::FailedPrecondition,
        "version 1",
    );
    store.register_config("", config("nightly"), &By::Core).unwrap();
    store.delete_config("", "nightly", 1, &By::Core).unwrap();
    refused(store.config("", "nightly", 1), Code::NotFound, "version 1");
    let third = store.register_config("", config("nightly"), &By::Core).unwrap().config.unwrap();
    assert_eq!(third.version, 3);
}

#[tokio::test]
async fn tasks_are_stored_and_must_fit_together() {
    let store = store();
    let mut test = task("test");
    test.depends_on.insert("build".to_owned(), 2);
    test.variables.insert("LEVEL".to_owned(), "all".to_owned());
    let mut good = config("ci");
    good.tasks = vec![test.clone(), task("build")];
    let tasks = store.register_config("", good, &By::Core).unwrap().config.unwrap().tasks;
    assert_eq!(tasks["test"].depends_on["build"], 2);
    assert_eq!(tasks["test"].variables[0].source, "PIPELINE_CONFIG");

    let mut lone = config("ci");
    lone.tasks = vec![test];
    refused(store.register_config("", lone, &By::Core), Code::InvalidArgument, "`build`");
    let mut twins = config("ci");
    twins.tasks = vec![task("build"), task("build")];
    refused(
        store.register_config("", twins, &By::Core),
        Code::InvalidArgument,
        "two tasks `build`",
    );
    assert_eq!(store.pipeline("", "ci", 0).unwrap().config.unwrap().version, 1);
}

#[tokio::test]
async fn runs_count_up_from_one_in_each_pipeline() {
    let store = store();
    store.ensure_pipeline("", "other").unwrap();
    assert_eq!(store.start_run(start("nightly"), &By::Core).unwrap().id, 1);
    assert_eq!(store.start_run(start("nightly"), &By::Core).unwrap().id, 2);
    assert_eq!(store.start_run(start("other"), &By::Core).unwrap().id, 1);
}

#[tokio::test]
async fn a_run_without_a_handler_is_complete_when_its_start_is_answered() {
    let store = store();
    let mut request = start("nightly");
    request.variables.insert("B".to_owned(), "2".to_owned());
    request.variables.insert("A".to_owned(), "1".to_owned());
    let accepted = store.start_run(request, &By::Core).unwrap();
    let found = store.run("", "nightly", 1).unwrap();
    assert_eq!(accepted, found);
    assert_eq!((found.state(), found.status()), (RunState::Complete, RunStatus::Successful));
    assert_eq!(found.initiator.unwrap().reason, "an hour passed");
    let variables: Vec<_> =
        found.variables.iter().map(|it| (&*it.key, &*it.value, &*it.source)).collect();
    assert_eq!(variables, [("A", "1", "RUN_OPTIONS"), ("B", "2", "RUN_OPTIONS")]);
}

#[tokio::test]
async fn a_run_is_published_with_what_the_contract_lists() {
    let store = store();
    store.start_run(start("nightly"), &By::Core).unwrap();
    let events = store.events_after(2, i64::MAX, usize::MAX, &|_| true).unwrap().events;
    assert_eq!(events[0].r#type, "RUN_STARTED");
    assert_eq!(
        events[0].details,
        r#"{"namespace_id":"default","pipeline_id":"nightly","run_id":1,"initiator_type":"BOT","initiator_name":"interval (hourly)"}"#
    );
    assert_eq!(events[1].r#type, "RUN_COMPLETED");
    assert!(events[1].details.ends_with(r#","status":"SUCCESSFUL"}"#));
}

#[tokio::test]
async fn a_run_that_must_not_start_is_refused() {
    let store = store();
    refused(store.start_run(start("absent"), &By::Core), Code::NotFound, "`default/absent`");
    let elsewhere = proto::StartRunRequest { namespace_id: "ops".to_owned(), ..start("nightly") };
    refused(store.start_run(elsewhere, &By::Core), Code::NotFound, "namespace `ops`");

    store.set_pipeline_state("", "nightly", PipelineState::Disabled, &By::Core).unwrap();
    refused(store.start_run(start("nightly"), &By::Core), Code::FailedPrecondition, "disabled");
    store.set_pipeline_state("", "nightly", PipelineState::Active, &By::Core).unwrap();

    assert!(store.toggle_ignoring_runs(&By::Core).unwrap());
    refused(
        store.start_run(start("nightly"), &By::Core),
        Code::FailedPrecondition,
        "ToggleEventIngress",
    );
    assert!(!store.toggle_ignoring_runs(&By::Core).unwrap());
    assert_eq!(store.start_run(start("nightly"), &By::Core).unwrap().id, 1);
}

#[tokio::test]
async fn a_pipeline_without_a_configuration_does_not_run() {
    let store = store();
    store.tables().pipeline_mut("", "nightly").unwrap().live = None;
    refused(
        store.start_run(start("nightly"), &By::Core),
        Code::FailedPrecondition,
        "no configuration",
    );
}

#[tokio::test]
async fn runs_are_listed_newest_first_by_page() {
    let store = store();
    for _ in 0..250 {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    let ids = |offset, limit| {
        let page = Page::new(offset, limit).unwrap();
        let runs = store.list_runs("", "nightly", page).unwrap();
        runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0, 3), [250, 249, 248]);
    assert_eq!(ids(248, 3), [2, 1]);
    assert_eq!(ids(0, 0).len(), 200);
    assert!(ids(250, 1).is_empty());
    refused(Page::new(-1, 0), Code::InvalidArgument, "negative");
}

#[tokio::test]
async fn only_the_newest_runs_of_a_pipeline_are_kept() {
    let store = store();
    for _ in 0..RUNS_PER_PIPELINE + 2 {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    assert_eq!(store.runs("", "nightly").len(), RUNS_PER_PIPELINE);
    refused(store.run("", "nightly", 2), Code::NotFound, "run 2");
    for id in [3, i64::try_from(RUNS_PER_PIPELINE + 2).unwrap()] {
        assert_eq!(store.run("", "nightly", id).unwrap().id, id);
    }
    for id in [0, i64::MIN, i64::MAX] {
        refused(store.run("", "nightly", id), Code::NotFound, "no run");
    }
}

#[tokio::test]
async fn a_retried_run_has_the_variables_of_the_first() {
    let store = store();
    let mut request = start("nightly");
    request.variables.insert("COMMIT".to_owned(), "c0ffee".to_owned());
    store.start_run(request, &By::Core).unwrap();
    let again = proto::RetryRunRequest {
        pipeline_id: "nightly".to_owned(),
        run_id: 1,
        ..Default::default()
    };
    let again = store.retry_run(again, &By::Core).unwrap();
    assert_eq!((again.id, &*again.variables[0].value), (2, "c0ffee"));
}

#[tokio::test]
async fn a_watcher_sees_each_run_as_it_is_accepted() {
    let store = store();
    let mut started = store.run_started();
    store.start_run(start("nightly"), &By::Core).unwrap();
    assert_eq!(started.recv().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn records_carry_the_time_of_the_clock() {
    let store = store();
    let first = store.start_run(start("nightly"), &By::Core).unwrap().started;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(store.start_run(start("nightly"), &By::Core).unwrap().started - first, 3_600_000);
}

#[tokio::test]
async fn events_are_read_from_any_number_in_either_direction() {
    let store = store();
    for _ in 0..4 {
        store
            .publish_extension(
                EventKind::ExtensionEnabled,
                &proto::ExtensionRegistration::default(),
            )
            .unwrap();
    }
    let ids = |batch: EventBatch| batch.events.iter().map(|it| it.id).collect::<Vec<_>>();
    let after = |id, until, limit| {
        let batch = store.events_after(id, until, limit, &|_| true).unwrap();
        (batch.through, ids(batch))
    };
    let before = |id, limit| {
        let batch = store.events_before(id, limit, &|_| true).unwrap();
        (batch.through, ids(batch))
    };
    assert_eq!(after(0, i64::MAX, 2), (2, vec![1, 2]));
    assert_eq!(after(4, i64::MAX, 9), (6, vec![5, 6]));
    assert_eq!(after(1, 3, 9), (3, vec![2, 3]));
    assert_eq!(after(6, i64::MAX, 9), (6, vec![]));
    assert_eq!(before(7, 2), (5, vec![6, 5]));
    assert_eq!(before(3, 9), (0, vec![2, 1]));
    assert_eq!(before(1, 9), (0, vec![]));
    assert_eq!(store.event(3, &|_| true).unwrap().unwrap().id, 3);
    for id in [0, 7, i64::MIN, i64::MAX] {
        assert_eq!(store.event(id, &|_| true).unwrap(), None);
    }
}

#[tokio::test]
async fn only_events_that_are_seen_are_read() {
    let store = store();
    store.tables().events = EventLog::new(6);
    let extension =
        |name: &str| proto::ExtensionRegistration { name: name.to_owned(), ..Default::default() };
    for name in ["a", "b", "a", "c", "b", "a", "a"] {
        store.publish_extension(EventKind::ExtensionEnabled, &extension(name)).unwrap();
    }
    let sees = |names: &'static [&str]| {
        move |scope: EventScope<'_>| names.iter().any(|it| scope == EventScope::Extension(it))
    };
    let ids = |batch: &EventBatch| batch.events.iter().map(|it| it.id).collect::<Vec<_>>();
    // The first has been dropped.
    let batch = store.events_after(0, i64::MAX, 9, &sees(&["a", "c"])).unwrap();
    assert_eq!((ids(&batch), batch.through, batch.missed), (vec![3, 4, 6, 7], 7, true));
    let batch = store.events_after(1, i64::MAX, 1, &sees(&["b"])).unwrap();
    assert_eq!((ids(&batch), batch.through, batch.missed), (vec![2], 2, false));
    let batch = store.events_before(7, 2, &sees(&["b"])).unwrap();
    assert_eq!((ids(&batch), batch.through), (vec![5, 2], 2));
    assert!(store.event(4, &sees(&["a"])).unwrap().is_none());
    assert!(store.event(4, &sees(&["c"])).unwrap().is_some());
    // A scope is forgotten with its last event.
    for _ in 0..6 {
        store.publish_extension(EventKind::ExtensionEnabled, &extension("d")).unwrap();
    }
    assert!(store.events_after(7, i64::MAX, 9, &sees(&["a", "b", "c"])).unwrap().events.is_empty());
    assert_eq!(ids(&store.events_after(7, i64::MAX, 9, &sees(&["d"])).unwrap()).len(), 6);
}

#[tokio::test]
async fn only_the_newest_events_are_kept_and_numbers_go_on() {
    let store = store();
    store.tables().events = EventLog::new(3);
    for _ in 0..5 {
        store
            .publish_extension(
                EventKind::ExtensionEnabled,
                &proto::ExtensionRegistration::default(),
            )
            .unwrap();
    }
    let events = store.events_after(0, i64::MAX, 9, &|_| true).unwrap().events;
    assert_eq!(events.iter().map(|it| it.id).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(store.event(2, &|_| true).unwrap(), None);
}

#[tokio::test]
async fn a_waiter_for_an_event_is_woken() {
    let store = store();
    let mut progress = store.progress();
    let last = progress.borrow().last;
    let waiting = tokio::spawn(async move {
        progress.wait_for(|it| it.last > last).await.map(|it| it.last).unwrap()
    });
    tokio::task::yield_now().await;
    store
        .publish_extension(EventKind::ExtensionEnabled, &proto::ExtensionRegistration::default())
        .unwrap();
    assert_eq!(waiting.await.unwrap(), last + 1);
}

#[tokio::test]
async fn a_subscription_is_stored_replaced_and_removed() {
    let store = with_interval();
    store.put_subscription(subscription("hourly"), None, &By::Core).unwrap();
    let mut changed = subscription("hourly");
    changed.settings.insert("every".to_owned(), "1h".to_owned());
    store.put_subscription(changed, None, &By::Core).unwrap();
    store.put_subscription(subscription("daily"), None, &By::Core).unwrap();
    let stored = store.subscriptions("", "nightly").unwrap();
    assert_eq!(stored.iter().map(|it| &*it.label).collect::<Vec<_>>(), ["daily", "hourly"]);
    assert_eq!(stored[1].settings["every"], "1h");
    assert_eq!(store.subscriptions_of_extension("interval").len(), 2);
    store.remove_subscription(["", "nightly", "interval", "hourly"], &By::Core).unwrap();
    refused(
        store.subscription("", "nightly", "interval", "hourly"),
        Code::NotFound,
        "`hourly` to the extension `interval`",
    );
    let last = all_events(&store).pop().unwrap();
    assert_eq!(last.r#type, "PIPELINE_EXTENSION_UNSUBSCRIPTION");
    assert!(!last.details.contains("every"), "settings may be secrets: {}", last.details);
}

#[tokio::test]
async fn a_subscription_to_something_that_does_not_exist_is_refused() {
    let store = store();
    let outcome = store.put_subscription(subscription("hourly"), None, &By::Core);
    refused(outcome, Code::NotFound, "`interval`");
    let store = with_interval();
    store.delete_pipeline("", "nightly", Reason::UserCancelled, &By::Core).unwrap();
    let outcome = store.put_subscription(subscription("hourly"), None, &By::Core);
    refused(outcome, Code::NotFound, "`default/nightly`");
}

#[tokio::test]
async fn a_status_has_its_reason() {
    let store = with_interval();
    store.put_subscription(subscription("hourly"), None, &By::Core).unwrap();
    store
        .set_subscription_status(
            ["", "nightly", "interval", "hourly"],
            State::Error,
            "too short",
            &By::Core,
        )
        .unwrap();
    let stored = store.subscription("", "nightly", "interval", "hourly").unwrap();
    assert_eq!(stored.status(), State::Error);
    assert_eq!(stored.status_reason.unwrap().description, "too short");
}

#[tokio::test]
async fn subscriptions_are_removed_with_their_pipeline_or_extension() {
    let store = with_interval();
    store.put_subscription(subscription("hourly"), None, &By::Core).unwrap();
    assert_eq!(
        store.delete_pipeline("", "nightly", Reason::UserCancelled, &By::Core).unwrap().len(),
        1
    );
    assert!(store.subscriptions_of_extension("interval").is_empty());

    store.ensure_pipeline("", "nightly").unwrap();
    store.put_subscription(subscription("hourly"), None, &By::Core).unwrap();
    store.remove_registration("interval").unwrap();
    assert!(store.subscriptions("", "nightly").unwrap().is_empty());
}

#[tokio::test]
async fn an_extension_is_registered_once() {
    let store = with_interval();
    let registration = store.registration("interval").unwrap();
    refused(
        store.put_registration(registration, Options::default()),
        Code::AlreadyExists,
        "`interval`",
    );
    store.set_registration_status("interval", ExtensionStatus::Disabled).unwrap();
    assert_eq!(store.registrations()[0].status(), ExtensionStatus::Disabled);
    store.remove_registration("interval").unwrap();
    refused(store.remove_registration("interval"), Code::NotFound, "`interval`");
}

#[tokio::test]
async fn a_change_of_an_extension_and_its_event_are_one_operation() {
    let store = with_interval();
    let last = || all_events(&store).pop().unwrap();
    let details = serde_json::json!({ "name": "interval", "image": "" }).to_string();
    assert_eq!((&*last().r#type, &last().details), ("EXTENSION_INSTALLED", &details));
    store.set_registration_status("interval", ExtensionStatus::Disabled).unwrap();
    assert_eq!((&*last().r#type, &last().details), ("EXTENSION_DISABLED", &details));
    store.set_registration_status("interval", ExtensionStatus::Enabled).unwrap();
    assert_eq!((&*last().r#type, &last().details), ("EXTENSION_ENABLED", &details));
    store.put_subscription(subscription("hourly"), None, &By::Core).unwrap();
    let before = last().id;
    store.remove_registration("interval").unwrap();
    assert_eq!((&*last().r#type, &last().details), ("EXTENSION_UNINSTALLED", &details));
    assert_eq!(
        store.events_after(before, i64::MAX, 1, &|_| true).unwrap().events[0].r#type,
        "PIPELINE_EXTENSION_UNSUBSCRIPTION"
    );
}

/// The subscriptions of an extension, and those that a look at all pipelines finds.
fn subscriptions_of(
    store: &Store,
    extension: &str,
) -> [Vec<proto::PipelineExtensionSubscription>; 2] {
    let page = || Page::new(0, i64::MAX).unwrap();
    let namespaces = store.namespaces(page(), |_| true).into_iter();
    let pipelines = namespaces.flat_map(|it| store.pipelines(&it.id, page()).unwrap());
    let all = pipelines.flat_map(|it| store.subscriptions(&it.namespace, &it.id).unwrap());
    let found = all.filter(|it| it.name == extension).collect();
    [store.subscriptions_of_extension(extension), found]
}

#[tokio::test]
async fn the_subscriptions_of_an_extension_are_those_of_all_pipelines() {
    let store = with_interval();
    let other = proto::ExtensionRegistration { name: "cron".to_owned(), ..Default::default() };
    store.put_registration(other, Options::default()).unwrap();
    let mut all = Vec::new();
    for (namespace, pipeline) in [("default", "nightly"), ("default", "b"), ("ops", "nightly")] {
        store.ensure_pipeline(namespace, pipeline).unwrap();
        for (extension, label) in [("interval", "l"), ("interval", "m"), ("cron", "l")] {
            all.push(proto::PipelineExtensionSubscription {
                namespace: namespace.to_owned(),
                pipeline: pipeline.to_owned(),
                name: extension.to_owned(),
                ..subscription(label)
            });
        }
    }
    let check = |of: &str, expected: usize| {
        let [listed, found] = subscriptions_of(&store, of);
        assert_eq!(listed, found);
        assert_eq!(listed.len(), expected, "{of}");
    };
    for it in &all {
        store.put_subscription(it.clone(), None, &By::Core).unwrap();
        store.put_subscription(it.clone(), None, &By::Core).unwrap();
    }
    check("interval", 6);
    store.remove_subscription(["", "b", "interval", "m"], &By::Core).unwrap();
    check("interval", 5);
    store.delete_pipeline("ops", "nightly", Reason::UserCancelled, &By::Core).unwrap();
    check("interval", 3);
    check("cron", 2);
    store.remove_registration("interval").unwrap();
    check("interval", 0);
    check("cron", 2);
}

#[tokio::test]
async fn a_token_is_kept_only_as_its_digest() {
    let store = store();
    let (details, token) = store.bootstrap_token().unwrap();
    assert_eq!((details.kind(), token.len(), details.expires), (Kind::Management, 64, 0));
    assert_eq!(store.token(&token).unwrap().1, details);
    refused(store.bootstrap_token(), Code::FailedPrecondition, "first token");
    store.disable_token(&token, true, &By::Core).unwrap();
    assert!(store.token(&token).unwrap().1.disabled);
    store.delete_token(&token, &By::Core).unwrap();
    refused(store.token(&token), Code::NotFound, "token");
    refused(store.bootstrap_token(), Code::FailedPrecondition, "first token");
}

#[tokio::test]
async fn a_token_is_revoked_by_the_first_digits_of_its_digest() {
    let store = store();
    let (_, token) = store.bootstrap_token().unwrap();
    let digest = hex::encode(sha256(token.as_bytes()));
    for which in [&digest[..8], &digest[..16], &digest, &digest[..8].to_uppercase()] {
        assert_eq!(hex::encode(store.token(which).unwrap().0), digest, "{which}");
        store.disable_token(which, true, &By::Core).unwrap();
        assert!(store.token(&token).unwrap().1.disabled);
        store.disable_token(which, false, &By::Core).unwrap();
    }
    refused(store.token(&digest[..7]), Code::InvalidArgument, "at least 8");
    let other = if digest.starts_with('0') { "1" } else { "0" };
    let unknown = format!("{other}{}", &digest[1..9]);
    for which in ["", "not hexadecimal", &unknown, &format!("{digest}0"), &token[..20]] {
        refused(store.token(which), Code::NotFound, "no such token");
        refused(store.delete_token(which, &By::Core), Code::NotFound, "no such token");
    }
    store.delete_token(&digest[..8], &By::Core).unwrap();
    refused(store.token(&token), Code::NotFound, "no such token");
}

#[tokio::test]
async fn an_ambiguous_digest_revokes_nothing() {
    let store = store();
    let (_, token) = store.bootstrap_token().unwrap();
    let digest = sha256(token.as_bytes());
    // No two tokens whose digests begin alike can be found.
    let mut alike = digest;
    alike[31] ^= 1;
    {
        let mut tables = store.tables();
        let details = Arc::clone(&tables.tokens[&digest]);
        tables.tokens.insert(alike, details);
    }
    let digits = hex::encode(digest);
    refused(store.disable_token(&digits[..8], true, &By::Core), Code::InvalidArgument, "ambiguous");
    refused(store.delete_token(&digits[..62], &By::Core), Code::InvalidArgument, "ambiguous");
    assert!(!store.token(&token).unwrap().1.disabled);
    store.delete_token(&digits, &By::Core).unwrap();
    assert_eq!(store.tokens("").len(), 1);
}

#[tokio::test]
async fn tokens_are_listed_by_the_namespace_that_they_give_access_to() {
    let store = store();
    let client = |patterns: &[&str]| {
        let patterns = patterns.iter().map(|&it| it.to_owned()).collect();
        store.create_token(Kind::Client, patterns, HashMap::new(), None, &By::Core)
    };
    client(&["default"]).unwrap();
    client(&["team-.*"]).unwrap();
    assert_eq!(store.tokens("team-a").len(), 1);
    store.bootstrap_token().unwrap();
    assert_eq!(store.tokens("team-a").len(), 2);
    assert_eq!(store.tokens("").len(), 3);
    refused(client(&[]), Code::InvalidArgument, "`namespaces`");
    refused(client(&["ops", "o[pq"]), Code::InvalidArgument, "`namespaces[1]`");
    refused(client(&[""]), Code::InvalidArgument, "`namespaces[0]` must not be empty");
    let unknown = store.create_token(Kind::Unknown, Vec::new(), HashMap::new(), None, &By::Core);
    refused(unknown, Code::InvalidArgument, "`kind`");
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, matched) in [
        ("ops", "ops", true),
        ("^ops$", "ops", true),
        ("ops", "ops2", false),
        ("ops", "devops", false),
        (".*", "", true),
        (".*", "anything", true),
        ("team-.*", "team-", true),
        ("team-.*", "team", false),
        (".*-prod", "ops-prod", true),
        (".*-prod", "ops-prod2", false),
        ("a.*b.*c", "abc", true),
        ("a.*b.*c", "axxbyybzzc", true),
        ("a.*b.*c", "acb", false),
        ("aa.*aa", "aaa", false),
        ("o[pq]s", "oqs", true),
        ("o[pq]s", "devoqs", false),
        ("dev|ops", "ops2", false),
        (r"team-\d{2}", "team-07", true),
        ("a.c", "abc", true),
    ] {
        let patterns = Patterns::new(&[pattern.to_owned()]).unwrap();
        assert_eq!(patterns.matches(name), matched, "{pattern} {name}");
    }
}

#[test]
fn patterns_that_cannot_be_used_are_refused() {
    let long = "a".repeat(501);
    for (pattern, problem) in [
        ("a)|(?:b", "regular expression"),
        ("[a", "regular expression"),
        ("a\\", "regular expression"),
        ("((a{100}){100}){100}", "regular expression"),
        (&long, "has 501 bytes"),
    ] {
        let status = Patterns::new(&[".*".to_owned(), pattern.to_owned()]).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let message = status.message();
        assert!(message.contains("`namespaces[1]`") && message.contains(problem), "{message}");
    }
    let many = vec!["a".to_owned(); 101];
    refused(Patterns::new(&many), Code::InvalidArgument, "at most 100");
}

#[cfg(feature = "store")]
#[test]
fn stored_patterns_are_used_however_long_they_are() {
    let long = format!("{}.*", "a".repeat(600));
    let patterns = Patterns::restore(&[long, "(".to_owned(), "^ops$".to_owned()]);
    assert!(patterns.matches(&"a".repeat(601)));
    assert!(patterns.matches("ops"));
    assert!(!patterns.matches("("));
}

#[tokio::test]
async fn changes_of_one_subscription_wait_for_each_other_and_keep_no_locks() {
    let store = store();
    let first = store.lock_subscription(&subscription("hourly")).await;
    let other = store.lock_subscription(&subscription("daily")).await;
    let second = tokio::spawn({
        let store = Arc::clone(&store);
        async move { drop(store.lock_subscription(&subscription("hourly")).await) }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap();
    assert_eq!(store.locked_subscriptions(), 1);
    drop(other);
    assert_eq!(store.locked_subscriptions(), 0);
}

#[tokio::test]
async fn objects_are_put_replaced_listed_and_deleted() {
    let store = store();
    let of = Owner { namespace: "", pipeline: "nightly", run: None, by: &By::Core };
    let put = |key: &str, force| store.put_object(of, key.to_owned(), "1".into(), force);
    assert_eq!(put("b", false).unwrap(), None);
    put("a", false).unwrap();
    refused(put("a", false), Code::AlreadyExists, "`a`");
    put("a", true).unwrap();
    let keys: Vec<_> = store.objects(of).unwrap().into_iter().map(|it| it.key).collect();
    assert_eq!(keys, ["a", "b"]);
    store.delete_object(of, "a").unwrap();
    refused(store.object(of, "a"), Code::NotFound, "`a`");
    refused(put("", false), Code::InvalidArgument, "object's key");
    let absent = Owner { pipeline: "absent", ..of };
    refused(store.objects(absent), Code::NotFound, "absent");
    refused(store.objects(Owner { run: Some(1), ..of }), Code::NotFound, "no run 1");
}

#[tokio::test(start_paused = true)]
async fn an_object_too_many_evicts_the_oldest_of_the_pipeline() {
    let store = store();
    let of = Owner { namespace: "", pipeline: "nightly", run: None, by: &By::Core };
    let limit = usize::try_from(object_limit()).unwrap();
    for n in 0..limit {
        store.put_object(of, format!("z-{}", limit - n), "1".into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let evicted = store.put_object(of, "last".to_owned(), "1".into(), false).unwrap();
    assert_eq!(evicted, Some(format!("z-{limit}")));
    assert_eq!(store.objects(of).unwrap().len(), limit);
}

#[tokio::test]
async fn objects_of_a_run_expire_when_many_have_followed_it() {
    let store = store();
    let of = |run| Owner { namespace: "", pipeline: "nightly", run: Some(run), by: &By::Core };
    for run in 1..=25 {
        store.start_run(start("nightly"), &By::Core).unwrap();
        store.put_object(of(run), "log".to_owned(), "1".into(), false).unwrap();
    }
    refused(store.object(of(5), "log"), Code::NotFound, "evicted");
    assert_eq!(store.object(of(6), "log").unwrap(), "1");
}

#[tokio::test]
async fn a_global_secret_is_for_the_namespaces_that_it_names() {
    let store = store();
    let of = Holder::Pipeline { namespace: "", pipeline: "nightly", by: &By::Core };
    let put = |of, force| {
        let access = vec!["ops-.*".to_owned()];
        store.put_secret(of, "token".to_owned(), "hunter22".to_owned(), access, force)
    };
    put(of, false).unwrap();
    put(Holder::Global { by: &By::Core }, false).unwrap();
    refused(put(of, false), Code::AlreadyExists, "`token`");
    put(of, true).unwrap();
    assert_eq!(store.secret(of, "token").unwrap().1, "hunter22");
    assert_eq!(store.global_secret_for("ops-eu", "token").as_deref(), Some("hunter22"));
    assert_eq!(store.global_secret_for("default", "token"), None);
    store.delete_secret(of, "token").unwrap();
    refused(store.secret(of, "token"), Code::NotFound, "`token`");
}

#[tokio::test]
async fn settings_that_refer_to_something_are_resolved() {
    let store = with_interval();
    let of = Holder::Pipeline { namespace: "", pipeline: "nightly", by: &By::Core };
    store.put_secret(of, "pace".to_owned(), "5m".to_owned(), vec![], false).unwrap();
    let owner = Owner { namespace: "", pipeline: "nightly", run: None, by: &By::Core };
    store.put_object(owner, "pace".to_owned(), "7m".into(), false).unwrap();
    let resolved = |setting: &str| {
        let mut it = subscription("hourly");
        it.settings = HashMap::from([("every".to_owned(), setting.to_owned())]);
        store.resolved(&it).map(|mut settings| settings.remove("every").unwrap())
    };
    assert_eq!(resolved("1h").unwrap(), "1h");
    assert_eq!(resolved("pipeline_secret{{ pace }}").unwrap(), "5m");
    assert_eq!(resolved("pipeline_object{{pace}}").unwrap(), "7m");
    refused(resolved("global_secret{{ pace }}"), Code::FailedPrecondition, "`every` refers to");
    store
        .put_object(owner, "binary".to_owned(), bytes::Bytes::from_static(b"\xff"), false)
        .unwrap();
    refused(resolved("pipeline_object{{ binary }}"), Code::FailedPrecondition, "UTF-8");
}

#[tokio::test]
async fn a_page_is_bounded() {
    let store = store();
    for _ in 0..1_001 {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    let page = Page::new(0, i64::MAX).unwrap();
    assert_eq!(store.list_runs("", "nightly", page).unwrap().len(), 1_000);
}

#[tokio::test]
async fn the_oldest_earlier_configurations_are_dropped() {
    let store = store();
    let config = || proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    for _ in 0..102 {
        store.register_config("", config(), &By::Core).unwrap();
    }
    let page = Page::new(0, 0).unwrap();
    let configs = store.configs("", "nightly", page).unwrap();
    let versions: Vec<_> = configs.iter().map(|it| it.version).collect();
    assert_eq!(versions, (3..=103).rev().collect::<Vec<_>>(), "the live one and a hundred");
    refused(store.config("", "nightly", 2), Code::NotFound, "version 2");
    assert_eq!(store.config("", "nightly", 0).unwrap().version, 103);
}

fn namespace_usage(store: &Store) -> NamespaceUsage {
    store.tables().namespace("").unwrap().usage
}

#[tokio::test]
async fn what_a_namespace_stores_is_bounded() {
    let store = with_interval();
    let of = Owner { namespace: "", pipeline: "nightly", run: None, by: &By::Core };
    store.put_object(of, "there".to_owned(), vec![0; 1000].into(), false).unwrap();
    let before = namespace_usage(&store);
    store.tables().namespace_mut("").unwrap().usage.content_bytes = CONTENT_PER_NAMESPACE - 500;
    let why = "the namespace `default` has no room";
    let put = |length| store.put_object(of, "new".to_owned(), vec![0; length].into(), false);
    refused(put(1000), Code::ResourceExhausted, why);
    let config = proto::UserPipelineConfig {
        id: "nightly".to_owned(),
        description: "long".repeat(200),
        ..Default::default()
    };
    refused(store.register_config("", config, &By::Core), Code::ResourceExhausted, why);
    let holder = Holder::Pipeline { namespace: "", pipeline: "nightly", by: &By::Core };
    let secret = || store.put_secret(holder, "key".to_owned(), "s".repeat(1000), vec![], false);
    refused(secret(), Code::ResourceExhausted, why);
    let mut long = subscription("long");
    long.settings.insert("text".to_owned(), "long".repeat(200));
    refused(store.put_subscription(long, None, &By::Core), Code::ResourceExhausted, why);
    // What is smaller than what it replaces, and what has room.
    store.put_object(of, "there".to_owned(), vec![0; 10].into(), true).unwrap();
    put(500).unwrap();
    // All of it is counted once.
    store.tables().namespace_mut("").unwrap().usage.content_bytes =
        before.content_bytes - 990 + 567;
    store.delete_object(of, "new").unwrap();
    store.delete_object(of, "there").unwrap();
    secret().unwrap();
    store.delete_secret(holder, "key").unwrap();
    let reason = Reason::UserCancelled;
    store.delete_pipeline("", "nightly", reason, &By::Core).unwrap();
    assert_eq!(namespace_usage(&store), NamespaceUsage::default());
}

#[tokio::test]
async fn runs_with_large_variables_are_bounded_too() {
    let store = store();
    for _ in 0..3 {
        store.start_run(start("nightly"), &By::Core).unwrap();
    }
    store.tables().pipeline_mut("", "nightly").unwrap().usage.run_bytes += RUN_BYTES_PER_PIPELINE;
    store.start_run(start("nightly"), &By::Core).unwrap();
    let ids: Vec<_> = store.runs("", "nightly").iter().map(|run| run.id).collect();
    assert_eq!(ids, [4], "the older ones have made room");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_have_expired_are_forgotten() {
    let store = store();
    let hour = Some(Duration::from_secs(3600));
    let create =
        |valid| store.create_token(Kind::Management, Vec::new(), HashMap::new(), valid, &By::Core);
    let (_, token) = create(hour).unwrap();
    tokio::time::sleep(Duration::from_secs(29 * 24 * 3600)).await;
    create(None).unwrap();
    assert!(store.token(&token).is_ok(), "that it has expired is still known");
    tokio::time::sleep(Duration::from_secs(2 * 24 * 3600)).await;
    create(None).unwrap();
    assert!(store.token(&token).is_err());
    assert_eq!(store.tokens("").len(), 2);
    for _ in 2..10_000 {
        create(None).unwrap();
    }
    refused(create(None).map(drop), Code::ResourceExhausted, "10000 tokens");
}
