//! Following events: each once and in order, from an embedded core and from a full Gofer, across
//! lost connections and restarts.

use std::time::Duration;

use crate::support::probe::probe;
use crate::support::stand_in::{Outcome, StandIn, pipeline};
use crate::support::within;
use gofer_core::{Core, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{Error, ErrorKind, EventFilter, EventFollower, Gofer, PipelineId, Run, RunInfo};
use tonic::{Code, Status};

const NIGHTLY: &str = "default/nightly";

async fn register(core: &Core, pipeline: &str) {
    let config = proto::UserPipelineConfig { id: pipeline.to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

/// How long a run takes is in its variable `SECONDS`.
async fn take_time(run: RunInfo) -> Result<(), Error> {
    let time = run.variable("SECONDS").map_or(0, |text| text.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(time)).await;
    Ok(())
}

async fn core() -> Core {
    let core = Core::builder().runs_at_a_time(1000).run_handler(take_time).start().await.unwrap();
    register(&core, "nightly").await;
    register(&core, "weekly").await;
    core
}

async fn run_for(core: &Core, pipeline: &str, seconds: u64) -> i64 {
    let run = Run::because("of a test").variable("SECONDS", seconds.to_string());
    core.client().start_run(pipeline, "test", run).await.unwrap().id()
}

fn ends() -> EventFilter {
    EventFilter::all().kind("RUN_COMPLETED").pipeline(NIGHTLY)
}

/// The runs of the next events.
async fn next_runs(events: &mut EventFollower, count: usize) -> Vec<i64> {
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(within(events.next()).await.unwrap().run().unwrap());
    }
    runs
}

async fn is_idle(events: &mut EventFollower) -> bool {
    tokio::time::timeout(Duration::from_secs(60), events.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn it_begins_with_what_happens_after_it_was_asked_for() {
    let core = core().await;
    run_for(&core, NIGHTLY, 0).await;
    let mut first = core.client().follow(ends()).await.unwrap();
    run_for(&core, NIGHTLY, 0).await;
    let mut second = core.client().follow(ends()).await.unwrap();
    run_for(&core, NIGHTLY, 0).await;
    assert_eq!(next_runs(&mut first, 2).await, [2, 3]);
    assert_eq!(next_runs(&mut second, 1).await, [3]);
    assert!(is_idle(&mut first).await && is_idle(&mut second).await);
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_what_its_filter_lets_through() {
    let core = core().await;
    let gofer = core.client();
    let mut all = gofer.follow(EventFilter::all()).await.unwrap();
    let mut ends = gofer.follow(EventFilter::all().kind("RUN_COMPLETED")).await.unwrap();
    let mut weekly = gofer.follow(EventFilter::all().pipeline("weekly")).await.unwrap();
    let either = EventFilter::all().kind("RUN_STARTED").pipeline("weekly").pipeline(NIGHTLY);
    let mut starts = gofer.follow(either).await.unwrap();
    run_for(&core, NIGHTLY, 0).await;
    run_for(&core, "default/weekly", 0).await;
    let seen = async |events: &mut EventFollower, count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            let event = within(events.next()).await.unwrap();
            let pipeline = event.pipeline().as_ref().map(PipelineId::pipeline).map(str::to_owned);
            seen.push((event.kind, pipeline.unwrap()));
        }
        assert!(is_idle(events).await);
        seen
    };
    assert_eq!(seen(&mut all, 4).await.len(), 4);
    let event = |kind: &str, pipeline: &str| (kind.to_owned(), pipeline.to_owned());
    let (started, completed) = ("RUN_STARTED", "RUN_COMPLETED");
    assert_eq!(seen(&mut ends, 2).await, [event(completed, "nightly"), event(completed, "weekly")]);
    assert_eq!(seen(&mut weekly, 2).await, [event(started, "weekly"), event(completed, "weekly")]);
    assert_eq!(seen(&mut starts, 2).await, [event(started, "nightly"), event(started, "weekly")]);
}

#[tokio::test(start_paused = true)]
async fn what_happens_during_an_outage_comes_once_it_is_over() {
    let core = core().await;
    let mut events = core.client().follow(ends()).await.unwrap();
    for seconds in [1, 30, 20, 10, 150] {
        run_for(&core, NIGHTLY, seconds).await;
    }
    assert_eq!(next_runs(&mut events, 1).await, [1]);
    for expected in [vec![4, 3, 2], vec![5]] {
        core.close_api().await;
        assert!(is_idle(&mut events).await);
        core.reopen_api().await.unwrap();
        assert_eq!(next_runs(&mut events, expected.len()).await, expected);
        assert!(is_idle(&mut events).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_a_gofer_that_is_away() {
    let core = core().await;
    run_for(&core, NIGHTLY, 5).await;
    core.close_api().await;
    let gofer = core.client().clone();
    let mut waiting = tokio::spawn(async move { gofer.follow(ends()).await });
    assert!(tokio::time::timeout(Duration::from_secs(600), &mut waiting).await.is_err());
    core.reopen_api().await.unwrap();
    let mut events = within(waiting).await.unwrap().unwrap();
    run_for(&core, NIGHTLY, 5).await;
    assert_eq!(next_runs(&mut events, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_read_loses_nothing_and_delays_no_other() {
    const RUNS: i64 = 400;
    let core = core().await;
    let mut slow = core.client().follow(ends()).await.unwrap();
    let mut fast = core.client().follow(ends()).await.unwrap();
    for run in 1..=RUNS {
        assert_eq!(run_for(&core, NIGHTLY, 0).await, run);
        assert_eq!(next_runs(&mut fast, 1).await, [run]);
    }
    // The rest happens while it catches up, and afterwards.
    for run in 1..=RUNS {
        if run % 3 == 0 {
            run_for(&core, NIGHTLY, 0).await;
        }
        if run == RUNS / 2 {
            core.close_api().await;
            core.reopen_api().await.unwrap();
        }
        assert_eq!(next_runs(&mut slow, 1).await, [run]);
    }
    let rest: Vec<_> = (RUNS + 1..=RUNS + RUNS / 3).collect();
    assert_eq!(next_runs(&mut slow, rest.len()).await, rest);
    assert_eq!(next_runs(&mut fast, rest.len()).await, rest);
    assert!(is_idle(&mut slow).await && is_idle(&mut fast).await);
    // Left behind and alone.
    drop(fast);
    for _ in 0..200 {
        run_for(&core, NIGHTLY, 0).await;
    }
    let first = RUNS + RUNS / 3 + 1;
    let rest: Vec<_> = (first..first + 200).collect();
    assert_eq!(next_runs(&mut slow, rest.len()).await, rest);
    assert!(is_idle(&mut slow).await);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_loses_no_event() {
    let core = core().await;
    let mut events = core.client().follow(ends()).await.unwrap();
    for run in 1..=150 {
        run_for(&core, NIGHTLY, u64::try_from(run).unwrap()).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 150 {
        if seen.len() == 40 {
            // Far enough behind to be left there.
            core.elapse(minutes(5)).await;
        }
        // Each time after another number of polls.
        let mut polls = seen.len() % 7;
        let some_polls = std::future::poll_fn(|task| {
            if polls == 0 {
                return std::task::Poll::Ready(());
            }
            polls -= 1;
            task.waker().wake_by_ref();
            std::task::Poll::Pending
        });
        tokio::select! {
            biased;
            event = events.next() => seen.push(event.unwrap().run().unwrap()),
            () = some_polls => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    assert!(seen.iter().copied().eq(1..=150), "{seen:?}");
    assert!(is_idle(&mut events).await);
}

#[tokio::test(start_paused = true)]
async fn many_begin_at_once() {
    let core = core().await;
    let all: Vec<_> = (0..2000)
        .map(|_| {
            let gofer = core.client().clone();
            tokio::spawn(async move { gofer.follow(ends()).await.unwrap() })
        })
        .collect();
    let mut followers = Vec::new();
    for follower in all {
        followers.push(within(follower).await.unwrap());
    }
    run_for(&core, NIGHTLY, 0).await;
    for follower in &mut followers {
        assert_eq!(next_runs(follower, 1).await, [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_the_last_follower_and_another_one_begins() {
    let core = core().await;
    for round in 1..=3 {
        let mut events = core.client().follow(ends()).await.unwrap();
        let other = core.client().follow(ends()).await.unwrap();
        run_for(&core, NIGHTLY, 0).await;
        assert_eq!(next_runs(&mut events, 1).await, [round]);
        drop((events, other));
        core.elapse(seconds(1)).await;
    }
}

#[tokio::test]
async fn a_token_that_is_deleted_ends_its_followers() {
    let core = Core::on_loopback().await.unwrap();
    register(&core, "nightly").await;
    let mut api = core.client().api();
    let request = proto::CreateTokenRequest {
        kind: proto::token::Kind::Management.into(),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let token = api.create_token(request).await.unwrap().into_inner().token;
    let gofer = Gofer::builder(core.address().unwrap().to_string())
        .token(&*token)
        .ca_certificate(core.certificate())
        .build()
        .unwrap();
    let mut events = gofer.follow(ends()).await.unwrap();
    api.delete_token(proto::DeleteTokenRequest { token }).await.unwrap();
    for _ in 0..2 {
        let error = within(events.next()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    }
    let error = within(gofer.follow(ends())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    core.stop().await;
}

#[tokio::test]
async fn it_goes_on_after_a_restart_of_the_core() {
    let directory = std::env::temp_dir().join(format!("gofer-sdk-follow-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let start = async |store: &str, port: u16| {
        let core = Core::builder().listen(([127, 0, 0, 1], port)).store(directory.join(store));
        core.start().await.unwrap()
    };
    let core = start("store", 0).await;
    let address = core.address().unwrap();
    register(&core, "nightly").await;
    let request = proto::CreateTokenRequest {
        kind: proto::token::Kind::Management.into(),
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let token = core.client().api().create_token(request).await.unwrap().into_inner().token;
    let gofer = Gofer::builder(address.to_string())
        .token(token)
        .ca_certificate(core.certificate())
        .build()
        .unwrap();
    let mut events = gofer.follow(ends()).await.unwrap();
    run_for(&core, NIGHTLY, 0).await;
    run_for(&core, NIGHTLY, 0).await;
    assert_eq!(next_runs(&mut events, 1).await, [1]);
    core.stop().await;
    let core = start("store", address.port()).await;
    run_for(&core, NIGHTLY, 0).await;
    assert_eq!(next_runs(&mut events, 2).await, [2, 3]);
    core.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The client of an extension whose Gofer is a stand-in.
async fn client(gofer: &StandIn) -> (Gofer, crate::support::stand_in::Running) {
    let running = gofer.start(probe()).await;
    (running.probe.gofer(), running)
}

fn publish(gofer: &StandIn, run: i64) {
    let details = serde_json::json!({
        "namespace_id": "default", "pipeline_id": "nightly", "run_id": run,
    });
    gofer.publish("RUN_COMPLETED", &details);
}

#[tokio::test(start_paused = true)]
async fn on_a_full_gofer_it_asks_for_the_next_number() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, _running) = client(&gofer).await;
    publish(&gofer, 1);
    let mut events = client.follow(ends()).await.unwrap();
    let mut others = client.follow(ends().kind("RUN_STARTED")).await.unwrap();
    publish(&gofer, 2);
    publish(&gofer, 3);
    assert_eq!(next_runs(&mut events, 2).await, [2, 3]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    publish(&gofer, 4);
    assert_eq!(next_runs(&mut events, 1).await, [4]);
    assert_eq!(next_runs(&mut others, 3).await, [2, 3, 4]);
    // One question a second, and now and then for the newest number.
    assert!((3600..3700).contains(&gofer.recorded().calls("GetEvent")));
    assert!((300..400).contains(&gofer.recorded().calls("ListEvents")));
    drop((events, others));
    let before = gofer.recorded().calls("GetEvent");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(gofer.recorded().calls("GetEvent") <= before + 1, "nobody follows any more");
}

#[tokio::test(start_paused = true)]
async fn on_a_full_gofer_numbers_may_be_missing() {
    for not_found in [Code::FailedPrecondition, Code::Internal, Code::Unknown] {
        let gofer = StandIn::in_memory([pipeline("nightly")]);
        gofer.not_found_is(not_found);
        let (client, _running) = client(&gofer).await;
        let mut events = client.follow(ends()).await.unwrap();
        // The number 1 is the pipeline's.
        for missing in [2, 4, 5, 6, 8, 100] {
            gofer.remove_event(missing);
        }
        for number in 2..=120 {
            publish(&gofer, number);
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
        let missing = [2, 4, 5, 6, 8, 100];
        let expected: Vec<_> = (2..=120).filter(|number| !missing.contains(number)).collect();
        assert_eq!(next_runs(&mut events, expected.len()).await, expected);
        assert!(is_idle(&mut events).await);
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_full_gofer_failures_lose_and_repeat_nothing() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, _running) = client(&gofer).await;
    let mut events = client.follow(ends()).await.unwrap();
    gofer.decide("GetEvent", |call| match call.number % 8 {
        1 => Outcome::Disconnect,
        2 => Outcome::Refuse(Status::internal("database is locked")),
        3 => Outcome::Refuse(Status::unavailable("it is restarting")),
        4 => Outcome::ActAndDisconnect,
        5 => Outcome::Swallow,
        6 => Outcome::RefuseStream,
        _ => Outcome::Answer,
    });
    for number in 1..=30 {
        publish(&gofer, number);
        if number % 10 == 0 {
            gofer.restart();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    assert!(next_runs(&mut events, 30).await.into_iter().eq(1..=30));
    gofer.stop_listening().await;
    gofer.disconnect();
    publish(&gofer, 31);
    assert!(is_idle(&mut events).await);
    gofer.listen();
    assert_eq!(next_runs(&mut events, 1).await, [31]);
}

#[tokio::test(start_paused = true)]
async fn on_a_full_gofer_with_another_store_it_goes_on_from_the_newest() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, _running) = client(&gofer).await;
    for number in 1..=20 {
        publish(&gofer, number);
    }
    let mut events = client.follow(ends()).await.unwrap();
    gofer.forget_events();
    publish(&gofer, 1);
    gofer.restart();
    let error = within(events.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    publish(&gofer, 2);
    assert_eq!(next_runs(&mut events, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_behind_does_not_go_on_in_another_store() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, _running) = client(&gofer).await;
    let mut events = client.follow(ends()).await.unwrap();
    // The queue of a follower that does not read has room for 64.
    let read = |from: i64, to: i64| {
        (from..=to).for_each(|run| publish(&gofer, run));
        tokio::time::sleep(Duration::from_secs(60))
    };
    read(1, 200).await;
    gofer.forget_events();
    gofer.restart();
    // Fewer than before, and more than the follower has got.
    read(1001, 1150).await;
    assert!(next_runs(&mut events, 64).await.into_iter().eq(1..=64));
    let error = within(events.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    read(1151, 1152).await;
    assert_eq!(next_runs(&mut events, 2).await, [1151, 1152]);
    assert!(is_idle(&mut events).await);
}

#[tokio::test(start_paused = true)]
async fn on_a_full_gofer_very_many_numbers_may_be_missing() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, _running) = client(&gofer).await;
    let mut events = client.follow(ends()).await.unwrap();
    (2..5_000).for_each(|number| gofer.remove_event(number));
    (2..=5_000).for_each(|number| publish(&gofer, number));
    let error = within(events.next()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    publish(&gofer, 7);
    assert_eq!(next_runs(&mut events, 1).await, [7]);
    assert!(gofer.recorded().calls("GetEvent") < 1100);
}

#[tokio::test(start_paused = true)]
async fn followers_end_with_the_extension() {
    let gofer = StandIn::in_memory([pipeline("nightly")]);
    let (client, running) = client(&gofer).await;
    let mut events = client.follow(ends()).await.unwrap();
    let next = tokio::spawn(async move { (events.next().await, events.next().await) });
    running.shut_down().await;
    let (first, second) = within(next).await.unwrap();
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let error = within(client.follow(ends())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
