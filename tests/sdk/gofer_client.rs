//! Runs that a subscription starts while Gofer answers, cannot be reached, is slow or fails: none
//! is lost, and none is started twice.
//!
//! Tests of lost answers are in `lost_answers.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::in_memory::InMemory;
use crate::support::gofer::{Behavior, Gofer, run_of};
use crate::support::probe::{Builder, Probe, interval, probe};
use crate::support::{Client, Setup, Started, TOKEN, long_grace, within};
use gofer_proto as proto;
use gofer_proto::initiator;
use gofer_sdk::{Error, ErrorKind, Run};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};

/// Starts one run, records the outcome, and waits for the end of the subscription.
fn starts_one_run() -> Builder {
    probe().serve(|probe, subscription| async move {
        probe.record("starting");
        match subscription.start_run(Run::because("of a test")).await {
            Ok(run) => probe.record(format!("started {} of {}", run.id(), run.pipeline())),
            Err(error) => probe.record(format!("{:?}: {error}", error.kind())),
        }
        subscription.cancelled().await;
        Ok(())
    })
}

async fn start(extension: Builder, gofer: &Gofer) -> (Arc<Probe>, Started, Client) {
    extension.start(Setup { limits: long_grace(), gofer: Some(gofer.address) }).await
}

fn failed(probe: &Probe, kind: ErrorKind) -> bool {
    let lead = format!("{kind:?}: ");
    probe.seen().events.iter().any(|event| event.starts_with(&lead))
}

#[tokio::test]
async fn gofer_receives_initiator_reason_and_variables() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    let extension = probe().serve(|probe, subscription| async move {
        let run = Run::because("a commit was pushed")
            .variable("COMMIT", "c0ffee")
            .variable("EMPTY", "")
            .variable("COMMIT", "decaf");
        let run = subscription.start_run(run).await?;
        probe.record(format!("{} {} {:?}", run.id(), run.initiator(), run.variable("COMMIT")));
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("nightly", &[]).await.unwrap();
    probe.until_seen(r#"1 probe (l) Some("decaf")"#).await;
    let recorded = gofer.recorded();
    let [run] = &recorded.runs[..] else { panic!("{:?}", recorded.runs) };
    assert_eq!((run.namespace.as_str(), run.pipeline.as_str()), ("default", "nightly"));
    let initiator = run.initiator.as_ref().unwrap();
    assert_eq!(initiator.r#type(), initiator::Type::Extension);
    assert_eq!(initiator.name, "probe (l)");
    assert_eq!(initiator.reason, "a commit was pushed");
    let mut variables: Vec<_> =
        run.variables.iter().map(|set| (set.key.as_str(), set.value.as_str())).collect();
    variables.sort_unstable();
    let [commit, empty, (key, value)] = variables[..] else { panic!("{variables:?}") };
    assert_eq!((commit, empty), (("COMMIT", "decaf"), ("EMPTY", "")));
    assert!(key == "GOFER_EXTENSION_RUN_KEY" && value.starts_with("gofer-sdk:call:"), "{value}");
    assert!(recorded.authorizations.iter().all(|it| *it == format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn a_run_that_is_due_during_an_outage_is_started_once() {
    let gofer = Gofer::unreachable(|_, _| Behavior::Answer);
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("starting").await;
    // A closed port records no attempts, so wait long enough for several.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(probe.seen().events.last().unwrap(), "starting", "it keeps trying");
    gofer.listen();
    probe.until_seen("started 1 of default/a").await;
    client.unsubscribe("a").await.unwrap();
    assert_eq!(gofer.recorded().starts, 1);
}

#[tokio::test]
async fn an_unavailable_gofer_is_retried() {
    let gofer = Gofer::listening(|_, number| {
        if number < 3 {
            Behavior::Refuse(Status::unavailable("starting"))
        } else {
            Behavior::Answer
        }
    });
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 1 of default/a").await;
    assert_eq!(gofer.recorded().starts, 3);
}

#[tokio::test]
async fn a_refusal_is_passed_on_at_once() {
    for (status, kind) in [
        (Status::failed_precondition("the pipeline is disabled"), ErrorKind::FailedPrecondition),
        (Status::permission_denied("not this namespace"), ErrorKind::PermissionDenied),
        (Status::not_found("no such pipeline"), ErrorKind::NotFound),
        (Status::internal("broken"), ErrorKind::Internal),
    ] {
        let refusal = status.clone();
        let gofer = Gofer::listening(move |_, _| Behavior::Refuse(refusal.clone()));
        let (probe, _started, client) = start(starts_one_run(), &gofer).await;
        client.subscribe("a", &[]).await.unwrap();
        probe.until(|seen| seen.events.len() == 4).await;
        assert!(failed(&probe, kind), "{:?}", probe.seen().events);
        assert!(probe.seen().events[3].contains(status.message()), "{:?}", probe.seen().events);
        assert_eq!(gofer.recorded().starts, 1);
    }
}

/// A run of ninety minutes ago, before a restart: an hour's interval is overdue.
fn add_an_old_run(gofer: &Gofer) {
    let mut last = run_of("a", 7, initiator::Type::Extension, "probe (l)");
    last.started -= 90 * 60 * 1000;
    gofer.add_run(last);
}

#[tokio::test]
async fn an_overdue_interval_fires_once_when_gofer_has_reported_its_last_run() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    add_an_old_run(&gofer);
    gofer.add_run(run_of("a", 8, initiator::Type::Human, "somebody"));
    let (_, _started, client) = start(interval(), &gofer).await;
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    gofer.until(|recorded| recorded.starts == 1).await;
    client.info().await.unwrap();
    assert_eq!(gofer.recorded().runs.len(), 3);
}

/// Gofer does not say when a subscription was made, so the process has to know.
#[tokio::test]
async fn a_subscription_made_anew_does_not_go_on_from_runs_of_the_one_before() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    add_an_old_run(&gofer);
    let (_, _started, client) = start(interval(), &gofer).await;
    client.subscribe("b", &[("every", "1h")]).await.unwrap();
    client.unsubscribe("b").await.unwrap();
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    gofer.until(|recorded| recorded.starts == 1).await;
    client.unsubscribe("a").await.unwrap();
    let lists = gofer.recorded().lists;
    client.subscribe("a", &[("every", "1ms")]).await.unwrap();
    gofer.until(|recorded| recorded.starts >= 3).await;
    assert_eq!(gofer.recorded().lists, lists, "what was before is not asked for");
}

#[tokio::test]
async fn a_failed_query_for_the_last_run_is_retried() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    add_an_old_run(&gofer);
    gofer.refuse_lists(1);
    let (_, _started, client) = start(interval(), &gofer).await;
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    // Without the answer, the hour would start over.
    gofer.until(|recorded| recorded.starts == 1).await;
    // The query, its repeat, and whether a run is pending.
    assert_eq!((gofer.recorded().lists, gofer.recorded().runs.len()), (3, 2));
}

#[tokio::test]
async fn repeated_tick_requests_query_the_last_run_once() {
    let gofer = Gofer::unreachable(|_, _| Behavior::Answer);
    let extension = probe().serve(|probe, subscription| async move {
        for _ in 0..500 {
            // As in a loop that waits for the next tick or for something else.
            let mut ticks = subscription.every(subscription.params().every.unwrap())?;
            let _ = tokio::time::timeout(Duration::ZERO, ticks.next()).await;
        }
        probe.record("asked");
        subscription.cancelled().await;
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    probe.until_seen("asked").await;
    gofer.listen();
    gofer.until(|recorded| recorded.lists > 0).await;
    // Other queries would follow without a pause.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(gofer.recorded().lists, 1);
}

// On a paused clock, the calls that are held do not reach their deadline.
#[tokio::test(start_paused = true)]
async fn a_hundred_runs_at_once_are_at_most_64_calls_in_flight() {
    let InMemory { probe, gofer, client, .. } =
        &InMemory::start(starts_one_run(), |_, _| Behavior::Hold).await;
    for n in 0..100 {
        client.subscribe(&format!("p{n}"), &[]).await.unwrap();
    }
    probe.until(|seen| seen.count("starting") == 100).await;
    gofer.until(|recorded| recorded.in_flight == 64).await;
    // The 65th would have been sent before this, over the same connection.
    probe.gofer().runs("p0", 1).await.unwrap();
    assert_eq!((gofer.recorded().in_flight, gofer.recorded().starts), (64, 64));
    gofer.release();
    probe
        .until(|seen| seen.events.iter().filter(|seen| seen.starts_with("started")).count() == 100)
        .await;
    assert_eq!((gofer.recorded().starts, gofer.recorded().runs.len()), (100, 100));
}

#[tokio::test]
async fn pipelines_that_cannot_be_run_now_do_not_keep_others_from_running() {
    let gofer = Gofer::listening(|request, _| match request.pipeline_id.as_str() {
        "good" => Behavior::Answer,
        _ => Behavior::Refuse(Status::unavailable("the scheduler of this namespace is away")),
    });
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    // As many as may be in flight: each is retried again and again.
    for n in 0..64 {
        client.subscribe(&format!("p{n}"), &[]).await.unwrap();
    }
    gofer.until(|recorded| recorded.starts > 64).await;
    client.subscribe("good", &[]).await.unwrap();
    probe.until_seen("started 1 of default/good").await;
}

#[tokio::test]
async fn an_unsubscribe_during_an_outage_ends_promptly() {
    let gofer = Gofer::unreachable(|_, _| Behavior::Answer);
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    // More than may be in flight: some are tried, the others wait for them.
    let keys: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    for key in &keys {
        client.subscribe(key, &[]).await.unwrap();
    }
    probe.until(|seen| seen.count("starting") == 100).await;
    // All at once: if each took its one-second grace in turn, this would time out.
    within(async {
        for key in keys.iter().rev() {
            client.unsubscribe(key).await.unwrap();
        }
    })
    .await;
    assert!(probe.seen().running.is_empty());
    let cancelled =
        probe.seen().events.iter().filter(|event| event.starts_with("Cancelled: ")).count();
    assert_eq!(cancelled, 100);
    gofer.listen();
    // What was cancelled is not started later.
    probe.gofer().runs("p0", 1).await.unwrap();
    assert_eq!(gofer.recorded().starts, 0);
}

#[tokio::test]
async fn a_shutdown_during_an_outage_ends_promptly() {
    let gofer = Gofer::unreachable(|_, _| Behavior::Answer);
    let (probe, started, client) = start(interval(), &gofer).await;
    for n in 0..100 {
        client.subscribe(&format!("p{n}"), &[("every", "1ms")]).await.unwrap();
    }
    probe.until(|seen| seen.served == 100).await;
    // Neither the subscriptions nor the extension wait for the grace.
    client.shutdown().await.unwrap();
    started.stopped().await.unwrap();
    assert!(probe.seen().running.is_empty());
}

#[tokio::test]
async fn init_and_subscribe_do_not_wait_for_an_unreachable_gofer() {
    let gofer = Gofer::unreachable(|_, _| Behavior::Answer);
    // It never listens, so whatever waits for it hangs.
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("starting").await;
}

#[tokio::test]
async fn a_gofer_with_an_untrusted_certificate_gets_no_token() {
    let gofer = Gofer::untrusted();
    let extension = probe().init(|probe, _| async move {
        let gofer = probe.gofer();
        // In the background, as Init must not wait for Gofer.
        tokio::spawn(async move {
            let error = gofer.api().get_system_info(proto::GetSystemInfoRequest {}).await;
            let error: Error = error.unwrap_err().into();
            probe.record(format!("failed: {error:?}"));
        });
        Ok(())
    });
    let (probe, _started, _client) = start(extension, &gofer).await;
    probe.until(|seen| seen.events.iter().any(|event| event.starts_with("failed"))).await;
    assert!(
        probe.seen().events.iter().any(|event| event.contains("ertificate")),
        "{:?}",
        probe.seen().events
    );
    assert!(gofer.recorded().authorizations.is_empty());
}

/// A proxy for Gofer that delays each connection.
async fn slow_proxy(gofer: SocketAddr, wait: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let mut far = TcpStream::connect(gofer).await.unwrap();
                // Both sides see an error themselves.
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn calls_with_deadlines_shorter_than_connecting_get_a_connection_in_the_end() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    let address = slow_proxy(gofer.address, Duration::from_millis(500)).await;
    let (probe, _started, _client) =
        probe().start(Setup { limits: long_grace(), gofer: Some(address) }).await;
    let reached = async {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut request = tonic::Request::new(proto::GetSystemInfoRequest {});
            request.set_timeout(Duration::from_millis(200));
            let status = probe.gofer().api().get_system_info(request).await.unwrap_err();
            // The answer of this Gofer once it is reached.
            if status.code() == Code::Unimplemented {
                return attempts;
            }
        }
    };
    assert!(within(reached).await > 1, "the proxy is not slow");
}
