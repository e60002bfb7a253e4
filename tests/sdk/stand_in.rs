//! The stand-in for Gofer 0.6.2 does what a real one does, and fails as a test asks it to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::probe::{Builder, probe};
use crate::support::stand_in::{Outcome, Running, StandIn, pipeline};
use crate::support::{Connection, IDENTITY, Setup, TOKEN, bearer, long_grace, within};
use gofer_proto::embedded::GetCapabilitiesRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::gofer_client::GoferClient;
use gofer_proto::run::{RunState, RunStatus};
use gofer_proto::{self as proto, Initiator, Run, initiator};
use gofer_sdk::{ErrorKind, Gofer};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Code, Response, Status};

const HOUR: Duration = Duration::from_secs(3600);
const RUN: Duration = Duration::from_secs(10);

/// Calls a stand-in.
#[derive(Clone)]
struct Caller(GoferClient<Connection>);

async fn caller(gofer: &StandIn) -> Caller {
    Caller(GoferClient::new(gofer.connect().await))
}

fn start_request(pipeline: &str) -> proto::StartRunRequest {
    proto::StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        variables: HashMap::from([("COMMIT".to_owned(), "c0ffee".to_owned())]),
        initiator: Some(Initiator {
            r#type: initiator::Type::Extension.into(),
            name: "probe (l)".to_owned(),
            reason: "of a test".to_owned(),
        }),
        ..proto::StartRunRequest::default()
    }
}

impl Caller {
    /// The number of a run that was started.
    async fn start(&self, pipeline: &str) -> Result<i64, Status> {
        let started = self.0.clone().start_run(start_request(pipeline)).await?.into_inner();
        Ok(started.run.unwrap().id)
    }

    /// Starts a run in the background, and waits until it is stored.
    async fn begin(&self, gofer: &StandIn, pipeline: &str) -> JoinHandle<Result<i64, Status>> {
        let stored = gofer.recorded().runs.len();
        let (caller, id) = (self.clone(), pipeline.to_owned());
        let starting = tokio::spawn(async move { caller.start(&id).await });
        gofer.until(|recorded| recorded.runs.len() > stored).await;
        starting
    }

    async fn page(&self, pipeline: &str, offset: i64, limit: i64) -> Vec<Run> {
        let (namespace_id, pipeline_id) = (String::new(), pipeline.to_owned());
        let request = proto::ListRunsRequest { offset, limit, namespace_id, pipeline_id };
        self.0.clone().list_runs(request).await.unwrap().into_inner().runs
    }

    /// The stream of events, by their numbers.
    async fn events(&self, reverse: bool, follow: bool) -> impl AsyncFnMut() -> Option<i64> {
        let request = proto::ListEventsRequest { reverse, follow };
        let mut events = self.0.clone().list_events(request).await.unwrap().into_inner();
        async move || Some(events.message().await.unwrap()?.event.unwrap().id)
    }
}

fn state(gofer: &StandIn, pipeline: &str, id: i64) -> RunState {
    gofer.recorded().run(pipeline, id).unwrap().state()
}

#[tokio::test(start_paused = true)]
async fn a_run_is_started_and_completes() {
    let gofer = StandIn::in_memory([pipeline("ops/nightly").runs_take(RUN)]);
    let mut caller = caller(&gofer).await.0;
    let mut request = start_request("nightly");
    request.namespace_id = "ops".to_owned();
    let began = gofer.clock().unix_millis();
    caller.start_run(request).await.unwrap();
    let get = proto::GetRunRequest {
        namespace_id: "ops".to_owned(),
        pipeline_id: "nightly".to_owned(),
        id: 1,
    };
    let run = caller.get_run(get).await.unwrap().into_inner().run.unwrap();
    assert_eq!((run.namespace.as_str(), run.pipeline.as_str()), ("ops", "nightly"));
    assert_eq!((run.id, run.state(), run.started), (1, RunState::Running, began));
    assert_eq!(run.initiator, start_request("").initiator);
    assert_eq!((&*run.variables[0].key, &*run.variables[0].value), ("COMMIT", "c0ffee"));
    gofer.until(|recorded| recorded.incomplete("ops/nightly") == 0).await;
    let recorded = gofer.recorded();
    let run = recorded.run("ops/nightly", 1).unwrap();
    assert_eq!((run.status(), run.ended - began), (RunStatus::Successful, 10_000));
    let kinds: Vec<_> = recorded.events.iter().map(|event| event.r#type.as_str()).collect();
    assert_eq!(kinds, ["PIPELINE_REGISTERED", "RUN_STARTED", "RUN_COMPLETED"]);
    assert_eq!(recorded.events[2].emitted, run.ended);
    let details: serde_json::Value = serde_json::from_str(&recorded.events[2].details).unwrap();
    let expected = serde_json::json!({
        "namespace_id": "ops", "pipeline_id": "nightly", "run_id": 1,
        "initiator_type": "EXTENSION", "initiator_name": "probe (l)", "status": "SUCCESSFUL",
    });
    assert_eq!(details, expected);
}

#[tokio::test(start_paused = true)]
async fn at_a_parallelism_of_1_no_run_ever_starts() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(1)]);
    let starting = caller(&gofer).await.begin(&gofer, "a").await;
    tokio::time::sleep(HOUR).await;
    assert!(!starting.is_finished());
    assert_eq!(state(&gofer, "a", 1), RunState::Pending);
    assert_eq!(gofer.recorded().in_flight("StartRun"), 1);
}

#[tokio::test(start_paused = true)]
async fn at_a_parallelism_of_2_a_run_waits_for_the_one_that_is_running() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(2).runs_take(RUN)]);
    let caller = caller(&gofer).await;
    let began = Instant::now();
    assert_eq!(caller.start("a").await.unwrap(), 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(caller.start("a").await.unwrap(), 2);
    assert_eq!(began.elapsed(), RUN);
    assert_eq!(gofer.recorded().most_pending("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_runs_that_wait_for_each_other_do_so_until_one_is_cancelled() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(2).runs_take(RUN)]);
    let caller = caller(&gofer).await;
    caller.start("a").await.unwrap();
    let second = caller.begin(&gofer, "a").await;
    let third = caller.begin(&gofer, "a").await;
    tokio::time::sleep(HOUR).await;
    assert!(!second.is_finished() && !third.is_finished());
    assert_eq!((gofer.recorded().pending("a"), gofer.recorded().most_pending("a")), (2, 2));
    let cancel = proto::CancelRunRequest {
        pipeline_id: "a".to_owned(),
        run_id: 2,
        ..proto::CancelRunRequest::default()
    };
    caller.0.clone().cancel_run(cancel).await.unwrap();
    assert_eq!(within(third).await.unwrap().unwrap(), 3);
    assert_eq!(gofer.recorded().run("a", 2).unwrap().status(), RunStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_start_goes_on_when_its_caller_has_left() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(2).runs_stay()]);
    let caller = caller(&gofer).await;
    caller.start("a").await.unwrap();
    let left = tokio::time::timeout(Duration::from_secs(2), caller.start("a")).await;
    left.unwrap_err();
    gofer.until(|recorded| recorded.in_flight("StartRun") == 0).await;
    assert_eq!(state(&gofer, "a", 2), RunState::Pending);
    gofer.complete("a", 1);
    gofer.until(|recorded| recorded.run("a", 2).unwrap().state() == RunState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_the_starts_that_wait_and_nothing_else() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(2).runs_take(RUN)]);
    let before = caller(&gofer).await;
    before.start("a").await.unwrap();
    let waiting = before.begin(&gofer, "a").await;
    gofer.restart();
    within(waiting).await.unwrap().unwrap_err();
    gofer.until(|recorded| recorded.open_connections == 0).await;
    gofer.until(|recorded| recorded.incomplete("a") == 1).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(state(&gofer, "a", 2), RunState::Pending);
    let after = caller(&gofer).await;
    // The one that is pending for good counts.
    let waiting = after.begin(&gofer, "a").await;
    tokio::time::sleep(HOUR).await;
    assert!(!waiting.is_finished());
    let ids: Vec<_> = after.page("a", 0, 0).await.iter().map(|run| run.id).collect();
    assert_eq!((ids, gofer.recorded().connections), (vec![3, 2, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn all_runs_are_listed_in_pages_newest_first() {
    let gofer = StandIn::in_memory([pipeline("a"), pipeline("b")]);
    let caller = caller(&gofer).await;
    for _ in 0..450 {
        caller.start("a").await.unwrap();
    }
    caller.start("b").await.unwrap();
    let ids = |runs: Vec<Run>| runs.iter().map(|run| run.id).collect::<Vec<_>>();
    let newest = caller.page("a", 0, 0).await;
    assert!(newest.iter().all(|run| run.variables[0].value == "c0ffee"));
    assert!(ids(newest).into_iter().eq((251..=450).rev()));
    assert!(ids(caller.page("a", 400, 200).await).into_iter().eq((1..=50).rev()));
    assert_eq!(ids(caller.page("a", 1, 2).await), [449, 448]);
    assert!(caller.page("a", 450, 10).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_during_a_replay_are_sent_twice() {
    let gofer = StandIn::in_memory([pipeline("a"), pipeline("b")]);
    gofer.hold_replays();
    let caller = caller(&gofer).await;
    let mut next = caller.events(false, true).await;
    assert_eq!((next().await, next().await), (Some(1), Some(2)));
    gofer.disable("a");
    gofer.resume_replays();
    assert_eq!((next().await, next().await), (Some(3), Some(3)));
    gofer.enable("a");
    assert_eq!(next().await, Some(4));
    let event = caller.0.clone().get_event(proto::GetEventRequest { id: 3 }).await.unwrap();
    assert_eq!(event.into_inner().event.unwrap().r#type, "PIPELINE_DISABLED");
    let mut next = caller.events(true, false).await;
    for id in [4, 3, 2, 1] {
        assert_eq!(next().await, Some(id));
    }
    assert_eq!(next().await, None);
}

fn code<T>(outcome: Result<Response<T>, Status>) -> Code {
    outcome.err().expect("a refusal").code()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_is_refused() {
    let gofer = StandIn::in_memory([
        pipeline("good"),
        pipeline("disabled").disabled(),
        pipeline("bare").without_config(),
    ]);
    let caller = caller(&gofer).await;
    for id in ["disabled", "bare", "unknown"] {
        assert_eq!(caller.start(id).await.unwrap_err().code(), Code::FailedPrecondition, "{id}");
    }
    let mut gofer_client = caller.0.clone();
    let mut anonymous = start_request("good");
    anonymous.initiator.as_mut().unwrap().name.clear();
    assert_eq!(code(gofer_client.start_run(anonymous.clone()).await), Code::FailedPrecondition);
    anonymous.initiator = None;
    assert_eq!(code(gofer_client.start_run(anonymous).await), Code::FailedPrecondition);
    assert!(gofer.recorded().runs.is_empty());

    let get = proto::GetRunRequest { pipeline_id: "good".to_owned(), id: 1, ..Default::default() };
    gofer.not_found_is(Code::Unknown);
    assert_eq!(code(gofer_client.get_run(get).await), Code::Unknown);
    let enable = proto::EnablePipelineRequest { id: "disabled".to_owned(), ..Default::default() };
    gofer_client.enable_pipeline(enable).await.unwrap();
    assert_eq!(caller.start("disabled").await.unwrap(), 1);
    let disable = proto::DisablePipelineRequest { id: "good".to_owned(), ..Default::default() };
    gofer_client.disable_pipeline(disable).await.unwrap();
    assert_eq!(caller.start("good").await.unwrap_err().code(), Code::FailedPrecondition);

    let unauthenticated = Connection::over(gofer.network().connect().await.unwrap(), []).await;
    let mut unauthenticated = GoferClient::new(unauthenticated);
    let refused = unauthenticated.start_run(start_request("good")).await;
    assert_eq!(code(refused), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_retry_passes_no_initiator_so_it_fails() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let caller = caller(&gofer).await;
    caller.start("a").await.unwrap();
    let retry = proto::RetryRunRequest {
        pipeline_id: "a".to_owned(),
        run_id: 1,
        initiator: start_request("a").initiator,
        ..proto::RetryRunRequest::default()
    };
    let mut gofer_client = caller.0.clone();
    assert_eq!(code(gofer_client.retry_run(retry.clone()).await), Code::FailedPrecondition);
    gofer.let_retries_through();
    gofer_client.retry_run(retry).await.unwrap();
    let recorded = gofer.recorded();
    let runs: Vec<_> = recorded.runs_of("a").collect();
    assert_eq!((runs.len(), runs[1].initiator.as_ref()), (2, None));
    assert_eq!(runs[1].variables, runs[0].variables);
}

#[tokio::test(start_paused = true)]
async fn what_extensions_read_is_there_and_the_rest_is_unimplemented() {
    let gofer = StandIn::in_memory([pipeline("ops/a").parallelism(3), pipeline("b")]);
    let Caller(mut client) = caller(&gofer).await;
    let info = client.get_system_info(proto::GetSystemInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.semver, "0.6.2");
    let namespaces = client.list_namespaces(proto::ListNamespacesRequest::default()).await.unwrap();
    let ids: Vec<_> = namespaces.into_inner().namespaces.into_iter().map(|it| it.id).collect();
    assert_eq!(ids, ["default", "ops"]);
    let get = proto::GetPipelineRequest {
        namespace_id: "ops".to_owned(),
        id: "a".to_owned(),
        version: 0,
    };
    let pipeline = client.get_pipeline(get).await.unwrap().into_inner().pipeline.unwrap();
    assert_eq!(pipeline.config.unwrap().parallelism, 3);
    let list = client.list_pipelines(proto::ListPipelinesRequest::default()).await.unwrap();
    let ids: Vec<_> = list.into_inner().pipelines.into_iter().map(|it| it.id).collect();
    assert_eq!(ids, ["b"]);

    let secrets = client.list_global_secrets(proto::ListGlobalSecretsRequest {}).await;
    assert_eq!(code(secrets), Code::Unimplemented);
    let mut embedded = EmbeddedCoreClient::new(gofer.connect().await);
    let capabilities = embedded.get_capabilities(GetCapabilitiesRequest {}).await;
    assert_eq!(code(capabilities), Code::Unimplemented);
    assert_eq!(gofer.recorded().calls("EmbeddedCore/GetCapabilities"), 1);
}

#[tokio::test(start_paused = true)]
async fn objects_are_kept() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let put = |content: &'static str, force| proto::PutPipelineObjectRequest {
        pipeline_id: "a".to_owned(),
        key: "cursor".to_owned(),
        content: content.into(),
        force,
        ..proto::PutPipelineObjectRequest::default()
    };
    let get = proto::GetPipelineObjectRequest {
        pipeline_id: "a".to_owned(),
        key: "cursor".to_owned(),
        ..proto::GetPipelineObjectRequest::default()
    };
    let Caller(mut client) = caller(&gofer).await;
    client.put_pipeline_object(put("41", false)).await.unwrap();
    assert_eq!(code(client.put_pipeline_object(put("42", false)).await), Code::FailedPrecondition);
    client.put_pipeline_object(put("42", true)).await.unwrap();
    let kept = client.get_pipeline_object(get.clone()).await.unwrap().into_inner();
    assert_eq!(kept.content, "42");
    let list = proto::ListPipelineObjectsRequest { pipeline_id: "a".to_owned(), ..<_>::default() };
    let keys = client.list_pipeline_objects(list).await.unwrap().into_inner().keys;
    assert_eq!(keys.iter().map(|it| &*it.key).collect::<Vec<_>>(), ["cursor"]);
    let delete = proto::DeletePipelineObjectRequest {
        pipeline_id: "a".to_owned(),
        key: "cursor".to_owned(),
        ..<_>::default()
    };
    client.delete_pipeline_object(delete).await.unwrap();
    assert_eq!(code(client.get_pipeline_object(get).await), Code::FailedPrecondition);
}

/// Whether a status says that the stream was not processed.
fn is_refused_stream(status: &Status) -> bool {
    let sources = std::iter::successors(std::error::Error::source(status), |error| error.source());
    sources
        .filter_map(|source| source.downcast_ref::<h2::Error>())
        .any(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

#[tokio::test(start_paused = true)]
async fn a_call_has_the_outcome_that_a_test_decides_on() {
    let gofer = &StandIn::in_memory([pipeline("a")]);
    // How many runs there are after a call with an outcome, and the status, unless it never ends.
    let outcome_of = async |outcome: Outcome| {
        let caller = caller(gofer).await;
        gofer.next("StartRun", [outcome]);
        let answer = tokio::time::timeout(HOUR, caller.start("a")).await;
        gofer.until(|recorded| recorded.in_flight("StartRun") == 0).await;
        (gofer.recorded().runs.len(), answer.ok().map(Result::err))
    };
    let lost = || Status::unavailable("the proxy lost Gofer");

    let (runs, status) = outcome_of(Outcome::Answer).await;
    assert!(runs == 1 && matches!(status, Some(None)));
    let (runs, status) = outcome_of(Outcome::Refuse(lost())).await;
    assert!(runs == 1 && status.unwrap().unwrap().message() == lost().message());
    let (runs, status) = outcome_of(Outcome::ActAndRefuse(lost())).await;
    assert!(runs == 2 && status.unwrap().unwrap().message() == lost().message());
    let (runs, status) = outcome_of(Outcome::ActAndHold).await;
    assert!(runs == 3 && status.is_none());
    let (runs, status) = outcome_of(Outcome::ActAndDisconnect).await;
    assert!(runs == 4 && !is_refused_stream(&status.unwrap().unwrap()));
    let (runs, status) = outcome_of(Outcome::Swallow).await;
    assert!(runs == 4 && status.is_none());
    let (runs, status) = outcome_of(Outcome::Disconnect).await;
    assert!(runs == 4 && !is_refused_stream(&status.unwrap().unwrap()));
    let (runs, status) = outcome_of(Outcome::RefuseStream).await;
    assert!(runs == 4 && is_refused_stream(&status.unwrap().unwrap()));
    let (runs, status) = outcome_of(Outcome::ActLater(2 * HOUR)).await;
    assert!(runs == 4 && status.is_none());
    tokio::time::sleep(HOUR).await;
    gofer.until(|recorded| recorded.runs.len() == 5).await;
    assert_eq!(gofer.recorded().calls("StartRun"), 9);
}

#[tokio::test(start_paused = true)]
async fn a_script_sees_what_was_sent() {
    let gofer = StandIn::in_memory([pipeline("a"), pipeline("b")]);
    gofer.decide("StartRun", |call| {
        match call.message::<proto::StartRunRequest>().pipeline_id.as_str() {
            "a" if call.number > 1 => Outcome::Refuse(Status::internal("not a again")),
            _ => Outcome::Answer,
        }
    });
    let caller = caller(&gofer).await;
    caller.start("a").await.unwrap();
    caller.start("b").await.unwrap();
    assert_eq!(caller.start("a").await.unwrap_err().code(), Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn held_answers_are_released_by_the_test() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.decide("StartRun", |_| Outcome::ActAndHold);
    let caller = caller(&gofer).await;
    let first = caller.begin(&gofer, "a").await;
    gofer.release_one();
    assert_eq!(within(first).await.unwrap().unwrap(), 1);
    let second = caller.begin(&gofer, "a").await;
    assert!(!second.is_finished());
    gofer.release();
    assert_eq!(within(second).await.unwrap().unwrap(), 2);
    assert_eq!(caller.start("a").await.unwrap(), 3);
}

fn starts_a_run() -> Builder {
    probe().serve(|probe, subscription| async move {
        let run = subscription.start_run(gofer_sdk::Run::because("of a test")).await?;
        probe.record(format!("started {}", run.id()));
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn an_extension_starts_runs_in_memory() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.stop_listening().await;
    gofer.network().connect().await.err().expect("refused");
    let extension = gofer.start(starts_a_run()).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!extension.probe.seen().has("started 1"));
    gofer.listen();
    extension.probe.until_seen("started 1").await;
    let probe = extension.kill().await;
    assert!(probe.seen().running.is_empty());
    let again = gofer.start(starts_a_run()).await;
    again.client.subscribe("a", &[]).await.unwrap();
    again.probe.until_seen("started 2").await;
    again.shut_down().await;
    gofer.until(|recorded| recorded.open_connections == 0).await;
}

#[tokio::test]
async fn an_extension_starts_runs_over_tls() {
    let gofer = Arc::new(StandIn::listening([pipeline("a"), pipeline("b")]));
    let setup = Setup { limits: long_grace(), gofer: Some(gofer.address()) };
    let (probe, _started, client) = starts_a_run().start(setup).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 1").await;
    gofer.stop_listening().await;
    gofer.disconnect();
    gofer.until(|recorded| recorded.open_connections == 0).await;
    tokio::net::TcpStream::connect(gofer.address()).await.unwrap_err();
    client.subscribe("b", &[]).await.unwrap();
    gofer.listen();
    gofer.until(|recorded| recorded.runs_of("b").count() == 1).await;
    let connection = Connection::open(gofer.address(), [bearer(TOKEN)]).await;
    let runs = Caller(GoferClient::new(connection)).page("b", 0, 0).await;
    assert_eq!(runs[0].initiator.as_ref().unwrap().name, "probe (l)");
}

#[tokio::test(start_paused = true)]
async fn earlier_runs_and_another_clock_can_be_set() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let hour_ago = gofer.clock().unix_millis() - 3_600_000;
    let earlier = Run { pipeline: "a".to_owned(), started: hour_ago, ..Run::default() };
    assert_eq!(gofer.add_run(earlier), 1);
    gofer.set_clock_ahead(3_600_000);
    let caller = caller(&gofer).await;
    caller.start("a").await.unwrap();
    let runs = caller.page("a", 0, 0).await;
    assert_eq!(runs[0].started - runs[1].started, 7_200_000);
    assert_eq!(runs[1].state(), RunState::Complete);
}

/// A real Gofer does not bound its messages.
#[tokio::test]
async fn a_long_message_of_gofer_arrives_bounded() {
    let gofer = StandIn::listening([pipeline("nightly")]);
    let client = Gofer::builder(gofer.address().to_string())
        .ca_certificate(&IDENTITY.certificate)
        .token(TOKEN)
        .build()
        .unwrap();
    for text in ["a", "🦀"] {
        let refused = Status::failed_precondition(format!("no run {}", text.repeat(20_000)));
        gofer.next("GetRun", [Outcome::Refuse(refused)]);
        let error = client.run("nightly", 1).await.unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{shown}");
        assert!(shown.contains(&format!("no run {text}")) && shown.ends_with('…'), "{shown}");
        assert!(shown.len() < 5000, "{shown}");
    }
    assert_eq!(gofer.recorded().connections, 1);
}

/// Gofer tells the extension first, and then refuses what it has stored already.
#[tokio::test(start_paused = true)]
async fn what_runs_is_what_gofer_has_stored() {
    let gofer = StandIn::in_memory([pipeline("nightly"), pipeline("new")]);
    let extension = probe().serve(|probe, subscription| async move {
        let value = &subscription.params().value;
        probe.record(format!("begin {value}"));
        subscription.cancelled().await;
        probe.record("end");
        Ok(())
    });
    let Running { probe, client, .. } = &gofer.start(extension).await;
    client.subscribe("nightly", &[("value", "one")]).await.unwrap();
    probe.until_seen("begin one").await;
    gofer.store_subscription("nightly", &[("VALUE", "global_secret{{ one }}")]);
    // What is stored is not compared with a reference, which may have been either.
    client.subscribe("nightly", &[("value", "two")]).await.unwrap();
    probe.until_seen("begin two").await;

    client.subscribe("new", &[("value", "one")]).await.unwrap();
    gofer.store_subscription("new", &[("value", "one")]);
    for _ in 0..2 {
        let refused = client.subscribe("new", &[("value", "three")]).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
        assert!(refused.message().contains("delete that subscription first"), "{refused}");
    }
    assert_eq!(probe.seen().count("begin one"), 2);
    assert!(!probe.seen().has("begin three"));
    // Nothing is asked about what does not change.
    let asked = gofer.recorded().calls("GetPipelineExtensionSubscription");
    client.subscribe("new", &[("value", "one")]).await.unwrap();
    assert_eq!(gofer.recorded().calls("GetPipelineExtensionSubscription"), asked);
    client.unsubscribe("new").await.unwrap();
    client.subscribe("new", &[("value", "three")]).await.unwrap();
    probe.until_seen("begin three").await;
    // If Gofer is silent or gone, the change is accepted.
    gofer.next("GetPipelineExtensionSubscription", [Outcome::Swallow]);
    let begun = Instant::now();
    client.subscribe("new", &[("value", "four")]).await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    gofer.stop_listening().await;
    gofer.disconnect();
    client.subscribe("new", &[("value", "five")]).await.unwrap();
    probe.until_seen("begin five").await;
}
