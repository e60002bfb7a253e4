//! Backups of a core that goes on: a backup is a store of one moment, with everything that was
//! acknowledged before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::files::Directory;
use crate::metronome;
use gofer_core::Core;
use gofer_core::internal::Restored;
use gofer_proto as proto;
use gofer_proto::embedded::backup_response::Part;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::{BackupRequest, BackupResponse};
use gofer_sdk::RunInfo;
use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};

/// Concurrent writers, each with a pipeline of its own.
const WRITERS: usize = 4;

/// Far more than is needed on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

async fn begin(core: &Core) -> Result<Streaming<BackupResponse>, Status> {
    let api = EmbeddedCoreClient::new(core.client().transport());
    let mut api = api.max_decoding_message_size(64 << 20);
    Ok(api.backup(BackupRequest {}).await?.into_inner())
}

async fn next(parts: &mut Streaming<BackupResponse>) -> Part {
    parts.message().await.unwrap().expect("an end").part.unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pipeline(n: usize) -> String {
    format!("pipeline-{n}")
}

/// Writes something of each kind, again and again; `acknowledged` is the last step that was.
async fn write(core: Core, n: usize, acknowledged: Arc<AtomicI64>) {
    let (mut api, pipeline_id) = (core.client().api(), pipeline(n));
    let namespace_id = "default".to_owned();
    for step in 1_i64.. {
        let run = proto::StartRunRequest {
            namespace_id: namespace_id.clone(),
            pipeline_id: pipeline_id.clone(),
            initiator: Some(proto::Initiator { name: "backup".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let run = api.start_run(run).await.unwrap().into_inner().run.unwrap();
        assert_eq!(run.id, step);
        let object = proto::PutPipelineObjectRequest {
            namespace_id: namespace_id.clone(),
            pipeline_id: pipeline_id.clone(),
            key: "step".to_owned(),
            content: step.to_string().into(),
            force: true,
        };
        api.put_pipeline_object(object).await.unwrap();
        let secret = proto::PutPipelineSecretRequest {
            namespace_id: namespace_id.clone(),
            pipeline_id: pipeline_id.clone(),
            key: "step".to_owned(),
            content: step.to_string(),
            force: true,
        };
        api.put_pipeline_secret(secret).await.unwrap();
        if step % 8 == 1 {
            let metronome = core.installed("metronome").unwrap();
            let label = format!("label-{step}");
            let params = [("every", "24h")];
            metronome.subscribe(format!("default/{pipeline_id}"), &label, params).await.unwrap();
        }
        acknowledged.store(step, Ordering::SeqCst);
    }
}

/// What a store must hold of a writer that had come so far.
async fn check(core: &Core, n: usize, acknowledged: i64) {
    let (mut api, pipeline_id) = (core.client().api(), pipeline(n));
    let runs: BTreeSet<_> =
        core.runs(&*format!("default/{pipeline_id}")).iter().map(RunInfo::id).collect();
    let last = i64::try_from(runs.len()).unwrap();
    assert!(last >= acknowledged, "{last} runs of {acknowledged}");
    assert_eq!(runs, (1..=last).collect(), "runs are missing");
    // One step has begun at most.
    let is_step = |text: &str| {
        let step: i64 = text.parse().unwrap();
        assert!(step >= acknowledged && (last - 1..=last).contains(&step), "{step}: {last}");
    };
    let object = proto::GetPipelineObjectRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: pipeline_id.clone(),
        key: "step".to_owned(),
    };
    let object = api.get_pipeline_object(object).await.unwrap().into_inner();
    is_step(std::str::from_utf8(&object.content).unwrap());
    let secret = proto::GetPipelineSecretRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: pipeline_id.clone(),
        key: "step".to_owned(),
        include_secret: true,
    };
    let secret = api.get_pipeline_secret(secret).await.unwrap().into_inner();
    is_step(&secret.secret);
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        namespace_id: "default".to_owned(),
        pipeline_id,
    };
    let subscriptions = api
        .list_pipeline_extension_subscriptions(request)
        .await
        .unwrap()
        .into_inner()
        .subscriptions;
    let labels: BTreeSet<_> = subscriptions.into_iter().map(|it| it.label).collect();
    for step in (1..=acknowledged).step_by(8) {
        assert!(labels.contains(&format!("label-{step}")), "{step}: {labels:?}");
    }
}

/// Events have no gaps, and each run has exactly its two.
async fn check_events(core: &Core) {
    let mut events = core.client().events().await.unwrap();
    let (mut last, mut started, mut completed) = (0, BTreeSet::new(), BTreeSet::new());
    while let Some(event) = events.next().await.unwrap() {
        assert_eq!(event.id, last + 1, "a gap in the events");
        last = event.id;
        let details: serde_json::Value = serde_json::from_str(&event.details).unwrap();
        let run = || (details["pipeline_id"].to_string(), details["run_id"].to_string());
        match &*event.kind {
            "RUN_STARTED" => assert!(started.insert(run())),
            "RUN_COMPLETED" => assert!(completed.insert(run())),
            _ => {}
        }
    }
    assert_eq!(started, completed, "a half-recorded run");
    let runs: usize =
        (0..WRITERS).map(|n| core.runs(&*format!("default/{}", pipeline(n))).len()).sum();
    let of_writers = started.iter().filter(|(pipeline, _)| pipeline.contains("pipeline-")).count();
    assert_eq!(of_writers, runs, "runs and their events");
}

async fn management_token(core: &Core) -> String {
    let request = proto::CreateTokenRequest {
        kind: proto::token::Kind::Management.into(),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

async fn start(store: &Path) -> Core {
    Core::builder().listen(([127, 0, 0, 1], 0)).store(store).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_core_that_goes_on_is_a_store_of_one_moment() {
    let directory = Directory::new("backup");
    let (store, copy) = (directory.0.join("gofer.redb"), directory.0.join("copy.redb"));
    let core = start(&store).await;
    let (certificate, token) = (core.certificate().to_owned(), management_token(&core).await);
    let config = [("min_interval", "1s")];
    let metronome = core.install_program("metronome", &metronome::program(), config).await.unwrap();
    metronome.subscribe("default/nightly", "often", [("every", "1s")]).await.unwrap();
    // More than is sent ahead, so that the copy cannot end before it is read.
    let large = vec![7; 3 << 20];
    for n in 0..10 {
        let object = proto::PutPipelineObjectRequest {
            namespace_id: "default".to_owned(),
            pipeline_id: "nightly".to_owned(),
            key: format!("large-{n}"),
            content: large.clone().into(),
            force: false,
        };
        core.client().api().put_pipeline_object(object).await.unwrap();
    }
    let progress: Vec<Arc<AtomicI64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let steps = || progress.iter().map(|it| it.load(Ordering::SeqCst)).collect::<Vec<_>>();
    let mut writers = tokio::task::JoinSet::new();
    for (n, acknowledged) in progress.iter().enumerate() {
        // It registers its pipeline.
        let config = proto::UserPipelineConfig { id: pipeline(n), ..Default::default() };
        let request = proto::RegisterPipelineConfigRequest {
            pipeline_config: Some(config),
            ..Default::default()
        };
        core.client().api().register_pipeline_config(request).await.unwrap();
        writers.spawn(write(core.clone(), n, Arc::clone(acknowledged)));
    }
    let went_on =
        |before: Vec<i64>| move || steps().iter().zip(&before).all(|(now, it)| *now > it + 5);
    until("the writers begin", went_on(steps())).await;

    let acknowledged = steps();
    let mut parts = begin(&core).await.unwrap();
    let Part::Header(header) = next(&mut parts).await else { panic!("no header") };
    let mut restored = Restored::begin(&copy, header).unwrap();
    // It waits for its reader, and the core goes on.
    until("the writers go on", went_on(steps())).await;
    let written = loop {
        match next(&mut parts).await {
            Part::Records(it) => restored.add(&it.records).unwrap(),
            Part::End(end) => break restored.finish(end.records).unwrap(),
            Part::Header(_) => panic!("another header"),
        }
    };
    assert_eq!(parts.message().await.unwrap(), None);
    assert_eq!(written.files.len(), 4);
    until("the writers go on", went_on(steps())).await;
    assert!(writers.try_join_next().is_none(), "a writer failed");
    writers.shutdown().await;
    core.stop().await;
    drop(core);

    let core = start(&copy).await;
    for (n, acknowledged) in acknowledged.into_iter().enumerate() {
        check(&core, n, acknowledged).await;
    }
    check_events(&core).await;
    // Who trusted the old core is served by the new one, with the old token.
    let stream = TcpStream::connect(core.address().unwrap()).await.unwrap();
    let http = http2::Builder::new(TokioExecutor::new());
    let client = Connection::handshake(stream, &certificate, &http).await.unwrap();
    let client = client.with([HeaderValue::try_from(format!("Bearer {token}")).unwrap()]);
    client.call("/proto.Gofer/ListExtensions").await.unwrap();
    // The extension runs again, and its subscription goes on.
    let runs = core.runs("default/nightly").len();
    until("it starts no runs", || core.runs("default/nightly").len() >= runs + 2).await;
    core.stop().await;
}

#[tokio::test]
async fn a_store_in_memory_is_not_backed_up() {
    let core = Core::in_memory().await.unwrap();
    let status = begin(&core).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("in memory"), "{status}");
}

#[tokio::test]
async fn a_backup_ends_when_its_token_is_disabled() {
    let directory = Directory::new("backup-token");
    let core = start(&directory.0.join("gofer.redb")).await;
    let object = proto::PutPipelineObjectRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: "nightly".to_owned(),
        key: "large".to_owned(),
        content: vec![7; 3 << 20].into(),
        force: false,
    };
    let mut api = core.client().api();
    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let register = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    api.register_pipeline_config(register).await.unwrap();
    for n in 0..4 {
        let key = format!("large-{n}");
        api.put_pipeline_object(proto::PutPipelineObjectRequest { key, ..object.clone() })
            .await
            .unwrap();
    }
    let token = management_token(&core).await;
    let caller = crate::caller::Caller::of(&core).await.with(&token);
    let embedded = EmbeddedCoreClient::new(caller.0.clone());
    let mut embedded = embedded.max_decoding_message_size(64 << 20);
    let mut parts = embedded.backup(BackupRequest {}).await.unwrap().into_inner();
    assert!(matches!(next(&mut parts).await, Part::Header(_)));
    api.disable_token(proto::DisableTokenRequest { token }).await.unwrap();
    let status = loop {
        match parts.message().await {
            Ok(Some(BackupResponse { part: Some(Part::End(_)) }) | None) => {
                panic!("it is complete")
            }
            Ok(Some(_)) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    core.stop().await;
}
