//! An extension has access to the pipelines that are subscribed to it, for as long as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use crate::probe::{self, Probe, start};
use gofer_core::{Core, Grant, InstallOptions, Installed, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::{
    ExtensionOptions, GetCapabilitiesRequest, InstallExtensionRequest, ListExtensionStatesRequest,
    UpdateExtensionRequest,
};
use gofer_proto::pipeline_extension_subscription::Status;
use gofer_sdk::internal::transport;
use gofer_sdk::{
    Error, ErrorKind, Extension, Gofer, NoConfig, NoParams, PipelineId, Result, Run, Subscription,
};
use tonic::Code;

async fn create_namespace(core: &Core, id: &str) {
    let request = proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
    core.client().api().create_namespace(request).await.unwrap();
}

async fn create_pipeline(core: &Core, namespace: &str, id: &str) {
    let config = proto::UserPipelineConfig { id: id.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

fn denied<T>(outcome: Result<T>) {
    assert_eq!(outcome.err().unwrap().kind(), ErrorKind::PermissionDenied);
}

/// Tries to become more than it is as soon as it is installed.
struct Climber;

impl Extension for Climber {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, gofer: Gofer) -> Result<Self> {
        let request = proto::CreateTokenRequest {
            kind: Kind::Management.into(),
            expires: "24h".to_owned(),
            ..Default::default()
        };
        let status = gofer.api().create_token(request).await.err();
        let install = proto::InstallExtensionRequest {
            name: "shell".to_owned(),
            image: "exec:/bin/sh".to_owned(),
            ..Default::default()
        };
        let installed = gofer.api().install_extension(install).await.err();
        for status in [status, installed] {
            assert_eq!(status.map(|it| it.code()), Some(Code::PermissionDenied));
        }
        Ok(Self)
    }

    async fn serve(&self, _: Subscription<NoParams>) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_extension_neither_makes_tokens_nor_installs_programs() {
    let core = Core::in_memory().await.unwrap();
    core.install::<Climber>("climber", NO_SETTINGS).await.unwrap();
    let tokens = core.client().api().list_tokens(proto::ListTokensRequest::default()).await;
    assert!(tokens.unwrap().into_inner().tokens.is_empty());
    core.stop().await;
}

#[tokio::test]
async fn an_extension_reads_no_secrets() {
    let core = Core::in_memory().await.unwrap();
    create_namespace(&core, "ops").await;
    create_pipeline(&core, "ops", "backup").await;
    let secrets = core.client().pipeline_secrets("ops/backup");
    secrets.put("token", "hidden").await.unwrap();
    core.client().global_secrets().put("token", "hidden").await.unwrap();
    let (probe, gofer) = probe::install(&core, "secrets").await;
    probe.subscribe("default/nightly", "probe", NO_SETTINGS).await.unwrap();
    core.client().pipeline_secrets("default/nightly").put("token", "hidden").await.unwrap();
    for secrets in [
        gofer.pipeline_secrets("ops/backup"),
        gofer.pipeline_secrets("default/nightly"),
        gofer.global_secrets(),
    ] {
        denied(secrets.get("token").await);
        denied(secrets.list().await);
        denied(secrets.put("other", "text").await);
        denied(secrets.delete("token").await);
    }
    core.stop().await;
}

#[tokio::test]
async fn an_extension_has_access_to_the_runs_of_its_pipelines_only() {
    let handler = |_| std::future::pending();
    let core = Core::builder().run_handler(handler).start().await.unwrap();
    create_pipeline(&core, "", "other").await;
    let run = core.client().start_run("other", "by hand", Run::because("of a test")).await.unwrap();
    let (probe, gofer) = probe::install(&core, "runs").await;
    probe.subscribe("nightly", "probe", NO_SETTINGS).await.unwrap();
    let own = start(&gofer, "nightly", "of a test").await.unwrap();
    let cancel = |pipeline: &str, run_id| proto::CancelRunRequest {
        pipeline_id: pipeline.to_owned(),
        run_id,
        ..Default::default()
    };
    let status = gofer.api().cancel_run(cancel("other", run.id())).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    gofer.api().cancel_run(cancel("nightly", own.id())).await.unwrap();
    denied(start(&gofer, "other", "of a test").await);
    // It may read the runs of its namespace, as an extension that watches them does.
    assert_eq!(gofer.runs("other", 10).await.unwrap().len(), 1);
    denied(gofer.pipeline_objects("other").put("key", "content").await);
    denied(gofer.run_objects("other", run.id()).list().await);
    gofer.run_objects("nightly", own.id()).put("key", "content").await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn access_begins_before_subscribe_and_ends_after_unsubscribe() {
    let core = Core::in_memory().await.unwrap();
    let (probe, gofer) = probe::install(&core, "lifetime").await;
    create_pipeline(&core, "", "nightly").await;
    denied(start(&gofer, "nightly", "too early").await);
    probe.subscribe("nightly", "probe", [("first", "first"), ("last", "last")]).await.unwrap();
    start(&gofer, "nightly", "in between").await.unwrap();
    probe.unsubscribe("nightly", "probe").await.unwrap();
    denied(start(&gofer, "nightly", "too late").await);
    denied(gofer.runs("nightly", 10).await);
    let mut reasons: Vec<_> =
        core.runs("nightly").iter().map(|run| run.reason().to_owned()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["first", "in between", "last"]);
    core.stop().await;
}

#[tokio::test]
async fn access_ends_if_the_pipeline_is_deleted_or_the_subscription_disabled() {
    let core = Core::in_memory().await.unwrap();
    let (probe, gofer) = probe::install(&core, "disabled").await;
    let mut api = core.client().api();
    for label in ["a", "b"] {
        probe.subscribe("nightly", label, NO_SETTINGS).await.unwrap();
    }
    let named =
        |label: &str| (String::new(), "nightly".to_owned(), "probe".to_owned(), label.to_owned());
    for (label, still) in [("a", true), ("b", false)] {
        let (namespace_id, pipeline_id, extension_name, extension_label) = named(label);
        let request = proto::DisablePipelineExtensionSubscriptionRequest {
            namespace_id,
            pipeline_id,
            extension_name,
            extension_label,
        };
        api.disable_pipeline_extension_subscription(request).await.unwrap();
        assert_eq!(start(&gofer, "nightly", "of a test").await.is_ok(), still, "{label}");
    }
    let (namespace_id, pipeline_id, extension_name, extension_label) = named("a");
    let request = proto::EnablePipelineExtensionSubscriptionRequest {
        namespace_id,
        pipeline_id,
        extension_name,
        extension_label,
    };
    api.enable_pipeline_extension_subscription(request).await.unwrap();
    start(&gofer, "nightly", "of a test").await.unwrap();
    let delete = proto::DeletePipelineRequest { id: "nightly".to_owned(), ..Default::default() };
    api.delete_pipeline(delete).await.unwrap();
    create_pipeline(&core, "", "nightly").await;
    denied(start(&gofer, "nightly", "of a test").await);
    core.stop().await;
}

#[tokio::test]
async fn a_refused_subscription_gives_no_access() {
    let core = Core::in_memory().await.unwrap();
    let (probe, gofer) = probe::install(&core, "refused").await;
    let wrong = [("is_wrong", "true")];
    probe.subscribe("nightly", "probe", wrong).await.unwrap_err();
    denied(start(&gofer, "nightly", "of a test").await);
    // One that is refused in the place of another leaves that one as it is.
    probe.subscribe("nightly", "probe", NO_SETTINGS).await.unwrap();
    probe.subscribe("nightly", "probe", wrong).await.unwrap_err();
    start(&gofer, "nightly", "of a test").await.unwrap();
    // Refused when it is restored.
    probe.update([("refuses", "true")]).await.unwrap();
    denied(start(&probe::client("refused"), "nightly", "of a test").await);
    core.stop().await;
}

#[tokio::test]
async fn access_is_restored_with_the_subscriptions() {
    let core = Core::in_memory().await.unwrap();
    let (probe, old) = probe::install(&core, "restored").await;
    probe.subscribe("nightly", "probe", [("first", "it serves")]).await.unwrap();
    probe.restart().await.unwrap();
    start(&probe::client("restored"), "nightly", "of a test").await.unwrap();
    let ended = old.runs("nightly", 10).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Unavailable);
    core.stop().await;
}

/// An extension that follows events sees those of the namespaces of its subscriptions.
#[tokio::test]
async fn events_are_of_the_namespaces_of_the_subscriptions() {
    let core = Core::in_memory().await.unwrap();
    create_namespace(&core, "ops").await;
    create_pipeline(&core, "ops", "backup").await;
    create_pipeline(&core, "", "other").await;
    let (probe, gofer) = probe::install(&core, "events").await;
    core.install::<Probe>("another", [("id", "another")]).await.unwrap();
    let mut events = gofer.follow_events().await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (&*event.kind, &*event.details),
        ("EXTENSION_INSTALLED", r#"{"image":"in-process:core::probe::Probe","name":"probe"}"#)
    );
    probe.subscribe("nightly", "probe", NO_SETTINGS).await.unwrap();
    let run = |pipeline: &'static str| {
        let run = Run::because("of a test");
        core.client().start_run(pipeline, "by hand", run)
    };
    run("ops/backup").await.unwrap();
    run("other").await.unwrap();
    loop {
        let event = events.next().await.unwrap().unwrap();
        assert!(event.details.contains(r#""namespace_id":"default""#), "{event:?}");
        if event.kind == "RUN_COMPLETED" {
            break;
        }
    }
    probe.unsubscribe("nightly", "probe").await.unwrap();
    probe.subscribe("ops/backup", "probe", NO_SETTINGS).await.unwrap();
    let unseen = run("other").await.unwrap().id();
    let seen = run("ops/backup").await.unwrap().id();
    assert_eq!((unseen, seen), (2, 2));
    loop {
        let event = events.next().await.unwrap().unwrap();
        assert!(!event.details.contains(r#""pipeline_id":"other","run_id":2"#), "{event:?}");
        if event.details.contains(r#""pipeline_id":"backup","run_id":2"#) {
            break;
        }
    }
    core.stop().await;
}

#[tokio::test]
async fn an_extension_sees_itself_and_its_namespaces() {
    let core = Core::in_memory().await.unwrap();
    create_namespace(&core, "ops").await;
    create_namespace(&core, "elsewhere").await;
    let (probe, gofer) = probe::install(&core, "sight").await;
    let another = core.install::<Probe>("another", [("id", "sight 2")]).await.unwrap();
    probe.subscribe("ops/backup", "probe", NO_SETTINGS).await.unwrap();
    another.subscribe("ops/backup", "another", NO_SETTINGS).await.unwrap();
    let mut api = gofer.api();
    let namespaces = api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let namespaces = namespaces.into_inner().namespaces;
    assert_eq!(namespaces.iter().map(|it| &*it.id).collect::<Vec<_>>(), ["ops"]);
    let extensions = api.list_extensions(proto::ListExtensionsRequest {}).await.unwrap();
    let extensions = extensions.into_inner().extensions;
    assert_eq!(extensions.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["probe"]);
    let mut embedded = EmbeddedCoreClient::new(transport(&gofer));
    let states = embedded.list_extension_states(ListExtensionStatesRequest::default()).await;
    let states = states.unwrap().into_inner().extensions;
    assert_eq!(states.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["probe"]);
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        namespace_id: "ops".to_owned(),
        pipeline_id: "backup".to_owned(),
    };
    let subscriptions = api.list_pipeline_extension_subscriptions(request).await.unwrap();
    let subscriptions = subscriptions.into_inner().subscriptions;
    assert_eq!(subscriptions.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["probe"]);
    core.stop().await;
}

#[tokio::test]
async fn a_core_says_that_it_enforces_keys_of_runs() {
    let core = Core::in_memory().await.unwrap();
    let (_, gofer) = probe::install(&core, "capabilities").await;
    for gofer in [core.client(), &gofer] {
        let mut embedded = EmbeddedCoreClient::new(transport(gofer));
        let answer = embedded.get_capabilities(GetCapabilitiesRequest {}).await.unwrap();
        assert!(answer.into_inner().run_keys_enforced);
    }
    core.stop().await;
}

/// Installs a probe through the core's own API, with options.
async fn install_with(core: &Core, id: &str, options: InstallOptions) -> (Installed, Gofer) {
    let installed = core.install_with::<Probe>("probe", [("id", id)], options).await.unwrap();
    (installed, probe::client(id))
}

#[tokio::test]
async fn each_grant_allows_what_it_says_and_no_more() {
    let core = Core::in_memory().await.unwrap();
    create_namespace(&core, "ops").await;
    for (namespace, pipeline) in [("", "nightly"), ("", "other"), ("ops", "backup")] {
        create_pipeline(&core, namespace, pipeline).await;
        let secrets = core.client().pipeline_secrets(PipelineId::new(namespace, pipeline));
        secrets.put("token", "hidden").await.unwrap();
    }
    core.client().global_secrets().put("token", "hidden").await.unwrap();
    // What is done: reads and writes a secret of its pipeline, reads a global one, reads a secret of
    // another pipeline of the namespace, and of another namespace, and lists tokens.
    let allowed = |grant| match grant {
        None => [false; 6],
        Some(Grant::ReadSecrets) => [true, false, false, false, false, false],
        Some(Grant::WriteSecrets) => [false, true, false, false, false, false],
        Some(Grant::GlobalSecrets) => [false, false, true, false, false, false],
        Some(Grant::Namespaces) => [true, true, false, true, false, false],
        Some(_) => [true; 6],
    };
    for grant in [None].into_iter().chain(Grant::ALL.map(Some)) {
        let options = grant.map_or_else(InstallOptions::new, |it| InstallOptions::new().grant(it));
        let (probe, gofer) = install_with(&core, "grants", options).await;
        probe.subscribe("nightly", "probe", NO_SETTINGS).await.unwrap();
        let secrets = |pipeline: &str| gofer.pipeline_secrets(pipeline);
        let done = [
            secrets("nightly").get("token").await.map(drop),
            secrets("nightly").replace("token", "hidden").await,
            gofer.global_secrets().get("token").await.map(drop),
            secrets("other").get("token").await.map(drop),
            secrets("ops/backup").get("token").await.map(drop),
            gofer
                .api()
                .list_tokens(proto::ListTokensRequest::default())
                .await
                .map(drop)
                .map_err(Error::from_status),
        ];
        assert_eq!(done.each_ref().map(Result::is_ok), allowed(grant), "{grant:?}: {done:?}");
        for outcome in done.into_iter().filter(Result::is_err) {
            denied(outcome);
        }
        // Whatever it was granted, it starts runs in its own name.
        let request = proto::StartRunRequest {
            pipeline_id: "nightly".to_owned(),
            initiator: Some(proto::Initiator::default()),
            ..Default::default()
        };
        let status = gofer.api().start_run(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        probe.uninstall().await.unwrap();
    }
    core.stop().await;
}

/// What an administrator allows counts from the first call on, and an update changes it.
#[tokio::test]
async fn grants_are_those_of_the_instance() {
    let core = Core::in_memory().await.unwrap();
    core.client().global_secrets().put("token", "hidden").await.unwrap();
    let options = InstallOptions::new().grant(Grant::GlobalSecrets);
    let (probe, gofer) = install_with(&core, "instance", options).await;
    gofer.global_secrets().get("token").await.unwrap();
    probe.restart().await.unwrap();
    probe::client("instance").global_secrets().get("token").await.unwrap();
    probe.update([("refuses", "false")]).await.unwrap();
    probe::client("instance").global_secrets().get("token").await.unwrap();
    probe.set_options(InstallOptions::new()).await.unwrap();
    denied(probe::client("instance").global_secrets().get("token").await);
    core.stop().await;
}

#[tokio::test]
async fn only_pipelines_of_the_namespaces_in_the_options_may_subscribe() {
    let core = Core::in_memory().await.unwrap();
    let (probe, gofer) =
        install_with(&core, "namespaces", InstallOptions::new().namespaces(["ops"])).await;
    probe.subscribe("ops/backup", "probe", NO_SETTINGS).await.unwrap();
    denied(probe.subscribe("nightly", "probe", NO_SETTINGS).await);
    denied(start(&gofer, "nightly", "of a test").await);
    // A subscription of a namespace that may no longer use it.
    probe.set_options(InstallOptions::new().namespaces(["default"])).await.unwrap();
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        namespace_id: "ops".to_owned(),
        pipeline_id: "backup".to_owned(),
    };
    let list = core.client().api().list_pipeline_extension_subscriptions(request).await.unwrap();
    let [subscription] = &list.into_inner().subscriptions[..] else { panic!() };
    let reason = subscription.status_reason.clone().unwrap_or_default().description;
    assert_eq!(subscription.status(), Status::Error, "{reason}");
    assert!(reason.contains("not for the namespace `ops`"), "{reason}");
    denied(start(&probe::client("namespaces"), "ops/backup", "of a test").await);
    core.stop().await;
}

/// The options of the probe, and an update of the probe to others that does not come up.
async fn fail_update(core: &Core, options: ExtensionOptions) -> ExtensionOptions {
    let mut embedded = EmbeddedCoreClient::new(transport(core.client()));
    let update = UpdateExtensionRequest {
        name: "probe".to_owned(),
        variables: [("fails".to_owned(), "true".to_owned())].into(),
        options: Some(options),
        ..Default::default()
    };
    embedded.update_extension(update).await.unwrap_err();
    let states = embedded.list_extension_states(ListExtensionStatesRequest::default()).await;
    let [state] = &states.unwrap().into_inner().extensions[..] else { panic!() };
    // Without the limits, which are those that it had.
    let ExtensionOptions { grants, namespaces, .. } = state.options.clone().unwrap();
    ExtensionOptions { grants, namespaces, ..ExtensionOptions::default() }
}

fn options(grants: &[&str], namespaces: &[&str]) -> ExtensionOptions {
    let owned = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    ExtensionOptions {
        grants: owned(grants),
        namespaces: owned(namespaces),
        ..ExtensionOptions::default()
    }
}

/// An extension cannot keep its grants by not coming up.
#[tokio::test]
async fn a_failed_update_takes_grants_back_and_gives_none() {
    let core = Core::in_memory().await.unwrap();
    core.client().global_secrets().put("token", "hidden").await.unwrap();
    let everything = InstallOptions::new().grant(Grant::Everything);
    let (probe, gofer) = install_with(&core, "narrowed", everything).await;
    probe.subscribe("nightly", "probe", NO_SETTINGS).await.unwrap();
    let mut api = gofer.api();
    let list = proto::ListTokensRequest::default();
    api.list_tokens(list.clone()).await.unwrap();
    api.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    // A part of what it was granted. What it was not granted is not added.
    let global = options(&["global-secrets"], &[]);
    assert_eq!(fail_update(&core, global.clone()).await, global);
    let more = options(&["read-secrets", "global-secrets"], &[]);
    assert_eq!(fail_update(&core, more).await, global);
    // The instance that goes on.
    assert_eq!(api.list_tokens(list).await.unwrap_err().code(), Code::PermissionDenied);
    gofer.global_secrets().get("token").await.unwrap();
    denied(gofer.pipeline_secrets("nightly").list().await);
    probe.restart().await.unwrap();
    let gofer = probe::client("narrowed");
    gofer.global_secrets().get("token").await.unwrap();
    denied(gofer.pipeline_secrets("nightly").list().await);
    core.stop().await;
}

#[tokio::test]
async fn a_failed_update_ends_access_to_namespaces_and_begins_none() {
    let core = Core::in_memory().await.unwrap();
    for namespace in ["ops", "team-a", "team-b", "other"] {
        create_namespace(&core, namespace).await;
    }
    let to = |patterns: &[&'static str]| InstallOptions::new().namespaces(patterns.to_vec());
    let (probe, gofer) = install_with(&core, "patterns", to(&["ops", "team-.*"])).await;
    for pipeline in ["ops/backup", "team-a/nightly"] {
        probe.subscribe(pipeline, "probe", NO_SETTINGS).await.unwrap();
    }
    let left = fail_update(&core, options(&[], &[".*-a", "other"])).await;
    assert_eq!(left, options(&[], &["team\\-a"]));
    denied(gofer.runs(PipelineId::new("ops", "backup"), 10).await);
    denied(gofer.pipeline_objects("ops/backup").put("key", "content").await);
    gofer.pipeline_objects("team-a/nightly").put("key", "content").await.unwrap();
    denied(probe.subscribe("other/nightly", "probe", NO_SETTINGS).await);
    // Nothing is left, which is not the same as no restriction.
    fail_update(&core, options(&[], &["other"])).await;
    denied(gofer.pipeline_objects("team-a/nightly").replace("key", "content").await);
    denied(probe.subscribe("nightly", "probe", NO_SETTINGS).await);
    probe.set_options(InstallOptions::new()).await.unwrap();
    probe.subscribe("other/nightly", "probe", NO_SETTINGS).await.unwrap();
    core.stop().await;
}

/// The initiator of its runs would read like that of another extension's.
#[tokio::test]
async fn a_name_that_could_be_another_one_with_a_label_is_refused() {
    let core = Core::in_memory().await.unwrap();
    let refused = core.install::<Probe>("ci (eu)", [("id", "name")]).await.unwrap_err();
    assert!(refused.to_string().contains("` (`"), "{refused}");
    core.install::<Probe>("ci(eu)", [("id", "name")]).await.unwrap();
    let extensions = core.client().api().list_extensions(proto::ListExtensionsRequest {}).await;
    let image = extensions.unwrap().into_inner().extensions[0].image.clone();
    let variables = [("id".to_owned(), "name 2".to_owned())].into();
    let name = "ci (eu)".to_owned();
    let install = proto::InstallExtensionRequest { name, image, variables, ..Default::default() };
    let refused = core.client().api().install_extension(install).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    core.stop().await;
}

#[tokio::test]
async fn options_are_shown_to_managers_and_to_the_extension() {
    let core = Core::in_memory().await.unwrap();
    let options = InstallOptions::new().grant(Grant::ReadSecrets).namespaces(["ops"]);
    let (_, gofer) = install_with(&core, "shown", options).await;
    core.install::<Probe>("another", [("id", "shown 2")]).await.unwrap();
    let states = async |gofer: &Gofer| {
        let mut embedded = EmbeddedCoreClient::new(transport(gofer));
        let states = embedded.list_extension_states(ListExtensionStatesRequest::default()).await;
        let states = states.unwrap().into_inner().extensions.into_iter();
        states.map(|it| (it.name, it.options)).collect::<Vec<_>>()
    };
    // Timeouts are those in effect; limits are for containers.
    let defaults = ExtensionOptions {
        start_timeout: Some(30_000),
        call_timeout: Some(30_000),
        stop_timeout: Some(10_000),
        ..Default::default()
    };
    let own = ExtensionOptions {
        grants: vec!["read-secrets".to_owned()],
        namespaces: vec!["ops".to_owned()],
        ..defaults.clone()
    };
    let own = ("probe".to_owned(), Some(own));
    let another = ("another".to_owned(), Some(defaults));
    assert_eq!(states(core.client()).await, [another, own.clone()]);
    assert_eq!(states(&gofer).await, [own]);
    core.stop().await;
}

/// By Gofer's own `InstallExtension`, which has no options, and with a grant that is not known.
#[tokio::test]
async fn an_installation_has_no_grants_by_default_and_only_known_ones() {
    let core = Core::in_memory().await.unwrap();
    core.install::<Probe>("probe", [("id", "default")]).await.unwrap();
    let extensions = core.client().api().list_extensions(proto::ListExtensionsRequest {}).await;
    let image = extensions.unwrap().into_inner().extensions[0].image.clone();
    let variables = [("id".to_owned(), "by Gofer's".to_owned())].into();
    let install = proto::InstallExtensionRequest {
        name: "another".to_owned(),
        image: image.clone(),
        variables,
        ..Default::default()
    };
    core.client().api().install_extension(install).await.unwrap();
    denied(probe::client("by Gofer's").global_secrets().list().await);
    let install = InstallExtensionRequest {
        name: "third".to_owned(),
        image,
        options: Some(ExtensionOptions { grants: vec!["root".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    let mut embedded = EmbeddedCoreClient::new(transport(core.client()));
    let status = embedded.install_extension(install).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("`everything`"), "{status}");
    core.stop().await;
}
