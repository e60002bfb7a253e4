//! How the subscriptions of an extension are doing: what of it the core shows to whom.

use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS, minutes};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::{
    ListSubscriptionStatesRequest, ListSubscriptionStatesResponse, ListedSubscription,
    SubscriptionKey,
};
use gofer_sdk::internal::transport;
use gofer_sdk::{Gofer, Result};
use tonic::{Code, Status};

use crate::caller::Caller;
use crate::probe;
use crate::ticks::{Every, enable};

/// All that `every` has for a caller.
fn all() -> ListSubscriptionStatesRequest {
    let extension_name = "every".to_owned();
    ListSubscriptionStatesRequest { extension_name, ..Default::default() }
}

pub(crate) async fn list(
    gofer: &Gofer,
    request: ListSubscriptionStatesRequest,
) -> Result<ListSubscriptionStatesResponse, Status> {
    let mut client = EmbeddedCoreClient::new(transport(gofer));
    Ok(client.list_subscription_states(request).await?.into_inner())
}

fn name(listed: &ListedSubscription) -> String {
    let SubscriptionKey { namespace_id, pipeline_id, label } = listed.key.clone().unwrap();
    format!("{namespace_id}/{pipeline_id} {label}")
}

fn names(page: &ListSubscriptionStatesResponse) -> Vec<String> {
    page.subscriptions.iter().map(name).collect()
}

async fn create_namespace(core: &Core, id: &str) {
    let request = proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
    core.client().api().create_namespace(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_shows_its_ticks_and_why_no_run_was_started() {
    let core = Core::in_memory().await.unwrap();
    let every = core.install::<Every>("every", NO_SETTINGS).await.unwrap();
    every.subscribe("default/nightly", "x", [("every", "10m")]).await.unwrap();
    core.elapse(minutes(1)).await;
    let state = async || {
        let page = list(core.client(), all()).await.unwrap();
        let [listed] = page.subscriptions.try_into().unwrap();
        assert_eq!((name(&listed), &*listed.problem), ("default/nightly x".to_owned(), ""));
        listed.state.unwrap()
    };
    let before = state().await;
    assert_eq!((before.last_tick, before.last_error), (None, None));
    core.elapse(minutes(10)).await;
    let after = state().await;
    assert_eq!((after.last_tick, after.last_error), (before.next_tick, None));
    assert_eq!(after.next_tick.unwrap() - before.next_tick.unwrap(), 600_000);
    let run = &core.runs("default/nightly")[0];
    let scheduled = run.scheduled().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(after.last_tick, i64::try_from(scheduled.as_millis()).ok());
    enable(&core, false).await;
    core.elapse(minutes(10)).await;
    let failing = state().await;
    let error = failing.last_error.unwrap();
    assert!(error.message.contains("disabled"), "{error:?}");
    assert_eq!(failing.last_tick, after.last_tick);
    enable(&core, true).await;
    core.elapse(minutes(10)).await;
    let again = state().await;
    assert_eq!(again.last_error, None);
    assert!(again.last_tick > after.last_tick);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pages_are_sorted_and_have_no_gaps() {
    let core = Core::in_memory().await.unwrap();
    let every = core.install::<Every>("every", NO_SETTINGS).await.unwrap();
    create_namespace(&core, "a").await;
    let mut expected = Vec::new();
    for (pipeline, label) in [("default/b", "y"), ("a/z", "x"), ("default/b", "x"), ("a/b", "x")] {
        every.subscribe(pipeline, label, [("every", "10m")]).await.unwrap();
        expected.push(format!("{pipeline} {label}"));
    }
    expected.sort();
    let whole = list(core.client(), all()).await.unwrap();
    assert_eq!((names(&whole), whole.has_more), (expected.clone(), false));
    for limit in 1..=4 {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let request = ListSubscriptionStatesRequest { after, limit, ..all() };
            let page = list(core.client(), request).await.unwrap();
            assert!(page.subscriptions.iter().all(|it| it.state.is_some()));
            listed.extend(names(&page));
            assert_eq!(page.has_more, listed.len() < 4, "{limit}");
            after = page.subscriptions.last().unwrap().key.clone();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(listed, expected, "{limit}");
    }
    // After one that does not exist.
    let gone = SubscriptionKey { namespace_id: "a".to_owned(), ..Default::default() };
    let request = ListSubscriptionStatesRequest { after: Some(gone), limit: 1, ..all() };
    let page = list(core.client(), request).await.unwrap();
    assert_eq!((names(&page), page.has_more), (vec!["a/b x".to_owned()], true));
    core.stop().await;
}

#[tokio::test]
async fn a_caller_sees_the_namespaces_that_it_may_read() {
    let core = Core::on_loopback().await.unwrap();
    let every = core.install::<Every>("every", NO_SETTINGS).await.unwrap();
    create_namespace(&core, "d").await;
    for namespace in ["a", "b", "c"] {
        create_namespace(&core, namespace).await;
        for label in ["x", "y"] {
            let pipeline = format!("{namespace}/nightly");
            every.subscribe(&*pipeline, label, [("every", "10m")]).await.unwrap();
        }
    }
    let connection = Caller::of(&core).await;
    let seen = async |namespaces: &[&str], limit| {
        let request = proto::CreateTokenRequest {
            kind: Kind::Client.into(),
            namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
            expires: "24h".to_owned(),
            ..Default::default()
        };
        let token = core.client().api().create_token(request).await.unwrap().into_inner().token;
        let mut client = EmbeddedCoreClient::new(connection.with(&token).0);
        let request = ListSubscriptionStatesRequest { limit, ..all() };
        let page = client.list_subscription_states(request).await.unwrap().into_inner();
        assert!(page.subscriptions.iter().all(|it| it.state.is_some()));
        (names(&page).join(", "), page.has_more)
    };
    assert_eq!(seen(&["b"], 0).await, ("b/nightly x, b/nightly y".to_owned(), false));
    // What others have is no further page.
    assert_eq!(seen(&["a"], 2).await, ("a/nightly x, a/nightly y".to_owned(), false));
    assert!(seen(&["a", "c"], 3).await.1);
    assert_eq!(seen(&["d"], 0).await, (String::new(), false));
    // An extension sees itself.
    let (probe, gofer) = probe::install(&core, "states").await;
    let status = list(&gofer, all()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    probe.subscribe("a/nightly", "z", NO_SETTINGS).await.unwrap();
    let request =
        ListSubscriptionStatesRequest { extension_name: probe.name().to_owned(), ..all() };
    assert_eq!(names(&list(&gofer, request).await.unwrap()), ["a/nightly z"]);
    let request = ListSubscriptionStatesRequest { extension_name: "none".to_owned(), ..all() };
    let status = list(core.client(), request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_that_are_not_in_effect_have_no_state() {
    let core = Core::in_memory().await.unwrap();
    let every = core.install::<Every>("every", NO_SETTINGS).await.unwrap();
    every.subscribe("default/off", "x", [("every", "10m")]).await.unwrap();
    every.subscribe("default/on", "x", [("every", "10m")]).await.unwrap();
    let mut api = core.client().api();
    let request = proto::DisablePipelineExtensionSubscriptionRequest {
        pipeline_id: "off".to_owned(),
        extension_name: "every".to_owned(),
        extension_label: "x".to_owned(),
        ..Default::default()
    };
    api.disable_pipeline_extension_subscription(request).await.unwrap();
    let has_state = async || {
        let page = list(core.client(), all()).await.unwrap();
        page.subscriptions.iter().map(|it| it.state.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(has_state().await, [false, true]);
    let name = "every".to_owned();
    api.disable_extension(proto::DisableExtensionRequest { name }).await.unwrap();
    assert_eq!(has_state().await, [false, false]);
    core.stop().await;
}

/// What a foreign extension, or one that does not answer, is listed as.
pub(crate) async fn is_listed_without_state(core: &Core, extension: &str, within: Duration) {
    let request = ListSubscriptionStatesRequest { extension_name: extension.to_owned(), ..all() };
    let listed = tokio::time::timeout(within, list(core.client(), request)).await;
    let page = listed.expect("it takes too long").unwrap();
    assert_eq!(names(&page), ["default/nightly l"]);
    assert_eq!((&page.subscriptions[0].state, &*page.subscriptions[0].problem), (&None, ""));
}
