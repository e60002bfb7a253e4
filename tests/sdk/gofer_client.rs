//! Runs that a subscription starts, over real sockets to a Gofer that is there, away, slow, or not
//! well: none is lost, none is started twice.
//!
//! What becomes of answers that get lost is in `lost_answers.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::gofer::{Gofer, Then, run_of};
use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, Setup, Started, TOKEN, long_grace, within};
use gofer_proto as proto;
use gofer_proto::initiator;
use gofer_sdk::{Error, ErrorKind, Run};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};

/// Starts one run, tells how that went, and waits for its end.
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
async fn gofer_gets_who_starts_a_run_and_why_and_with_what() {
    let gofer = Gofer::there(|_, _| Then::Answer);
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
    let book = gofer.book();
    let [run] = &book.runs[..] else { panic!("{:?}", book.runs) };
    assert_eq!((run.namespace.as_str(), run.pipeline.as_str()), ("default", "nightly"));
    let initiator = run.initiator.as_ref().unwrap();
    assert_eq!(initiator.r#type(), initiator::Type::Extension);
    assert_eq!(initiator.name, "probe (l)");
    assert_eq!(initiator.reason, "a commit was pushed");
    let mut variables: Vec<_> =
        run.variables.iter().map(|set| (set.key.as_str(), set.value.as_str())).collect();
    variables.sort_unstable();
    assert_eq!(variables, [("COMMIT", "decaf"), ("EMPTY", "")]);
    assert_eq!(book.authorizations, [format!("Bearer {TOKEN}")]);
}

#[tokio::test]
async fn a_run_that_is_due_while_gofer_is_away_arrives_once() {
    let gofer = Gofer::away(|_, _| Then::Answer);
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("starting").await;
    // Nobody can tell that somebody knocks at a closed port: some attempts' time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(probe.seen().events.last().unwrap(), "starting", "it keeps trying");
    gofer.come_back();
    probe.until_seen("started 1 of default/a").await;
    client.unsubscribe("a").await.unwrap();
    assert_eq!(gofer.book().starts, 1);
}

#[tokio::test]
async fn a_gofer_that_says_it_is_unavailable_is_asked_again() {
    let gofer = Gofer::there(|_, number| {
        if number < 3 { Then::Refuse(Status::unavailable("starting")) } else { Then::Answer }
    });
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 1 of default/a").await;
    assert_eq!(gofer.book().starts, 3);
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
        let gofer = Gofer::there(move |_, _| Then::Refuse(refusal.clone()));
        let (probe, _started, client) = start(starts_one_run(), &gofer).await;
        client.subscribe("a", &[]).await.unwrap();
        probe.until(|seen| seen.events.len() == 4).await;
        assert!(failed(&probe, kind), "{:?}", probe.seen().events);
        assert!(probe.seen().events[3].contains(status.message()), "{:?}", probe.seen().events);
        assert_eq!(gofer.book().starts, 1);
    }
}

/// Starts a run at each tick.
fn starts_runs_at_ticks() -> Builder {
    probe().serve(|_, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while ticks.next().await {
            subscription.start_run(Run::because("the interval elapsed")).await?;
        }
        Ok(())
    })
}

/// A run of ninety minutes ago, before a restart: an hour's interval is overdue.
fn remember_an_old_run(gofer: &Gofer) {
    let mut last = run_of("a", 7, initiator::Type::Extension, "probe (l)");
    last.started -= 90 * 60 * 1000;
    gofer.remember(last);
}

#[tokio::test]
async fn an_overdue_interval_fires_once_when_gofer_has_reported_its_last_run() {
    let gofer = Gofer::there(|_, _| Then::Answer);
    remember_an_old_run(&gofer);
    gofer.remember(run_of("a", 8, initiator::Type::Human, "somebody"));
    let (_, _started, client) = start(starts_runs_at_ticks(), &gofer).await;
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    gofer.until(|book| book.starts == 1).await;
    client.info().await.unwrap();
    assert_eq!(gofer.book().runs.len(), 3);
}

#[tokio::test]
async fn a_gofer_that_fails_is_asked_again_for_the_last_run() {
    let gofer = Gofer::there(|_, _| Then::Answer);
    remember_an_old_run(&gofer);
    gofer.refuse_lists(1);
    let (_, _started, client) = start(starts_runs_at_ticks(), &gofer).await;
    client.subscribe("a", &[("every", "1h")]).await.unwrap();
    // Without the answer the clock would start afresh, and the hour with it.
    gofer.until(|book| book.starts == 1).await;
    assert_eq!((gofer.book().lists, gofer.book().runs.len()), (2, 2));
}

#[tokio::test]
async fn ticks_asked_for_again_and_again_make_one_question_for_the_last_run() {
    let gofer = Gofer::away(|_, _| Then::Answer);
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
    gofer.come_back();
    gofer.until(|book| book.lists > 0).await;
    // The other questions would follow one another without a pause.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(gofer.book().lists, 1);
}

#[tokio::test]
async fn a_hundred_runs_at_once_are_at_most_64_calls_in_flight() {
    let gofer = Gofer::there(|_, _| Then::Hold);
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    for n in 0..100 {
        client.subscribe(&format!("p{n}"), &[]).await.unwrap();
    }
    probe.until(|seen| seen.count("starting") == 100).await;
    gofer.until(|book| book.in_flight == 64).await;
    // The 65th would have been sent before this, over the same connection.
    probe.gofer().runs("p0", 1).await.unwrap();
    assert_eq!((gofer.book().in_flight, gofer.book().starts), (64, 64));
    gofer.release();
    probe
        .until(|seen| seen.events.iter().filter(|seen| seen.starts_with("started")).count() == 100)
        .await;
    assert_eq!((gofer.book().starts, gofer.book().runs.len()), (100, 100));
}

#[tokio::test]
async fn pipelines_that_cannot_be_run_now_do_not_keep_others_from_running() {
    let gofer = Gofer::there(|request, _| match request.pipeline_id.as_str() {
        "good" => Then::Answer,
        _ => Then::Refuse(Status::unavailable("the scheduler of this namespace is away")),
    });
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    // As many as may be in flight: each is tried again and again.
    for n in 0..64 {
        client.subscribe(&format!("p{n}"), &[]).await.unwrap();
    }
    gofer.until(|book| book.starts > 64).await;
    client.subscribe("good", &[]).await.unwrap();
    probe.until_seen("started 1 of default/good").await;
}

#[tokio::test]
async fn an_unsubscribe_during_an_outage_ends_promptly() {
    let gofer = Gofer::away(|_, _| Then::Answer);
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    // More than may be in flight: some try, the others queue behind them.
    let keys: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    for key in &keys {
        client.subscribe(key, &[]).await.unwrap();
    }
    probe.until(|seen| seen.count("starting") == 100).await;
    // Together: were there a second for each, as for a call in flight, it would hang.
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
    gofer.come_back();
    // What was cancelled is not started later.
    probe.gofer().runs("p0", 1).await.unwrap();
    assert_eq!(gofer.book().starts, 0);
}

#[tokio::test]
async fn a_shutdown_during_an_outage_ends_promptly() {
    let gofer = Gofer::away(|_, _| Then::Answer);
    let (probe, started, client) = start(starts_runs_at_ticks(), &gofer).await;
    for n in 0..100 {
        client.subscribe(&format!("p{n}"), &[("every", "1ms")]).await.unwrap();
    }
    probe.until(|seen| seen.served == 100).await;
    // Neither waits for the grace.
    client.shutdown().await.unwrap();
    started.stopped().await.unwrap();
    assert!(probe.seen().running.is_empty());
}

#[tokio::test]
async fn init_and_subscribe_do_not_wait_for_a_gofer_that_is_away() {
    let gofer = Gofer::away(|_, _| Then::Answer);
    // It does not come back, so what waits for it hangs.
    let (probe, _started, client) = start(starts_one_run(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("starting").await;
}

#[tokio::test]
async fn a_gofer_with_a_certificate_of_a_stranger_gets_no_token() {
    let gofer = Gofer::there_untrusted();
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
    assert!(gofer.book().authorizations.is_empty());
}

/// A way to Gofer on which each connection is kept waiting before it is let through.
async fn slow_way(gofer: SocketAddr, wait: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                let mut far = TcpStream::connect(gofer).await.unwrap();
                // How it ends is the business of the two sides.
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn calls_with_deadlines_shorter_than_connecting_get_a_connection_in_the_end() {
    let gofer = Gofer::there(|_, _| Then::Answer);
    let address = slow_way(gofer.address, Duration::from_millis(500)).await;
    let (probe, _started, _client) =
        probe().start(Setup { limits: long_grace(), gofer: Some(address) }).await;
    let reached = async {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut request = tonic::Request::new(proto::GetSystemInfoRequest {});
            request.set_timeout(Duration::from_millis(200));
            let status = probe.gofer().api().get_system_info(request).await.unwrap_err();
            // What this Gofer answers, once it is reached.
            if status.code() == Code::Unimplemented {
                return attempts;
            }
        }
    };
    assert!(within(reached).await > 1, "the way is not slow");
}
