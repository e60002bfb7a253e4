//! Following events: a follower receives each one once and in order, however often it is
//! disconnected, and none after its token is revoked or expires. And a stream says where it begins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::caller::Caller;
use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::follow_events_response::Part;
use gofer_proto::embedded::{FollowEventsRequest, FollowEventsResponse};
use gofer_sdk::Run;
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

/// Concurrent tasks that start runs.
const STARTERS: usize = 8;

/// Runs that each of them starts.
const RUNS: usize = 100;

/// The number of tasks if they start runs for as long as there are outages.
const MOST_RUNS: usize = 500;

/// Outages, each of about a second, the time that open streams have to end.
const OUTAGES: usize = 4;

/// Longer than anything here takes on a busy machine.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);

async fn follow(caller: &Caller) -> Result<Streaming<proto::ListEventsResponse>, Status> {
    let request = proto::ListEventsRequest { reverse: false, follow: true };
    Ok(caller.api().list_events(request).await?.into_inner())
}

/// The number of the newest event.
async fn newest(core: &Core) -> i64 {
    let mut events = core.client().events().await.unwrap();
    let mut last = 0;
    while let Some(event) = events.next().await.unwrap() {
        last = event.id;
    }
    last
}

/// Starts runs at a core that is away now and then; the events show how many were started. After
/// each batch, a task asks whether to start another.
async fn load(
    core: &Core,
    goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> JoinSet<()> {
    let mut starters = JoinSet::new();
    for n in 0..STARTERS {
        let pipeline = format!("pipeline-{n}");
        let config = proto::UserPipelineConfig { id: pipeline.clone(), ..Default::default() };
        let request = proto::RegisterPipelineConfigRequest {
            pipeline_config: Some(config),
            ..Default::default()
        };
        core.client().api().register_pipeline_config(request).await.unwrap();
        let (core, goes_on) = (core.clone(), goes_on.clone());
        starters.spawn(async move {
            for started in 0.. {
                if !goes_on(started) {
                    break;
                }
                let run = Run::because("of a test");
                let _ = core.client().start_run(&*pipeline, "load", run).await;
            }
        });
    }
    starters
}

/// A follower that skips the events it has seen.
#[derive(Default)]
struct Follower {
    last: i64,
    completed: usize,
}

impl Follower {
    /// Follows on one stream up to an event, or until it is cut off.
    async fn follow(
        &mut self,
        events: &mut Streaming<proto::ListEventsResponse>,
        most: usize,
        to: i64,
    ) {
        let mut before = 0;
        for _ in 0..most {
            let Ok(Some(response)) = events.message().await else { break };
            let event = response.event.unwrap();
            assert_eq!(event.id, before + 1, "a gap or a repeat within one stream");
            before = event.id;
            if event.id > self.last {
                assert_eq!(event.id, self.last + 1, "a gap between two streams");
                self.last = event.id;
                self.completed += usize::from(event.r#type == "RUN_COMPLETED");
            }
            if event.id >= to {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_connection_breaks_again_and_again_sees_each_event_once() {
    let core = Core::on_loopback().await.unwrap();
    let mut starters = load(&core, |started| started < RUNS).await;
    let mut follower = Follower::default();
    let all = async {
        while !starters.is_empty() {
            let caller = Caller::of(&core).await.with(core.token());
            let mut events = follow(&caller).await.unwrap();
            // Somewhere in what it has seen, or a little after it.
            let seen = usize::try_from(follower.last).unwrap();
            let most = fastrand::usize(seen / 2..seen + 200);
            tokio::select! {
                () = follower.follow(&mut events, most, i64::MAX) => {}
                Some(ended) = starters.join_next() => ended.unwrap(),
            }
            // Dropping the two closes the connection.
        }
        let to = newest(&core).await;
        let caller = Caller::of(&core).await.with(core.token());
        follower.follow(&mut follow(&caller).await.unwrap(), usize::MAX, to).await;
        assert_eq!(follower.last, to);
    };
    tokio::time::timeout(HANG_TIMEOUT, all).await.expect("events are missing");
    assert_eq!(follower.completed, STARTERS * RUNS);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_each_event_once_however_often_the_api_is_closed() {
    let core = Core::on_loopback().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut starters = load(&core, {
        let done = Arc::clone(&done);
        move |started| started < MOST_RUNS && !done.load(Ordering::SeqCst)
    })
    .await;
    let outages = tokio::spawn({
        let core = core.clone();
        async move {
            for _ in 0..OUTAGES {
                // Any instant will do.
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..200))).await;
                core.close_api().await;
                core.reopen_api().await.unwrap();
            }
            done.store(true, Ordering::SeqCst);
        }
    });
    let mut follower = Follower::default();
    let all = async {
        while !starters.is_empty() {
            // With the core's own client, which reconnects by itself.
            let Ok(mut events) = core.client().follow_events().await else { continue };
            let mut before = 0;
            loop {
                tokio::select! {
                    next = events.next() => {
                        let Ok(Some(event)) = next else { break };
                        assert_eq!(event.id, before + 1, "a gap or a repeat within one stream");
                        before = event.id;
                        if event.id > follower.last {
                            assert_eq!(event.id, follower.last + 1, "a gap between two streams");
                            follower.last = event.id;
                        }
                    }
                    Some(ended) = starters.join_next() => {
                        ended.unwrap();
                        if starters.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
        outages.await.unwrap();
        let to = newest(&core).await;
        let caller = Caller::of(&core).await.with(core.token());
        follower.follow(&mut follow(&caller).await.unwrap(), usize::MAX, to).await;
        assert_eq!(follower.last, to);
    };
    tokio::time::timeout(HANG_TIMEOUT, all).await.expect("events are missing");
    core.stop().await;
}

async fn token(core: &Core, expires: &str) -> String {
    let request = proto::CreateTokenRequest {
        kind: Kind::Client.into(),
        namespaces: vec!["default".to_owned()],
        expires: if expires.is_empty() { "24h" } else { expires }.to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

/// The status with which a stream ends.
async fn end(events: &mut Streaming<proto::ListEventsResponse>) -> Code {
    let ended = async {
        loop {
            match events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    };
    tokio::time::timeout(HANG_TIMEOUT, ended).await.expect("the stream goes on")
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_disabled_or_deleted() {
    let core = Core::on_loopback().await.unwrap();
    let caller = Caller::of(&core).await;
    let (disabled, deleted, kept) =
        (token(&core, "").await, token(&core, "").await, token(&core, "").await);
    let mut until_disabled = follow(&caller.with(&disabled)).await.unwrap();
    let mut until_deleted = follow(&caller.with(&deleted)).await.unwrap();
    let mut goes_on = follow(&caller.with(&kept)).await.unwrap();
    let mut api = core.client().api();
    api.disable_token(proto::DisableTokenRequest { token: disabled }).await.unwrap();
    assert_eq!(end(&mut until_disabled).await, Code::Unauthenticated);
    api.delete_token(proto::DeleteTokenRequest { token: deleted }).await.unwrap();
    assert_eq!(end(&mut until_deleted).await, Code::Unauthenticated);

    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    api.register_pipeline_config(request).await.unwrap();
    let next = tokio::time::timeout(HANG_TIMEOUT, goes_on.message()).await.unwrap().unwrap();
    assert_eq!(next.unwrap().event.unwrap().r#type, "PIPELINE_REGISTERED");
    core.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let core = Core::on_loopback().await.unwrap();
    let token = token(&core, "2s").await;
    let caller = Caller::of(&core).await.with(&token);
    let outcome = match follow(&caller).await {
        Ok(mut events) => end(&mut events).await,
        // The machine may be busy.
        Err(status) => status.code(),
    };
    assert_eq!(outcome, Code::Unauthenticated);
    core.stop().await;
}

/// Follows from an event, with the stream that says where it begins.
async fn follow_after(caller: &Caller, after: Option<i64>) -> Streaming<FollowEventsResponse> {
    let mut core = EmbeddedCoreClient::new(caller.0.clone());
    core.follow_events(FollowEventsRequest { after }).await.unwrap().into_inner()
}

async fn part(events: &mut Streaming<FollowEventsResponse>) -> Part {
    let message = tokio::time::timeout(HANG_TIMEOUT, events.message()).await.expect("it hangs");
    message.unwrap().unwrap().part.unwrap()
}

async fn register(core: &Core, namespace: &str, pipeline: &str) {
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace.to_owned(),
        pipeline_config: Some(config),
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

#[tokio::test]
async fn a_stream_says_where_it_begins_and_goes_on_from_there() {
    let core = Core::on_loopback().await.unwrap();
    register(&core, "", "a").await;
    let caller = Caller::of(&core).await.with(core.token());
    let newest = newest(&core).await;
    assert!(newest >= 2);
    for (after, begins) in [
        (None, newest),
        (Some(newest), newest),
        (Some(0), 0),
        (Some(1), 1),
        // There have never been that many.
        (Some(newest + 100), newest),
        (Some(i64::MAX), newest),
        (Some(-1), 0),
    ] {
        let mut events = follow_after(&caller, after).await;
        assert_eq!(part(&mut events).await, Part::Position(begins), "after {after:?}");
        for expected in begins + 1..=newest {
            let Part::Event(event) = part(&mut events).await else { panic!() };
            assert_eq!(event.id, expected);
        }
    }
    let mut events = follow_after(&caller, None).await;
    assert_eq!(part(&mut events).await, Part::Position(newest));
    register(&core, "", "a").await;
    let Part::Event(event) = part(&mut events).await else { panic!() };
    assert_eq!((event.id, &*event.r#type), (newest + 1, "PIPELINE_CONFIG_REGISTERED"));
    core.stop().await;
}

/// So that a follower that comes back does not begin before what it has been spared.
#[tokio::test]
async fn a_stream_says_where_it_is_while_there_is_nothing_to_see() {
    let core = Core::on_loopback().await.unwrap();
    let mut api = core.client().api();
    for id in ["here", "elsewhere"] {
        let namespace = proto::CreateNamespaceRequest { id: id.to_owned(), ..Default::default() };
        api.create_namespace(namespace).await.unwrap();
    }
    let request = proto::CreateTokenRequest {
        kind: Kind::Client.into(),
        namespaces: vec!["here".to_owned()],
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let token = api.create_token(request).await.unwrap().into_inner().token;
    let caller = Caller::of(&core).await.with(&token);
    let mut events = follow_after(&caller, None).await;
    let Part::Position(begins) = part(&mut events).await else { panic!() };
    for _ in 0..400 {
        register(&core, "elsewhere", "hidden").await;
    }
    register(&core, "here", "seen").await;
    let mut position = begins;
    let event = loop {
        match part(&mut events).await {
            Part::Position(next) => {
                assert!(next >= position + 256, "{next} after {position}");
                position = next;
            }
            Part::Event(event) => break event,
        }
    };
    assert!(position > begins);
    assert_eq!(event.r#type, "PIPELINE_REGISTERED");
    assert!(event.details.contains("seen"), "{event:?}");
    core.stop().await;
}
