//! Every run once, on a Gofer that keeps keys and enforces nothing: the stand-in for a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gofer_net::Clock;
use gofer_net::memory::Network;
use gofer_net::tls::Trust;
use gofer_proto::{
    GetSystemInfoRequest, ListRunsRequest, PutPipelineObjectRequest, Run as WireRun,
};
use gofer_sdk::internal::serve_embedded;
use gofer_sdk::{ErrorKind, Run};
use http::StatusCode;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use crate::support::probe::{Builder, Probed, interval, probe};
use crate::support::stand_in::{Outcome, Recorded, StandIn, pipeline};
use crate::support::{Client, Connection, Setup, TOKEN, bearer};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Starts a run for each of these reasons, one after the other, and records their numbers.
fn starts(reasons: &'static [&'static str]) -> Builder {
    probe().serve(move |probe, subscription| async move {
        for reason in reasons {
            let run = subscription.start_run(Run::because(*reason)).await?;
            probe.record(format!("{reason}: {}", run.id()));
        }
        subscription.cancelled().await;
        Ok(())
    })
}

/// Starts a run with a key, and records its number.
fn starts_with_key() -> Builder {
    probe().serve(|probe, subscription| async move {
        let run = subscription.start_run(Run::because("a push").key("delivery-7")).await?;
        probe.record(format!("started {}", run.id()));
        subscription.cancelled().await;
        Ok(())
    })
}

fn reasons(recorded: &Recorded, pipeline: &str) -> Vec<String> {
    let reason = |run: &WireRun| run.initiator.as_ref().map_or("", |it| &it.reason).to_owned();
    recorded.runs_of(pipeline).map(reason).collect()
}

fn variable<'a>(run: &'a WireRun, name: &str) -> Option<&'a str> {
    run.variables.iter().find(|it| it.key == name).map(|it| &*it.value)
}

/// Waits for what may take days of the test's time.
async fn eventually(gofer: &StandIn, condition: impl Fn(&Recorded) -> bool) {
    for _ in 0..100_000 {
        if condition(&gofer.recorded()) {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("it does not happen");
}

/// Adds runs that others start.
fn others(gofer: &StandIn, count: usize) {
    for _ in 0..count {
        let run = WireRun {
            namespace: "default".to_owned(),
            pipeline: "a".to_owned(),
            ..WireRun::default()
        };
        gofer.add_run(run);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_author_dropped_is_not_taken_for_the_next_one() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.next("StartRun", [Outcome::ActAndHold]);
    let extension = probe().serve(|probe, subscription| async move {
        let dropped = subscription.start_run(Run::because("the first commit"));
        timeout(Duration::from_millis(500), dropped).await.unwrap_err();
        let run = subscription.start_run(Run::because("the second commit")).await?;
        probe.record(format!("started {}", run.id()));
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("started 2").await;
    let recorded = gofer.recorded();
    assert_eq!(reasons(&recorded, "a"), ["the first commit", "the second commit"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_response_got_lost_is_found_behind_many_others() {
    let gofer = Arc::new(StandIn::in_memory([pipeline("a")]));
    let extension = gofer.start(starts(&["first", "lost"])).await;
    gofer.next("StartRun", [Outcome::Answer, Outcome::ActAndDisconnect]);
    // As many as start during an outage, before the run is looked up.
    gofer.decide("ListRuns", {
        let gofer = Arc::downgrade(&gofer);
        move |call| {
            if call.number == 2 {
                others(&gofer.upgrade().unwrap(), 700);
                return Outcome::Disconnect;
            }
            Outcome::Answer
        }
    });
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("lost: 2").await;
    assert_eq!(gofer.recorded().calls("StartRun"), 2);
    assert_eq!(gofer.recorded().runs_of("a").count(), 702);
}

#[tokio::test(start_paused = true)]
async fn of_a_pipeline_whose_runs_are_not_known_the_newest_thousand_are_searched() {
    let gofer = Arc::new(StandIn::in_memory([pipeline("a")]));
    others(&gofer, 1500);
    gofer.next("StartRun", [Outcome::ActAndDisconnect]);
    let extension = gofer.start(starts(&["lost"])).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("lost: 1501").await;
    // One that is not there is looked for in as many, and no more.
    let lists = gofer.recorded().calls("ListRuns");
    gofer.next("StartRun", [Outcome::Disconnect]);
    extension.client.subscribe_as("a", "other", &[]).await.unwrap();
    extension.probe.until_seen("lost: 1502").await;
    assert_eq!(gofer.recorded().calls("ListRuns") - lists, 6, "20 runs, and 5 pages of 200");
}

#[tokio::test(start_paused = true)]
async fn a_held_response_is_not_a_lost_one() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(1)]);
    let extension = gofer.start(starts(&["one", "other"])).await;
    let begun = Instant::now();
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("one: 1").await;
    assert_eq!(begun.elapsed().as_secs(), 2, "looked up after two seconds");
    assert_eq!(gofer.recorded().in_flight("StartRun"), 0, "the stream is reset");
    // The run is pending and holds back the next one.
    sleep(HOUR).await;
    assert_eq!(gofer.recorded().runs_of("a").count(), 1);
    gofer.complete("a", 1);
    extension.probe.until_seen("other: 2").await;
    assert_eq!(gofer.recorded().calls("StartRun"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_at_its_limit_keeps_going_with_one_pending_run() {
    let nightly = pipeline("a").parallelism(2).runs_take(Duration::from_secs(40));
    let gofer = StandIn::in_memory([nightly]);
    let extension = gofer.start(interval()).await;
    extension.client.subscribe("a", &[("every", "5s")]).await.unwrap();
    extension.client.subscribe_as("a", "other", &[("every", "7s")]).await.unwrap();
    sleep(HOUR).await;
    let recorded = gofer.recorded();
    assert_eq!(recorded.most_pending("a"), 1);
    let last = recorded.runs_of("a").last().unwrap().started;
    let now = gofer.clock().unix_millis();
    assert!(now - last < 60_000, "the last run started {} ms ago", now - last);
    assert!(recorded.runs_of("a").count() > 70, "{} runs", recorded.runs_of("a").count());
}

#[tokio::test(start_paused = true)]
async fn a_pending_run_that_gofer_has_forgotten_holds_back_for_five_minutes() {
    let gofer = StandIn::in_memory([pipeline("a").parallelism(1)]);
    let extension = gofer.start(interval()).await;
    extension.client.subscribe("a", &[("every", "10s")]).await.unwrap();
    gofer.until(|recorded| recorded.pending("a") == 1).await;
    sleep(HOUR).await;
    assert_eq!(gofer.recorded().pending("a"), 1, "it may still start");
    gofer.set(pipeline("a").parallelism(3));
    gofer.restart();
    let lost = Instant::now();
    eventually(&gofer, |recorded| recorded.runs_of("a").count() == 2).await;
    let waited = lost.elapsed();
    assert!((5 * MINUTE..6 * MINUTE).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn pipelines_at_their_limit_do_not_delay_another() {
    /// When the runs of the free pipeline started, after the first.
    async fn starts_of_the_free_one(full: usize) -> Vec<i64> {
        let names: Vec<String> = (0..full).map(|n| format!("full-{n}")).collect();
        let gofer = StandIn::in_memory([pipeline("free")]);
        for name in &names {
            gofer.set(pipeline(name.as_str()).parallelism(1));
        }
        let extension = gofer.start(interval()).await;
        for name in names.iter().map(String::as_str).chain(["free"]) {
            extension.client.subscribe(name, &[("every", "5s")]).await.unwrap();
        }
        let begun = gofer.clock().unix_millis();
        sleep(2 * MINUTE).await;
        let recorded = gofer.recorded();
        assert!(names.iter().all(|name| recorded.runs_of(name.as_str()).count() == 1));
        recorded.runs_of("free").map(|run| run.started - begun).collect()
    }
    let (alone, beside) = (starts_of_the_free_one(0).await, starts_of_the_free_one(100).await);
    assert_eq!(alone.len(), beside.len());
    for (alone, beside) in alone.iter().zip(&beside) {
        assert!((beside - alone).abs() <= 200, "at {beside} ms instead of {alone} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_authors_key_is_one_run_in_two_processes() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let first = gofer.start(starts_with_key()).await;
    first.client.subscribe("a", &[]).await.unwrap();
    first.probe.until_seen("started 1").await;
    first.kill().await;
    others(&gofer, 300);
    // It knows a newer run when it repeats the key.
    let second = probe().serve(|probe, subscription| async move {
        let run = subscription.start_run(Run::because("first")).await?;
        probe.record(format!("first {}", run.id()));
        let run = subscription.start_run(Run::because("a push").key("delivery-7")).await?;
        probe.record(format!("started {}", run.id()));
        Ok(())
    });
    let second = gofer.start(second).await;
    second.client.subscribe("a", &[]).await.unwrap();
    second.probe.until_seen("first 302").await;
    second.probe.until_seen("started 1").await;
    // Another label's key is another one.
    second.client.subscribe_as("a", "other", &[]).await.unwrap();
    second.probe.until_seen("started 304").await;
    let recorded = gofer.recorded();
    assert_eq!(recorded.calls("StartRun"), 4);
    let keys = recorded.runs_of("a").filter_map(|run| variable(run, "GOFER_EXTENSION_RUN_KEY"));
    assert_eq!(keys.filter(|key| *key == "delivery-7").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_authors_key_is_looked_up_before_the_first_start_and_others_are_not() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(starts(&["one", "two", "three"])).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("three: 3").await;
    assert_eq!(gofer.recorded().calls("ListRuns"), 1, "whether a run is pending");
    let keyed = gofer.start(starts_with_key()).await;
    keyed.client.subscribe("a", &[]).await.unwrap();
    keyed.probe.until_seen("started 4").await;
    assert_eq!(gofer.recorded().calls("ListRuns"), 3, "and whether it exists");
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_one_run_though_the_extension_is_killed_before_the_response() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.next("StartRun", [Outcome::ActAndHold]);
    let first = gofer.start(interval()).await;
    first.client.subscribe("a", &[("every", "1h")]).await.unwrap();
    eventually(&gofer, |recorded| recorded.in_flight("StartRun") == 1).await;
    first.kill().await;
    let second = gofer.start(interval()).await;
    second.client.subscribe("a", &[("every", "1h")]).await.unwrap();
    sleep(HOUR + MINUTE).await;
    let recorded = gofer.recorded();
    let at = |run: &WireRun| variable(run, "GOFER_EXTENSION_SCHEDULED_AT").unwrap().to_owned();
    let scheduled: Vec<String> = recorded.runs_of("a").map(at).collect();
    let started: Vec<i64> = recorded.runs_of("a").map(|run| run.started).collect();
    assert_eq!(started.len(), 2, "{scheduled:?}");
    assert!((started[1] - started[0] - 3_600_000).abs() < 10, "{started:?}");
    assert_ne!(scheduled[0], scheduled[1]);
}

#[tokio::test(start_paused = true)]
async fn what_certainly_was_not_processed_is_repeated_at_once() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.next("StartRun", [Outcome::RefuseStream]);
    let extension = gofer.start(starts(&["one"])).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("one: 1").await;
    // The run was looked for before the first start only, as a pending one.
    assert_eq!((gofer.recorded().calls("StartRun"), gofer.recorded().calls("ListRuns")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_start_is_repeated_once_its_connection_has_ended() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.next("StartRun", [Outcome::Swallow]);
    let extension = gofer.start(starts(&["one"])).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("one: 1").await;
    let recorded = gofer.recorded();
    assert_eq!((recorded.calls("StartRun"), recorded.runs_of("a").count()), (2, 1));
    assert_eq!((recorded.connections, recorded.open_connections), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn writes_are_repeated_only_if_they_were_not_processed() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    let client = extension.probe.gofer();
    let objects = client.pipeline_objects("a");
    let lost = || Outcome::ActAndRefuse(Status::unavailable("upstream connect error"));
    for (method, times) in [("PutPipelineObject", 1), ("DeletePipelineObject", 1)] {
        gofer.next(method, [lost()]);
        let outcome = match method {
            "PutPipelineObject" => objects.put("k", "v").await,
            _ => objects.delete("k").await,
        };
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable, "{method}");
        assert_eq!(gofer.recorded().calls(method), times, "{method}");
    }
    gofer.next("PutPipelineObject", [Outcome::RefuseStream]);
    objects.put("k", "v").await.unwrap();
    gofer.next("GetPipelineObject", [lost()]);
    assert_eq!(objects.get("k").await.unwrap(), "v");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_includes_its_attempts() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    let client = extension.probe.gofer();
    gofer.decide("ListRuns", |call| match call.number {
        // For about four seconds, and then nothing.
        1..=6 => Outcome::Refuse(Status::unavailable("starting")),
        _ => Outcome::Swallow,
    });
    gofer.decide("ListEvents", |_| Outcome::Swallow);
    let begun = Instant::now();
    let error = client.runs("a", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10);
    let begun = Instant::now();
    let error = client.follow_events().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn questions_that_fail_do_not_keep_others_from_their_cadence() {
    let gofer = StandIn::in_memory(["a", "b", "c", "d", "good"].map(pipeline));
    gofer.decide("ListRuns", |call| match &*call.message::<ListRunsRequest>().pipeline_id {
        "good" => Outcome::Answer,
        _ => Outcome::Refuse(Status::internal("the database is locked")),
    });
    let first = gofer.start(interval()).await;
    first.client.subscribe("good", &[("every", "24h")]).await.unwrap();
    eventually(&gofer, |recorded| recorded.runs_of("good").count() == 1).await;
    first.kill().await;
    let second = gofer.start(interval()).await;
    for name in ["a", "b", "c", "d", "good"] {
        second.client.subscribe(name, &[("every", "24h")]).await.unwrap();
    }
    sleep(23 * HOUR + 59 * MINUTE).await;
    assert_eq!(gofer.recorded().runs_of("good").count(), 1);
    sleep(2 * MINUTE).await;
    assert_eq!(gofer.recorded().runs_of("good").count(), 2, "its cadence goes on");
    // The others were given up after ten minutes, and count from when they were subscribed.
    let lists = gofer.recorded().calls("ListRuns");
    assert!(lists < 200, "{lists} questions");
    assert_eq!(gofer.recorded().runs_of("a").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn starts_of_a_pipeline_take_turns() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = probe().serve(|probe, subscription| async move {
        let busy = subscription.clone();
        subscription.spawn(async move {
            while busy.start_run(Run::because("more")).await.is_ok() {
                // Nothing in between: the next start is asked for at once.
            }
        });
        for _ in 0..5 {
            subscription.start_run(Run::because("the other")).await?;
        }
        probe.record("took its turns");
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("took its turns").await;
    extension.client.unsubscribe("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whether_keys_are_enforced_is_asked_once_for_each_connection() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(interval()).await;
    extension.client.subscribe("a", &[("every", "1s")]).await.unwrap();
    let asked = "EmbeddedCore/GetCapabilities";
    gofer.until(|recorded| recorded.runs_of("a").count() == 5).await;
    assert_eq!(gofer.recorded().calls(asked), 1);
    gofer.disconnect();
    gofer.until(|recorded| recorded.runs_of("a").count() == 10).await;
    assert_eq!(gofer.recorded().calls(asked), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_sdk_sets_cannot_be_set_as_a_variable() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = probe().serve(|probe, subscription| async move {
        for name in ["GOFER_EXTENSION_RUN_KEY", "GOFER_EXTENSION_SCHEDULED_AT"] {
            let run = Run::because("of a test").variable(name, "hunter2");
            let error = subscription.start_run(run.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(error.to_string().contains(name), "{error}");
            let error = probe.gofer().start_run("a", "l", run).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        }
        probe.record("refused");
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    extension.probe.until_seen("refused").await;
    assert_eq!(gofer.recorded().calls("StartRun"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_outside_of_a_subscription_is_one_run_too() {
    let gofer = StandIn::in_memory([pipeline("a"), pipeline("full").parallelism(1)]);
    let extension = gofer.start(probe()).await;
    let client = extension.probe.gofer();
    let lost = Outcome::ActAndRefuse(Status::unavailable("upstream connect error"));
    gofer.next("StartRun", [lost]);
    let run = client.start_run("a", "l", Run::because("a push")).await.unwrap();
    assert_eq!((run.id(), gofer.recorded().runs_of("a").count()), (1, 1));
    // Held responses and pending runs count here too.
    client.start_run("full", "l", Run::because("a push")).await.unwrap();
    let error = client.start_run("full", "l", Run::because("a push")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert_eq!(gofer.recorded().runs_of("full").count(), 1);
    let starts = gofer.recorded().calls("StartRun");
    assert_eq!(starts, 2, "one for each run");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_subscription_cancels_its_starts() {
    let gofer = Arc::new(StandIn::in_memory([pipeline("a")]));
    // As an embedded core does once a pipeline is no longer subscribed.
    let denied = Status::permission_denied("the pipeline is not subscribed");
    gofer.decide("EmbeddedCore/GetCapabilities", |_| Outcome::Swallow);
    gofer.decide("StartRun", move |_| Outcome::Refuse(denied.clone()));
    let extension = probe().serve(|probe, subscription| async move {
        probe.record("starting");
        let error = subscription.start_run(Run::because("of a test")).await.unwrap_err();
        probe.record(format!("{:?}", error.kind()));
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[]).await.unwrap();
    eventually(&gofer, |recorded| recorded.in_flight("EmbeddedCore/GetCapabilities") == 1).await;
    extension.client.unsubscribe("a").await.unwrap();
    extension.probe.until_seen("Cancelled").await;
}

/// A tick that was due when its future was dropped is not lost.
#[tokio::test(start_paused = true)]
async fn a_dropped_wait_for_a_tick_loses_none() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = probe().serve(|probe, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        // Gofer reports meanwhile that there was no run.
        sleep(Duration::from_secs(5)).await;
        // The budget of this task is used up, so that whatever can yield does.
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::consume_budget().await;
        }
        assert!(poll_once(ticks.next()).is_none(), "it yields");
        let tick = timeout(MINUTE, ticks.next()).await.expect("the tick is due");
        assert_eq!(tick.unwrap().count(), 1);
        probe.record("ticked");
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[("every", "4s")]).await.unwrap();
    extension.probe.until_seen("ticked").await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_whose_start_was_dropped_is_one_run() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.next("StartRun", [Outcome::ActAndHold]);
    let extension = probe().serve(|probe, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        let tick = ticks.next().await.unwrap();
        let dropped = subscription.start_run(tick.run("an hour has passed"));
        timeout(Duration::from_millis(500), dropped).await.unwrap_err();
        let run = subscription.start_run(tick.run("an hour has passed")).await?;
        probe.record(format!("started {}", run.id()));
        subscription.cancelled().await;
        Ok(())
    });
    let extension = gofer.start(extension).await;
    extension.client.subscribe("a", &[("every", "1h")]).await.unwrap();
    eventually(&gofer, |recorded| recorded.calls("StartRun") == 1).await;
    extension.probe.until_seen("started 1").await;
    assert_eq!(gofer.recorded().runs_of("a").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tick_whose_serve_failed_is_one_run() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    // It has its effect, whatever it says.
    gofer.next("StartRun", [Outcome::ActAndRefuse(Status::internal("the database is locked"))]);
    let extension = gofer.start(interval()).await;
    extension.client.subscribe("a", &[("every", "1h")]).await.unwrap();
    sleep(HOUR + 5 * MINUTE).await;
    assert_eq!(gofer.recorded().runs_of("a").count(), 1);
    sleep(HOUR).await;
    assert_eq!(gofer.recorded().runs_of("a").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_extension_adds_no_second_pending_run() {
    let nightly = pipeline("a").parallelism(2).runs_take(Duration::from_secs(40));
    let gofer = StandIn::in_memory([nightly]);
    for _ in 0..5 {
        let extension = gofer.start(interval()).await;
        extension.client.subscribe("a", &[("every", "5s")]).await.unwrap();
        sleep(5 * MINUTE).await;
        extension.kill().await;
    }
    let recorded = gofer.recorded();
    assert_eq!(recorded.most_pending("a"), 1);
    assert!(recorded.runs_of("a").count() > 20, "{} runs", recorded.runs_of("a").count());
}

#[tokio::test(start_paused = true)]
async fn a_restart_during_an_outage_keeps_the_grid() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let first = gofer.start(interval()).await;
    first.client.subscribe("a", &[("every", "10m")]).await.unwrap();
    eventually(&gofer, |recorded| recorded.runs_of("a").count() == 1).await;
    first.kill().await;
    gofer.stop_listening().await;
    let second = gofer.start(interval()).await;
    second.client.subscribe("a", &[("every", "10m")]).await.unwrap();
    // Several periods of its own fall due before Gofer can be asked.
    sleep(33 * MINUTE).await;
    gofer.listen();
    sleep(30 * MINUTE).await;
    let recorded = gofer.recorded();
    let at = |run: &WireRun| variable(run, "GOFER_EXTENSION_SCHEDULED_AT").unwrap().to_owned();
    let scheduled: Vec<String> = recorded.runs_of("a").map(at).collect();
    // From the same second of the same tenth minute on.
    let phase = |at: &String| at[15..].to_owned();
    assert!(scheduled.iter().all(|at| phase(at) == phase(&scheduled[0])), "{scheduled:?}");
    assert!(scheduled.len() >= 4, "{scheduled:?}");
}

/// Polls a future once, in the context of no task, and drops it.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// A Gofer that accepts every connection and closes it at once, as a proxy does that has lost it.
#[tokio::test(start_paused = true)]
async fn two_hundred_starts_that_wait_share_their_attempts_to_connect() {
    let (network, to_gofer) = (Network::default(), Network::default());
    let attempts = Arc::new(AtomicUsize::new(0));
    let mut connections = to_gofer.listen();
    tokio::spawn({
        let attempts = Arc::clone(&attempts);
        async move {
            loop {
                drop(connections.accept().await);
                attempts.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let extension = starts(&["one"]);
    let (probe, config) = (extension.build(), Setup::default().system_config());
    let (listener, clock) = (network.listen(), Clock::derived());
    let trust = Trust { skip_verification: true, ..Trust::default() };
    tokio::spawn(serve_embedded::<Probed>(config, listener, to_gofer, trust, clock));
    let stream = network.connect().await.unwrap();
    let client = Client::new(Connection::over(stream, [bearer(TOKEN)]).await);
    client.init(&probe.config()).await.unwrap();
    for n in 0..200 {
        client.subscribe(&format!("p{n}"), &[]).await.unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    let attempts = attempts.load(Ordering::Relaxed);
    assert!((3..20).contains(&attempts), "{attempts} connections in five seconds");
    client.unsubscribe("p7").await.unwrap();
}

/// As one program makes them, with several under way at a time.
async fn calls<Fut>(call: impl Fn(usize) -> Fut) -> usize
where
    Fut: Future<Output = bool> + Send + 'static,
{
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let calls: Vec<_> = (0..100).map(|n| call(caller * 100 + n)).collect();
        callers.spawn(async move {
            let mut failed = 0;
            for call in calls {
                failed += usize::from(!call.await);
            }
            failed
        });
    }
    callers.join_all().await.into_iter().sum()
}

#[tokio::test(start_paused = true)]
async fn no_call_fails_because_its_connection_carries_only_twenty() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    gofer.limit_requests(20);
    let client = extension.probe.gofer();
    let start = |n: usize| {
        let client = client.clone();
        async move { client.start_run("a", "l", Run::because(format!("{n}"))).await.is_ok() }
    };
    assert_eq!(calls(start).await, 0, "of 800 starts");
    assert_eq!(gofer.recorded().runs_of("a").count(), 800);
    let write = |n: usize| {
        let client = client.clone();
        async move { client.pipeline_objects("a").put(&n.to_string(), "v").await.is_ok() }
    };
    assert_eq!(calls(write).await, 0, "of 800 writes");
    assert_eq!(gofer.recorded().calls("PutPipelineObject"), 800);
    let read = |_| {
        let client = client.clone();
        async move { client.runs("a", 1).await.is_ok() }
    };
    assert_eq!(calls(read).await, 0, "of 800 reads");
    let raw = |_| {
        let mut api = client.api();
        async move { api.get_system_info(GetSystemInfoRequest {}).await.is_ok() }
    };
    assert_eq!(calls(raw).await, 0, "of 800 calls of the raw API");
    assert!(gofer.recorded().connections > 4 * 800 / 20);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_carries_only_one_call_delays_none() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    gofer.limit_requests(1);
    let client = extension.probe.gofer();
    let before = Instant::now();
    for n in 0..100 {
        client.runs("a", 1).await.unwrap();
        client.start_run("a", "l", Run::because(format!("{n}"))).await.unwrap();
    }
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(gofer.recorded().runs_of("a").count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_proxy_is_no_answer() {
    for status in [502, 503, 504, 404, 200] {
        let gofer = StandIn::in_memory([pipeline("a")]);
        let status = StatusCode::from_u16(status).unwrap();
        gofer.next("StartRun", vec![Outcome::Page(status); 5]);
        let extension = gofer.start(interval()).await;
        extension.client.subscribe("a", &[("every", "1h")]).await.unwrap();
        sleep(Duration::from_secs(61 * 60)).await;
        let recorded = gofer.recorded();
        assert_eq!((recorded.calls("StartRun"), recorded.runs_of("a").count()), (6, 1), "{status}");
        assert_eq!(extension.probe.seen().served, 1, "`serve` was restarted after {status}");
    }
    let gofer = StandIn::in_memory([pipeline("a")]);
    gofer.decide("ListRuns", |_| Outcome::Page(StatusCode::BAD_GATEWAY));
    let extension = gofer.start(probe()).await;
    let error = extension.probe.gofer().runs("a", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let why = "the answer is no gRPC, but HTTP status 502 Bad Gateway";
    assert!(error.to_string().contains(why), "{error}");
}

#[tokio::test(start_paused = true)]
async fn sixty_four_slow_calls_at_once_find_connections_of_twenty() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    gofer.limit_requests(20);
    gofer.decide("PutPipelineObject", |_| Outcome::ActAndHold);
    let client = extension.probe.gofer();
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..64 {
        let mut api = client.api();
        writes.spawn(async move {
            let key = format!("{n}");
            let (namespace_id, pipeline_id) = ("default".to_owned(), "a".to_owned());
            let request = PutPipelineObjectRequest {
                namespace_id,
                pipeline_id,
                key,
                content: vec![7].into(),
                force: false,
            };
            api.put_pipeline_object(request).await.map(drop)
        });
    }
    gofer.until(|recorded| recorded.calls("PutPipelineObject") == 64).await;
    gofer.release();
    for written in writes.join_all().await {
        written.unwrap();
    }
    assert_eq!(gofer.recorded().calls("PutPipelineObject"), 64);
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_connection_is_lost_is_repeated_and_a_write_is_not() {
    let gofer = StandIn::in_memory([pipeline("a")]);
    let extension = gofer.start(probe()).await;
    let client = extension.probe.gofer();
    client.pipeline_objects("a").put("k", "v").await.unwrap();
    gofer.next("GetPipelineObject", [Outcome::Disconnect, Outcome::ActAndDisconnect]);
    assert_eq!(client.pipeline_objects("a").get("k").await.unwrap(), "v");
    gofer.next("PutPipelineObject", [Outcome::Disconnect]);
    let lost = client.pipeline_objects("a").put("other", "v").await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert_eq!(gofer.recorded().calls("PutPipelineObject"), 2);
}

#[tokio::test(start_paused = true)]
async fn ticks_that_come_faster_than_runs_end_never_add_a_second_pending_run() {
    let nightly = pipeline("a").parallelism(2).runs_take(Duration::from_secs(40));
    let gofer = StandIn::in_memory([nightly]);
    let extension = gofer.start(interval()).await;
    extension.client.subscribe("a", &[("every", "5s")]).await.unwrap();
    let mut before = 0;
    for minute in 1..=60 {
        sleep(MINUTE).await;
        let recorded = gofer.recorded();
        let runs = recorded.runs_of("a").count();
        assert!(recorded.pending("a") <= 1, "{} in minute {minute}", recorded.pending("a"));
        assert!(runs > before, "none in minute {minute}");
        before = runs;
    }
    // A pending run counts: one runs while one waits. So there is one each 40 s, and a little, for
    // the time until it is noticed that a run is no longer pending.
    assert_eq!(gofer.recorded().most_pending("a"), 1);
    assert!((75..=92).contains(&before), "{before} runs");
}

#[tokio::test(start_paused = true)]
async fn the_last_run_of_a_label_is_looked_up_once_no_start_waits() {
    const BUSY: usize = 110;
    let busy = (0..BUSY).map(|n| format!("busy-{n}"));
    let gofer = StandIn::in_memory(busy.clone().chain(["a".to_owned()]).map(pipeline));
    gofer.decide("StartRun", |_| Outcome::Swallow);
    let is_looked_up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_looked_up);
    gofer.decide("ListRuns", move |call| {
        let of = &call.message::<ListRunsRequest>().pipeline_id;
        seen.fetch_or(of == "a", Ordering::Relaxed);
        Outcome::Answer
    });
    let builder = probe().serve(|_, subscription| async move {
        match subscription.params().every {
            Some(every) => drop(subscription.every(every)?.next().await),
            None => drop(subscription.start_run(Run::because("of a test")).await?),
        }
        Ok(())
    });
    let extension = gofer.start(builder).await;
    for pipeline in busy {
        extension.client.subscribe(&pipeline, &[]).await.unwrap();
    }
    // Those whose response may be held back, and those in flight. The others wait for a place.
    gofer.until(|recorded| recorded.in_flight("StartRun") == 32 + 64).await;
    extension.client.subscribe("a", &[("every", "1h")]).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(gofer.recorded().calls("StartRun"), 32 + 64);
    assert!(!is_looked_up.load(Ordering::Relaxed));
    gofer.decide("StartRun", |_| Outcome::Answer);
    gofer.until(|recorded| recorded.runs.len() == BUSY).await;
    sleep(Duration::from_secs(1)).await;
    assert!(is_looked_up.load(Ordering::Relaxed));
}
