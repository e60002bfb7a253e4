//! What Gofer's own command line calls, and what a real Gofer refuses.

use gofer_core::{Core, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::deployment::{DeploymentState, DeploymentStatus};
use gofer_proto::initiator::Type;
use gofer_proto::token::Kind as TokenKind;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::caller::Caller;
use crate::metronome::{self, Metronome};

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, expected: &str) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(expected), "{status}");
}

async fn register(core: &Core, pipeline: &str) {
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

fn nightly() -> String {
    "nightly".to_owned()
}

/// `up` registers a configuration, and deploys it.
#[tokio::test]
async fn the_newest_version_is_deployed_already() {
    let core = Core::in_memory().await.unwrap();
    let mut api = core.client().api();
    register(&core, "nightly").await;
    register(&core, "nightly").await;
    let deploy =
        |version| proto::DeployPipelineRequest { id: nightly(), version, ..Default::default() };
    for version in [2, 0, 2] {
        let deployed = api.deploy_pipeline(deploy(version)).await.unwrap().into_inner();
        assert_eq!(deployed.deployment_id, 2);
    }
    refused(api.deploy_pipeline(deploy(1)).await, Code::FailedPrecondition, "version 1");
    refused(api.deploy_pipeline(deploy(3)).await, Code::NotFound, "version 3");
    let absent = proto::DeployPipelineRequest { id: "absent".to_owned(), ..deploy(1) };
    refused(api.deploy_pipeline(absent).await, Code::NotFound, "`default/absent`");

    let get = |id| proto::GetDeploymentRequest { pipeline_id: nightly(), id, ..Default::default() };
    let deployment = api.get_deployment(get(2)).await.unwrap().into_inner().deployment.unwrap();
    assert_eq!((deployment.start_version, deployment.end_version), (1, 2));
    assert_eq!(deployment.state(), DeploymentState::Complete);
    assert_eq!(deployment.status(), DeploymentStatus::Successful);
    for id in [-1, 0, 3] {
        assert_eq!(api.get_deployment(get(id)).await.unwrap_err().code(), Code::NotFound);
    }
    let list = proto::ListDeploymentsRequest { pipeline_id: nightly(), ..Default::default() };
    let listed = api.list_deployments(list).await.unwrap().into_inner().deployments;
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), [2, 1]);
    core.stop().await;
}

fn start(initiator: impl Into<Option<proto::Initiator>>) -> proto::StartRunRequest {
    let initiator = initiator.into();
    proto::StartRunRequest { pipeline_id: nightly(), initiator, ..Default::default() }
}

fn by(kind: Type, name: &str) -> proto::Initiator {
    proto::Initiator { r#type: kind.into(), name: name.to_owned(), ..Default::default() }
}

/// `run get` lists them.
#[tokio::test]
async fn a_run_has_no_task_runs() {
    let core = Core::in_memory().await.unwrap();
    let mut api = core.client().api();
    register(&core, "nightly").await;
    api.start_run(start(by(Type::Human, "ada"))).await.unwrap();
    let list = |run_id| proto::ListTaskRunsRequest {
        pipeline_id: nightly(),
        run_id,
        ..Default::default()
    };
    assert!(api.list_task_runs(list(1)).await.unwrap().into_inner().task_runs.is_empty());
    refused(api.list_task_runs(list(2)).await, Code::NotFound, "run 2");
    let (pipeline_id, run_id, id) = (nightly(), 1, "build".to_owned());
    let get = proto::GetTaskRunRequest { pipeline_id, run_id, id, ..Default::default() };
    refused(api.get_task_run(get).await, Code::NotFound, "`build`");
    let (pipeline_id, id) = (nightly(), "build".to_owned());
    let logs = proto::GetTaskRunLogsRequest { pipeline_id, run_id, id, ..Default::default() };
    refused(api.get_task_run_logs(logs).await.map(drop), Code::NotFound, "`build`");
    let pipeline_id = nightly();
    let repair = proto::RepairOrphanRequest { pipeline_id, run_id, ..Default::default() };
    api.repair_orphan(repair).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn a_start_says_who_starts_the_run() {
    let core = Core::in_memory().await.unwrap();
    let mut api = core.client().api();
    register(&core, "nightly").await;
    for initiator in [None, Some(by(Type::Unknown, "")), Some(by(Type::Human, ""))] {
        refused(api.start_run(start(initiator)).await, Code::InvalidArgument, "`initiator.name`");
    }
    for kind in [Type::Unknown, Type::Bot, Type::Human] {
        api.start_run(start(by(kind, "ada"))).await.unwrap();
    }
    refused(api.start_run(start(by(Type::Extension, "ada"))).await, Code::PermissionDenied, "key");
    core.stop().await;
}

fn token(kind: Kind, namespaces: &[&str], expires: &str) -> proto::CreateTokenRequest {
    proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
        expires: expires.to_owned(),
        ..Default::default()
    }
}

/// `service tokens create client` sends none.
#[tokio::test]
async fn a_token_without_a_kind_is_a_clients() {
    let core = Core::on_loopback().await.unwrap();
    let mut api = core.client().api();
    let request = token(Kind::Unknown, &["default"], "1h");
    let created = api.create_token(request).await.unwrap().into_inner();
    assert_eq!(created.details.unwrap().kind(), TokenKind::Client);
    let caller = Caller::of(&core).await.with(&created.token);
    caller.call("ListPipelines").await.unwrap();
    refused(caller.call("ListTokens").await, Code::PermissionDenied, "management");
    // As of every client's.
    let request = token(Kind::Unknown, &[], "1h");
    refused(api.create_token(request).await, Code::InvalidArgument, "`namespaces`");
    core.stop().await;
}

#[tokio::test]
async fn a_token_expires_and_is_for_namespaces_that_exist() {
    let core = Core::in_memory().await.unwrap();
    let mut api = core.client().api();
    for expires in ["", "0s", "-1h", "a year", "1d"] {
        let request = token(Kind::Management, &[], expires);
        refused(api.create_token(request).await, Code::InvalidArgument, "`expires`");
    }
    for namespaces in [&["opps"][..], &["default", "opps"], &["team-a"]] {
        let request = token(Kind::Client, namespaces, "1h");
        let missing = format!("no namespace `{}`", namespaces[namespaces.len() - 1]);
        refused(api.create_token(request).await, Code::NotFound, &missing);
    }
    // For namespaces that are yet to be.
    api.create_token(token(Kind::Client, &["default", "team-.*"], "1h")).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn an_extension_has_an_endpoint_while_it_runs() {
    let core = Core::on_loopback().await.unwrap();
    core.install::<Metronome>("here", NO_SETTINGS).await.unwrap();
    core.install_program("program", &metronome::program(), NO_SETTINGS).await.unwrap();
    let mut api = core.client().api();
    let url = async |name: &str| {
        let get = proto::GetExtensionRequest { name: name.to_owned() };
        let response = core.client().api().get_extension(get).await.unwrap();
        response.into_inner().extension.unwrap().url
    };
    assert_eq!(url("here").await, "in-process");
    assert!(url("program").await.parse::<std::net::SocketAddr>().is_ok());
    for name in ["here", "program"] {
        api.disable_extension(proto::DisableExtensionRequest { name: name.to_owned() })
            .await
            .unwrap();
        assert_eq!(url(name).await, "");
    }
    core.stop().await;
}

/// The details of all events of a kind.
async fn details(core: &Core, kind: &str) -> Vec<Value> {
    let mut events = core.client().events().await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        if event.kind == kind {
            found.push(serde_json::from_str(&event.details).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn events_say_what_they_are_about() {
    let core = Core::in_memory().await.unwrap();
    let metronome = core.install::<Metronome>("metronome", NO_SETTINGS).await.unwrap();
    register(&core, "nightly").await;
    register(&core, "nightly").await;
    metronome.subscribe("nightly", "often", [("every", "1h")]).await.unwrap();
    metronome.unsubscribe("nightly", "often").await.unwrap();
    metronome.subscribe("nightly", "often", [("every", "1h")]).await.unwrap();
    let mut api = core.client().api();
    let name = || "metronome".to_owned();
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    api.enable_extension(proto::EnableExtensionRequest { name: name() }).await.unwrap();
    metronome.uninstall().await.unwrap();
    let subscription = json!({
        "namespace_id": "default", "pipeline_id": "nightly", "version": 2,
        "name": "metronome", "label": "often",
        "extension_name": "metronome", "extension_label": "often",
    });
    for kind in ["PIPELINE_EXTENSION_SUBSCRIPTION", "PIPELINE_EXTENSION_UNSUBSCRIPTION"] {
        assert_eq!(details(&core, kind).await, [subscription.clone(), subscription.clone()]);
    }
    let extension =
        json!({ "name": "metronome", "image": "in-process:core::metronome::Metronome" });
    for kind in ["INSTALLED", "DISABLED", "ENABLED", "UNINSTALLED"] {
        let kind = format!("EXTENSION_{kind}");
        assert_eq!(details(&core, &kind).await, std::slice::from_ref(&extension), "{kind}");
    }
    core.stop().await;
}
