//! An extension has access to the pipelines that are subscribed to it, for as long as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use crate::probe::{self, Probe, start};
use gofer_core::{Core, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::{GetCapabilitiesRequest, ListExtensionStatesRequest};
use gofer_sdk::internal::transport;
use gofer_sdk::{ErrorKind, Extension, Gofer, NoConfig, NoParams, Result, Run, Subscription};
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
        let request =
            proto::CreateTokenRequest { kind: Kind::Management.into(), ..Default::default() };
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
    assert_eq!((&*event.kind, &*event.details), ("EXTENSION_INSTALLED", r#"{"name":"probe"}"#));
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
