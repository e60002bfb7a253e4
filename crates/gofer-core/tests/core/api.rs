//! The API of the embedded core, as its callers see it.

use std::collections::HashMap;
use std::time::Duration;

use crate::caller::Caller;
use crate::metronome::Metronome;
use gofer_core::{Core, Installed, hours, minutes};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::extension::{ExtensionState, ExtensionStatus};
use gofer_proto::pipeline_extension_subscription::Status as State;
use tonic::{Code, Request, Status, Streaming};

const WITHOUT_TOKEN: [&str; 2] = ["GetSystemInfo", "BootstrapToken"];

/// Methods that require a management token.
const MANAGEMENT: [&str; 16] = [
    "GetGlobalSecret",
    "ListGlobalSecrets",
    "PutGlobalSecret",
    "DeleteGlobalSecret",
    "ToggleEventIngress",
    "CreateToken",
    "ListTokens",
    "GetToken",
    "EnableToken",
    "DisableToken",
    "DeleteToken",
    "InstallExtension",
    "UninstallExtension",
    "EnableExtension",
    "DisableExtension",
    "RunExtensionInstaller",
];

/// The names of all methods in the contract.
fn methods() -> Vec<&'static str> {
    let contract = include_str!("../../../../proto/gofer.proto");
    let names: Vec<_> = contract
        .lines()
        .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
        .collect();
    assert_eq!(names.len(), 71);
    names
}

#[track_caller]
fn refused<T>(outcome: Result<T, Status>, code: Code, expected: &str) {
    let status = outcome.err().expect("must be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(expected), "{status}");
}

async fn token(core: &Core, kind: Kind, namespaces: &[&str], expires: &str) -> String {
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        expires: if expires.is_empty() { "24h" } else { expires }.to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

async fn register(core: &Core, namespace: &str, pipeline: &str) {
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

fn start(namespace: &str, pipeline: &str) -> proto::StartRunRequest {
    proto::StartRunRequest {
        namespace_id: namespace.to_owned(),
        pipeline_id: pipeline.to_owned(),
        initiator: Some(proto::Initiator { name: "test".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn subscribe(every: &str) -> proto::CreatePipelineExtensionSubscriptionRequest {
    proto::CreatePipelineExtensionSubscriptionRequest {
        namespace_id: String::new(),
        pipeline_id: "nightly".to_owned(),
        extension_name: "metronome".to_owned(),
        extension_label: "tick".to_owned(),
        settings: HashMap::from([("every".to_owned(), every.to_owned())]),
    }
}

/// A request to get, enable, disable or delete the subscription that [`subscribe`] makes.
macro_rules! of_tick {
    ($request:ident) => {
        proto::$request {
            namespace_id: String::new(),
            pipeline_id: "nightly".to_owned(),
            extension_name: "metronome".to_owned(),
            extension_label: "tick".to_owned(),
        }
    };
}

async fn stored(core: &Core) -> Result<proto::PipelineExtensionSubscription, Status> {
    let request = of_tick!(GetPipelineExtensionSubscriptionRequest);
    let response = core.client().api().get_pipeline_extension_subscription(request).await?;
    Ok(response.into_inner().subscription.unwrap())
}

/// A core with the metronome and a pipeline `nightly`.
async fn with_metronome() -> (Core, Installed) {
    let core = Core::in_memory().await.unwrap();
    let metronome = core.install::<Metronome>("metronome", [("", ""); 0]).await.unwrap();
    register(&core, "", "nightly").await;
    (core, metronome)
}

#[tokio::test]
async fn without_a_valid_token_only_two_methods_respond() {
    let core = Core::on_loopback().await.unwrap();
    let caller = Caller::of(&core).await;
    for method in methods() {
        for (caller, expected) in
            [(caller.clone(), "authorization"), (caller.with("wrong"), "unknown token")]
        {
            let outcome = caller.call(method).await;
            if WITHOUT_TOKEN.contains(&method) {
                let answered = outcome.err().map_or(Code::Ok, |status| status.code());
                assert_ne!(answered, Code::Unauthenticated, "{method}");
            } else {
                refused(outcome, Code::Unauthenticated, expected);
            }
        }
    }
    core.stop().await;
}

#[tokio::test]
async fn every_method_is_implemented() {
    let core = Core::on_loopback().await.unwrap();
    let caller = Caller::of(&core).await.with(core.token());
    for method in methods() {
        let answered = caller.call(method).await.err().map_or(Code::Ok, |status| status.code());
        assert_ne!(answered, Code::Unimplemented, "{method}");
    }
    core.stop().await;
}

#[tokio::test]
async fn a_manager_revokes_a_token_by_the_digits_that_are_listed() {
    let core = Core::on_loopback().await.unwrap();
    let lost = token(&core, Kind::Management, &[], "").await;
    let caller = Caller::of(&core).await.with(&lost);
    caller.call("ListNamespaces").await.unwrap();
    let mut api = core.client().api();
    let listed = api.list_tokens(proto::ListTokensRequest::default()).await.unwrap().into_inner();
    let digits = listed.tokens[0].metadata["gofer-sdk.sha256"].clone();
    let get = proto::GetTokenRequest { token: digits.clone() };
    let got = api.get_token(get).await.unwrap().into_inner().details.unwrap();
    assert_eq!(got, listed.tokens[0]);
    let disable = proto::DisableTokenRequest { token: digits.clone() };
    api.disable_token(disable).await.unwrap();
    refused(caller.call("ListNamespaces").await, Code::Unauthenticated, "disabled");
    let enable = proto::EnableTokenRequest { token: digits.clone() };
    api.enable_token(enable).await.unwrap();
    caller.call("ListNamespaces").await.unwrap();
    api.delete_token(proto::DeleteTokenRequest { token: digits.clone() }).await.unwrap();
    refused(caller.call("ListNamespaces").await, Code::Unauthenticated, "unknown token");
    // It is not a note that a caller sets.
    let request = proto::CreateTokenRequest {
        kind: Kind::Management.into(),
        metadata: HashMap::from([("gofer-sdk.sha256".to_owned(), digits)]),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let outcome = api.create_token(request).await.map(drop);
    refused(outcome, Code::InvalidArgument, "`gofer-sdk.sha256`");
    core.stop().await;
}

#[tokio::test]
async fn an_expired_a_disabled_and_a_deleted_token_are_refused() {
    let core = Core::on_loopback().await.unwrap();
    let mut api = core.client().api();
    let expired = token(&core, Kind::Management, &[], "1ms").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let caller = Caller::of(&core).await;
    refused(caller.with(&expired).call("ListExtensions").await, Code::Unauthenticated, "expired");

    let token = token(&core, Kind::Management, &[], "1h").await;
    let caller = caller.with(&token);
    caller.call("ListExtensions").await.unwrap();
    api.disable_token(proto::DisableTokenRequest { token: token.clone() }).await.unwrap();
    refused(caller.call("ListExtensions").await, Code::Unauthenticated, "disabled");
    api.enable_token(proto::EnableTokenRequest { token: token.clone() }).await.unwrap();
    caller.call("ListExtensions").await.unwrap();
    api.delete_token(proto::DeleteTokenRequest { token }).await.unwrap();
    refused(caller.call("ListExtensions").await, Code::Unauthenticated, "unknown token");
    core.stop().await;
}

#[tokio::test]
async fn a_client_token_gives_access_to_its_namespaces_and_to_no_management() {
    let core = Core::on_loopback().await.unwrap();
    let token = token(&core, Kind::Client, &["team-.*"], "").await;
    let caller = Caller::of(&core).await.with(&token);
    let mut api = caller.api();
    for method in MANAGEMENT {
        refused(caller.call(method).await, Code::PermissionDenied, "management");
    }

    let namespace =
        |id: &str| proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
    refused(api.create_namespace(namespace("ops")).await, Code::PermissionDenied, "`ops`");
    api.create_namespace(namespace("team-a")).await.unwrap();
    register(&core, "team-a", "build").await;
    register(&core, "", "nightly").await;
    api.start_run(start("team-a", "build")).await.unwrap();
    refused(api.start_run(start("", "nightly")).await, Code::PermissionDenied, "`default`");
    let seen = api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let seen: Vec<_> = seen.into_inner().namespaces.into_iter().map(|it| it.id).collect();
    assert_eq!(seen, ["team-a"]);

    core.client().api().start_run(start("", "nightly")).await.unwrap();
    let mut events = api.list_events(proto::ListEventsRequest::default()).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = events.get_mut().message().await.unwrap() {
        kinds.push(event.event.unwrap().r#type);
    }
    assert_eq!(
        kinds,
        [
            "NAMESPACE_CREATED",
            "PIPELINE_REGISTERED",
            "PIPELINE_CONFIG_REGISTERED",
            "RUN_STARTED",
            "RUN_COMPLETED",
        ]
    );
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn runs_are_started_found_listed_and_retried() {
    let core = Core::in_memory().await.unwrap();
    register(&core, "", "nightly").await;
    let mut api = core.client().api();
    for _ in 0..3 {
        api.start_run(start("", "nightly")).await.unwrap();
    }
    let retry = proto::RetryRunRequest {
        pipeline_id: "nightly".to_owned(),
        run_id: 1,
        ..Default::default()
    };
    assert_eq!(api.retry_run(retry).await.unwrap().into_inner().run.unwrap().id, 4);
    let list = proto::ListRunsRequest {
        offset: 1,
        limit: 2,
        pipeline_id: "nightly".to_owned(),
        ..Default::default()
    };
    let listed = api.list_runs(list).await.unwrap().into_inner().runs;
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [3, 2]);
    let cancel = proto::CancelRunRequest {
        pipeline_id: "nightly".to_owned(),
        run_id: 2,
        ..Default::default()
    };
    refused(api.cancel_run(cancel).await, Code::FailedPrecondition, "run 2");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disabled_pipeline_and_a_server_that_ignores_runs_refuse_them() {
    let core = Core::in_memory().await.unwrap();
    register(&core, "", "nightly").await;
    let mut api = core.client().api();
    let id = || "nightly".to_owned();
    let disable = proto::DisablePipelineRequest { id: id(), ..Default::default() };
    api.disable_pipeline(disable).await.unwrap();
    refused(api.start_run(start("", "nightly")).await, Code::FailedPrecondition, "disabled");
    let enable = proto::EnablePipelineRequest { id: id(), ..Default::default() };
    api.enable_pipeline(enable).await.unwrap();
    let toggle = proto::ToggleEventIngressRequest {};
    assert!(api.toggle_event_ingress(toggle).await.unwrap().into_inner().value);
    refused(api.start_run(start("", "nightly")).await, Code::FailedPrecondition, "turned off");
    assert!(!api.toggle_event_ingress(toggle).await.unwrap().into_inner().value);
    api.start_run(start("", "nightly")).await.unwrap();
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_extension_refuses_is_not_stored() {
    let (core, _) = with_metronome().await;
    let mut api = core.client().api();
    let refusal = api.create_pipeline_extension_subscription(subscribe("10ms")).await;
    refused(refusal, Code::InvalidArgument, "at least 1s");
    refused(stored(&core).await, Code::NotFound, "`tick`");

    // If there is one, it stays as it was.
    api.create_pipeline_extension_subscription(subscribe("1h")).await.unwrap();
    let refusal = api.create_pipeline_extension_subscription(subscribe("10ms")).await;
    refused(refusal, Code::InvalidArgument, "at least 1s");
    assert_eq!(stored(&core).await.unwrap().settings["every"], "1h");
    core.elapse(hours(2)).await;
    assert_eq!(core.runs("nightly").len(), 2);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_subscribed_that_does_not_exist() {
    let (core, _) = with_metronome().await;
    let mut api = core.client().api();
    let request = proto::CreatePipelineExtensionSubscriptionRequest {
        pipeline_id: "absent".to_owned(),
        ..subscribe("1h")
    };
    let refusal = api.create_pipeline_extension_subscription(request).await;
    refused(refusal, Code::NotFound, "`default/absent`");
    let request = proto::CreatePipelineExtensionSubscriptionRequest {
        extension_name: "absent".to_owned(),
        ..subscribe("1h")
    };
    let refusal = api.create_pipeline_extension_subscription(request).await;
    refused(refusal, Code::NotFound, "`absent`");
    let refusal =
        api.create_pipeline_extension_subscription(subscribe("pipeline_secret{{ pace }}")).await;
    refused(
        refusal,
        Code::FailedPrecondition,
        "`every` refers to `pipeline_secret{{ pace }}`, which",
    );
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_extension_keeps_objects_and_reads_secrets() {
    let (core, metronome) = with_metronome().await;
    let objects = core.client().pipeline_objects("nightly");
    objects.put("cursor", "41").await.unwrap();
    objects.replace("cursor", "42").await.unwrap();
    assert_eq!(objects.get("cursor").await.unwrap(), "42");
    assert_eq!(objects.list().await.unwrap(), ["cursor"]);
    let secrets = core.client().pipeline_secrets("nightly");
    secrets.put("pace", "10m").await.unwrap();
    assert_eq!(secrets.get("pace").await.unwrap(), "10m");
    // The extension receives the value; what is stored is the reference.
    let mut api = core.client().api();
    let request = subscribe("pipeline_secret{{ pace }}");
    api.create_pipeline_extension_subscription(request).await.unwrap();
    assert_eq!(stored(&core).await.unwrap().settings["every"], "pipeline_secret{{ pace }}");
    core.elapse(hours(1)).await;
    assert_eq!(core.runs("nightly").len(), 6);
    let of_run = core.client().run_objects("nightly", 6);
    of_run.put("log", "all is well").await.unwrap();
    assert_eq!(of_run.get("log").await.unwrap(), "all is well");
    metronome.restart().await.unwrap();
    assert_eq!(metronome.info().await.unwrap().registered, ["default/nightly"]);
    secrets.delete("pace").await.unwrap();
    objects.delete("cursor").await.unwrap();
    assert!(objects.list().await.unwrap().is_empty());
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_replaced_by_other_settings() {
    let (core, metronome) = with_metronome().await;
    let mut api = core.client().api();
    api.create_pipeline_extension_subscription(subscribe("1h")).await.unwrap();
    api.create_pipeline_extension_subscription(subscribe("10m")).await.unwrap();
    assert_eq!(stored(&core).await.unwrap().settings["every"], "10m");
    assert_eq!(metronome.info().await.unwrap().registered, ["default/nightly"]);
    core.elapse(hours(1)).await;
    assert_eq!(core.runs("nightly").len(), 6);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_subscription_ends_in_the_extension() {
    let (core, metronome) = with_metronome().await;
    let mut api = core.client().api();
    api.create_pipeline_extension_subscription(subscribe("1h")).await.unwrap();
    let delete = || of_tick!(DeletePipelineExtensionSubscriptionRequest);
    api.delete_pipeline_extension_subscription(delete()).await.unwrap();
    assert!(metronome.info().await.unwrap().registered.is_empty());
    let again = api.delete_pipeline_extension_subscription(delete()).await;
    refused(again, Code::NotFound, "`tick`");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deleting_a_pipeline_ends_its_subscriptions() {
    let (core, metronome) = with_metronome().await;
    let mut api = core.client().api();
    api.create_pipeline_extension_subscription(subscribe("1h")).await.unwrap();
    let delete = proto::DeletePipelineRequest { id: "nightly".to_owned(), ..Default::default() };
    api.delete_pipeline(delete).await.unwrap();
    assert!(metronome.info().await.unwrap().registered.is_empty());
    refused(api.start_run(start("", "nightly")).await, Code::NotFound, "`default/nightly`");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disabled_subscription_starts_no_runs_until_it_is_enabled() {
    let (core, metronome) = with_metronome().await;
    let mut api = core.client().api();
    api.create_pipeline_extension_subscription(subscribe("10m")).await.unwrap();
    let disable = of_tick!(DisablePipelineExtensionSubscriptionRequest);
    api.disable_pipeline_extension_subscription(disable).await.unwrap();
    assert_eq!(stored(&core).await.unwrap().status(), State::Disabled);
    // A restart does not enable it.
    metronome.restart().await.unwrap();
    core.elapse(hours(1)).await;
    assert!(core.runs("nightly").is_empty());

    let enable = of_tick!(EnablePipelineExtensionSubscriptionRequest);
    api.enable_pipeline_extension_subscription(enable).await.unwrap();
    assert_eq!(stored(&core).await.unwrap().status(), State::Active);
    core.elapse(minutes(30)).await;
    assert_eq!(core.runs("nightly").len(), 3);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_completed_although_its_caller_disconnects() {
    let (core, _) = with_metronome().await;
    let mut api = core.client().api();
    let mut lingering = subscribe("1h");
    lingering.settings.insert("linger".to_owned(), "2s".to_owned());
    api.create_pipeline_extension_subscription(lingering).await.unwrap();
    // Lets the extension reach its first wait.
    core.elapse(minutes(1)).await;
    let mut hasty = Request::new(subscribe("10m"));
    hasty.set_timeout(Duration::from_millis(100));
    let outcome = api.create_pipeline_extension_subscription(hasty).await;
    refused(outcome, Code::DeadlineExceeded, "");
    assert_eq!(stored(&core).await.unwrap().settings["every"], "1h");
    core.elapse(minutes(1)).await;
    assert_eq!(stored(&core).await.unwrap().settings["every"], "10m");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn extensions_are_shown_disabled_enabled_and_uninstalled() {
    let (core, _) = with_metronome().await;
    let mut api = core.client().api();
    api.create_pipeline_extension_subscription(subscribe("10m")).await.unwrap();
    let name = || "metronome".to_owned();
    let get = || proto::GetExtensionRequest { name: name() };
    let shown = async || {
        let response = core.client().api().get_extension(get()).await.unwrap();
        let shown = response.into_inner().extension.unwrap();
        (shown.state(), shown.status())
    };
    assert_eq!(shown().await, (ExtensionState::Running, ExtensionStatus::Enabled));
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    assert_eq!(shown().await, (ExtensionState::Exited, ExtensionStatus::Disabled));
    let refusal = api.create_pipeline_extension_subscription(subscribe("1h")).await;
    refused(refusal, Code::FailedPrecondition, "disabled");
    api.enable_extension(proto::EnableExtensionRequest { name: name() }).await.unwrap();
    core.elapse(minutes(30)).await;
    assert_eq!(core.runs("nightly").len(), 3);

    api.uninstall_extension(proto::UninstallExtensionRequest { name: name() }).await.unwrap();
    refused(api.get_extension(get()).await, Code::NotFound, "`metronome`");
    refused(stored(&core).await, Code::NotFound, "`tick`");
    core.stop().await;
}

type Events = Streaming<proto::ListEventsResponse>;

async fn events(core: &Core, reverse: bool, follow: bool) -> Events {
    let request = proto::ListEventsRequest { reverse, follow };
    core.client().api().list_events(request).await.unwrap().into_inner()
}

async fn next_id(events: &mut Events) -> i64 {
    events.message().await.unwrap().unwrap().event.unwrap().id
}

#[tokio::test]
async fn a_follower_sees_each_event_once_and_in_order() {
    const RUNS: i64 = 2_000;
    let core = Core::in_memory().await.unwrap();
    register(&core, "", "nightly").await;
    let mut forward = events(&core, false, true).await;
    let followed = tokio::spawn(async move {
        let mut ids = Vec::new();
        while ids.last() != Some(&(2 + 2 * RUNS)) {
            ids.push(next_id(&mut forward).await);
        }
        ids
    });
    let starts = (0..8).map(|_| {
        let mut api = core.client().api();
        tokio::spawn(async move {
            for _ in 0..RUNS / 8 {
                api.start_run(start("", "nightly")).await.unwrap();
            }
        })
    });
    for starts in starts.collect::<Vec<_>>() {
        starts.await.unwrap();
    }
    assert_eq!(followed.await.unwrap(), (1..=2 + 2 * RUNS).collect::<Vec<_>>());
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_events_ends_without_follow_and_can_be_reversed() {
    let core = Core::in_memory().await.unwrap();
    assert!(events(&core, false, false).await.message().await.unwrap().is_none());
    register(&core, "", "nightly").await;
    for _ in 0..200 {
        core.client().api().start_run(start("", "nightly")).await.unwrap();
    }
    let mut back = events(&core, true, false).await;
    for id in (1..=402).rev() {
        assert_eq!(next_id(&mut back).await, id);
    }
    assert!(back.message().await.unwrap().is_none());

    let mut turning = events(&core, true, true).await;
    for id in (1..=402).rev() {
        assert_eq!(next_id(&mut turning).await, id);
    }
    core.client().api().start_run(start("", "nightly")).await.unwrap();
    assert_eq!(next_id(&mut turning).await, 403);
    assert_eq!(next_id(&mut turning).await, 404);
    core.stop().await;
}

#[tokio::test]
async fn a_follower_does_not_hold_up_a_stop() {
    let core = Core::on_loopback().await.unwrap();
    let caller = Caller::of(&core).await.with(core.token());
    let request = proto::ListEventsRequest { reverse: false, follow: true };
    let mut events = caller.api().list_events(request).await.unwrap().into_inner();
    core.stop().await;
    // The core's own status, and not a connection that was cut.
    while let Some(event) = events.message().await.transpose() {
        if event.is_err() {
            return refused(event, Code::Unavailable, "the core is stopping");
        }
    }
    panic!("must end with an error");
}
