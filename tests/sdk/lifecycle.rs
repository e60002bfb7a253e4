//! From the first call to the last: what works before Init, Init and its failures, deadlines, and
//! the end.

use std::time::Duration;

use crate::in_memory::InMemory;
use crate::support::conversation::Conversation;
use crate::support::gofer::Behavior;
use crate::support::probe::{probe, together};
use crate::support::{EVENT, NAME, Setup, long_grace, short_grace, within};
use gofer_proto::{ExtensionInitRequest, ExtensionShutdownRequest};
use gofer_sdk::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

#[tokio::test]
async fn what_needs_an_initialized_extension_is_unavailable_before_init() {
    let (probe, _started, client) = probe().start_bare(Setup::default()).await;
    for (call, outcome) in [
        ("Subscribe", client.subscribe("a", &[]).await),
        ("Unsubscribe", client.unsubscribe("a").await),
        ("ExternalEvent", client.external_event(EVENT).await),
    ] {
        let status = outcome.expect_err(call);
        assert_eq!(status.code(), Code::Unavailable, "{call}: {status}");
        assert!(status.message().contains("Init"), "{call}: {status}");
    }
    assert!(probe.seen().events.is_empty());
}

#[tokio::test]
async fn info_and_both_conversations_work_before_init() {
    let (_, _started, client) = probe().start_bare(Setup::default()).await;
    let info = client.info().await.unwrap();
    assert_eq!(info.name, NAME);
    assert!(info.documentation.contains("The probe of the test."), "{}", info.documentation);
    assert!(info.registered.is_empty());
    assert!(Conversation::installer(&client).await.unwrap().query().await.starts_with("probe: "));
    assert!(
        Conversation::configurator(&client).await.unwrap().query().await.starts_with("value: ")
    );
}

#[tokio::test]
async fn shutdown_works_before_init() {
    let (probe, started, client) = probe().start_bare(Setup::default()).await;
    client.shutdown().await.unwrap();
    started.stopped().await.unwrap();
    assert!(probe.seen().events.is_empty(), "there is nothing to clean up");
}

#[tokio::test]
async fn shutdown_ends_subscriptions_then_the_extension_then_the_server() {
    let (probe, started, client) = probe().start(Setup::default()).await;
    client.subscribe("a", &[]).await.unwrap();
    let idle = started.client().await;
    client.shutdown().await.unwrap();
    assert_eq!(probe.seen().events, ["init", "start a ", "end a ", "shutdown"]);

    // Calls on the open connections are refused, or the connections are closed.
    for open in [&client, &idle] {
        let status = open.subscribe("b", &[]).await.unwrap_err();
        let gone = open.connection.is_closed();
        assert!(status.code() == Code::Unavailable || gone, "{status}");
    }
    let address = started.address;
    started.stopped().await.unwrap();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(probe.seen().served, 1);
}

#[tokio::test]
async fn a_stop_from_outside_ends_it_as_shutdown_does() {
    let (probe, mut started, client) = probe().start(Setup::default()).await;
    client.subscribe("a", &[]).await.unwrap();
    started.stop();
    started.stopped().await.unwrap();
    assert_eq!(probe.seen().events, ["init", "start a ", "end a ", "shutdown"]);
}

/// A signal takes the same way as a stop from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_reasons_to_end_at_once_clean_up_once() {
    for _ in 0..20 {
        let (probe, mut started, client) = probe().start(Setup::default()).await;
        client.subscribe("a", &[]).await.unwrap();
        let mut callers = Vec::new();
        for _ in 0..4 {
            let caller = started.client().await;
            // Some come when it is over.
            callers.push(async move { drop(caller.shutdown().await) });
        }
        let config = probe.config().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let again = ExtensionInitRequest { config: config.into() };
        let init = tokio::spawn(async move { drop(client.raw().init(again).await) });
        let calls = tokio::spawn(together(callers));
        started.stop();
        started.stopped().await.unwrap();
        within(calls).await.unwrap();
        within(init).await.unwrap();
        assert_eq!(probe.seen().count("shutdown"), 1, "{:?}", probe.seen().events);
    }
}

#[tokio::test]
async fn while_it_shuts_down_nothing_new_is_accepted() {
    let extension = probe().serve(|probe, subscription| async move {
        subscription.cancelled().await;
        probe.record("cancelled");
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, started, client) =
        extension.start(Setup { limits: long_grace(), ..Setup::default() }).await;
    client.subscribe("a", &[]).await.unwrap();
    let shutdown = tokio::spawn({
        let client = client.clone();
        async move { client.shutdown().await }
    });
    probe.until_seen("cancelled").await;
    for (call, outcome) in [
        ("Init", client.init(&probe.config()).await),
        ("Subscribe", client.subscribe("b", &[]).await),
        ("Subscribe again", client.subscribe("a", &[]).await),
        ("Unsubscribe", client.unsubscribe("b").await),
        ("ExternalEvent", client.external_event(EVENT).await),
    ] {
        let status = outcome.expect_err(call);
        assert_eq!(status.code(), Code::Unavailable, "{call}: {status}");
    }
    let mut health = client.connection.health();
    let check = health.check(HealthCheckRequest { service: String::new() });
    let answer = within(check).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    assert!(!shutdown.is_finished(), "Shutdown must not answer before all has ended");
    // A second Shutdown waits for the same end.
    let again = tokio::spawn({
        let client = started.client().await;
        async move { client.shutdown().await }
    });
    client.info().await.unwrap();
    assert!(!again.is_finished());
    probe.open_gate();
    within(shutdown).await.unwrap().unwrap();
    within(again).await.unwrap().unwrap();
    started.stopped().await.unwrap();
    assert_eq!(probe.seen().count("shutdown"), 1);
}

#[tokio::test]
async fn an_unsubscribe_pending_at_shutdown_does_not_report_success() {
    let extension = probe().serve(|probe, subscription| async move {
        subscription.cancelled().await;
        probe.record("cancelled");
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, mut started, client) =
        extension.start(Setup { limits: long_grace(), ..Setup::default() }).await;
    client.subscribe("a", &[]).await.unwrap();
    let unsubscribe = || {
        let client = client.clone();
        tokio::spawn(async move { client.unsubscribe("a").await })
    };
    let first = unsubscribe();
    probe.until_seen("cancelled").await;
    let second = unsubscribe();
    // On this one thread it is sent while we yield, and one connection keeps the order.
    tokio::task::yield_now().await;
    client.info().await.unwrap();
    started.stop();
    // The second one is queued behind the first and will never run.
    let status = within(second).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(!first.is_finished() && probe.seen().running.contains_key("a"));
    probe.open_gate();
    within(first).await.unwrap().unwrap();
    assert!(probe.seen().running.is_empty());
    started.stopped().await.unwrap();
}

#[tokio::test]
async fn an_extension_that_does_not_clean_up_does_not_prevent_the_end() {
    let extension =
        probe().serve(|_, _| std::future::pending()).shutdown(|_, ()| std::future::pending());
    let (probe, started, client) =
        extension.start(Setup { limits: short_grace(), ..Setup::default() }).await;
    client.subscribe("a", &[]).await.unwrap();
    client.shutdown().await.unwrap();
    started.stopped().await.unwrap();
    assert_eq!(probe.seen().events, ["init", "start a ", "end a ", "shutdown"]);
}

/// With the default limits: three seconds for the subscriptions, three for the extension to clean
/// up, and one for open connections.
#[tokio::test(start_paused = true)]
async fn a_stop_takes_at_most_seven_seconds() {
    let extension = probe()
        .serve(|_, _| std::future::pending())
        .event(|probe, _| async move {
            probe.record("event");
            std::future::pending().await
        })
        .shutdown(|_, ()| std::future::pending());
    let extension = InMemory::start(extension, |_, _| Behavior::Answer).await;
    let (probe, client) = (extension.probe.clone(), extension.client.clone());
    client.subscribe("a", &[]).await.unwrap();
    // A call that does not end keeps its connection open.
    let calling = extension.client().await;
    let event = tokio::spawn(async move { calling.external_event(EVENT).await });
    probe.until_seen("event").await;
    let asked = Instant::now();
    client.shutdown().await.unwrap();
    extension.stopped().await.unwrap();
    // Timers may be some milliseconds late.
    let took = asked.elapsed().as_millis();
    assert!((7_000..7_010).contains(&took), "{took} ms");
    within(event).await.unwrap().unwrap_err();
    assert_eq!(probe.seen().events, ["init", "start a ", "event", "end a ", "shutdown"]);
}

#[tokio::test]
async fn a_panic_while_it_cleans_up_does_not_keep_it_from_ending() {
    let extension = probe().shutdown(|_, ()| async { panic!("on purpose") });
    let (_, started, client) = extension.start(Setup::default()).await;
    client.shutdown().await.unwrap();
    started.stopped().await.unwrap();
}

#[tokio::test]
async fn a_caller_of_shutdown_that_disconnects_does_not_prevent_the_end() {
    let extension = probe().serve(|probe, subscription| async move {
        subscription.cancelled().await;
        probe.record("cancelled");
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, started, client) =
        extension.start(Setup { limits: long_grace(), ..Setup::default() }).await;
    client.subscribe("a", &[]).await.unwrap();
    let shutdown = tokio::spawn({
        let client = client.clone();
        async move { drop(client.raw().shutdown(ExtensionShutdownRequest {}).await) }
    });
    probe.until_seen("cancelled").await;
    shutdown.abort();
    drop(client);
    probe.open_gate();
    started.stopped().await.unwrap();
    assert!(probe.seen().has("shutdown"));
}

#[tokio::test]
async fn two_inits_at_once_with_the_same_configuration_are_one() {
    let extension = probe().init(|probe, _| async move {
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, started, client) = extension.start_bare(Setup::default()).await;
    let other = started.client().await;
    let inits = [client, other].map(|client| {
        let probe = probe.clone();
        async move { client.init(&probe.config()).await }
    });
    let both = tokio::spawn(together(inits));
    probe.until_seen("init").await;
    // A call that is answered after the second Init has arrived.
    started.client().await.info().await.unwrap();
    assert!(!both.is_finished());
    probe.open_gate();
    for outcome in within(both).await.unwrap() {
        outcome.unwrap();
    }
    assert_eq!(probe.seen().events, ["init"]);
}

#[tokio::test]
async fn of_two_inits_at_once_with_different_configurations_one_fails() {
    let extension = probe().init(|probe, _| async move {
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, started, client) = extension.start_bare(Setup::default()).await;
    let first = tokio::spawn({
        let probe = probe.clone();
        async move { client.init(&probe.config_with("first")).await }
    });
    probe.until_seen("init first").await;
    let other = started.client().await;
    let status = other.init(&probe.config_with("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    probe.open_gate();
    within(first).await.unwrap().unwrap();
    assert_eq!(probe.seen().events, ["init first"]);
}

#[tokio::test]
async fn a_later_init_succeeds_if_equal_and_fails_if_different() {
    let (probe, _started, client) = probe().start_bare(Setup::default()).await;
    client.init(&probe.config_with("one")).await.unwrap();
    client.init(&probe.config_with("one")).await.unwrap();
    let [(probe_key, id), (_, note)] = probe.config_with("one");
    assert_eq!(probe_key, "probe");
    client.init(&[("NOTE", note), ("Probe", id)]).await.unwrap();
    for other in [vec![("probe", id), ("note", "two")], vec![("probe", id)]] {
        let status = client.init(&other).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(!status.message().contains("two"), "a value is shown: {status}");
    }
    assert_eq!(probe.seen().events, ["init one"]);
}

#[tokio::test]
async fn a_lost_reply_to_init_is_recoverable() {
    let extension = probe().init(|probe, _| async move {
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, started, client) = extension.start_bare(Setup::default()).await;
    let lost = tokio::spawn({
        let (probe, client) = (probe.clone(), started.client().await);
        async move { drop(client.init(&probe.config()).await) }
    });
    probe.until_seen("init").await;
    // The caller disconnects during the call.
    lost.abort();
    assert!(within(lost).await.unwrap_err().is_cancelled());
    client.info().await.unwrap();
    probe.open_gate();
    client.init(&probe.config()).await.unwrap();
    assert_eq!(probe.seen().events, ["init"], "the second Init shares the first one's outcome");
    client.subscribe("a", &[]).await.unwrap();
}

#[tokio::test]
async fn an_init_that_failed_may_be_tried_again_with_any_configuration() {
    let extension = probe().init(|_, note| async move {
        match note.as_str() {
            "good" => Ok(()),
            "passing" => Err(Error::unavailable("the disk is not mounted yet")),
            "secret" => Err(Error::internal("cannot log in as root:hunter2")),
            _ => Err(Error::invalid_configuration("note", "must be `good`")),
        }
    });
    let (probe, _started, client) = extension.start_bare(Setup::default()).await;
    for (note, code, says) in [
        ("bad", Code::InvalidArgument, "configuration `note`: must be `good`"),
        ("bad", Code::InvalidArgument, "configuration `note`: must be `good`"),
        ("passing", Code::Unavailable, "the disk is not mounted yet"),
        ("secret", Code::Internal, "the extension failed; see its log"),
    ] {
        let status = client.init(&probe.config_with(note)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, says));
        assert_eq!(client.subscribe("a", &[]).await.unwrap_err().code(), Code::Unavailable);
    }
    client.init(&probe.config_with("good")).await.unwrap();
    client.subscribe("a", &[]).await.unwrap();
    assert_eq!(probe.seen().count("init bad"), 2);
}

#[tokio::test]
async fn a_configuration_that_does_not_decode_is_refused_in_full_and_may_be_corrected() {
    let (probe, _started, client) = probe().start_bare(Setup::default()).await;
    let wrong = [("noet", "sesame"), ("NOTE", "open"), ("note", "open")];
    let status = client.init(&wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["configuration `probe`: is required", "`noet`", "did you mean", "given twice"] {
        assert!(status.message().contains(part), "{part} in {status}");
    }
    assert!(!status.message().contains("sesame"), "{status}");
    client.init(&probe.config()).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_init_is_internal_and_the_server_keeps_running() {
    let extension = probe().init(|_, note| async move {
        assert!(note == "good", "on purpose, with hunter2");
        Ok(())
    });
    let (probe, _started, client) = extension.start_bare(Setup::default()).await;
    let status = client.init(&probe.config_with("bad")).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(!status.message().contains("hunter2"), "{status}");
    client.init(&probe.config_with("good")).await.unwrap();
    client.subscribe("a", &[]).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_during_init_does_not_wait_for_it() {
    let extension = probe().init(|_, _| std::future::pending());
    let (probe, started, client) =
        extension.start_bare(Setup { limits: long_grace(), ..Setup::default() }).await;
    let init = tokio::spawn({
        let (probe, client) = (probe.clone(), client.clone());
        async move { client.init(&probe.config()).await }
    });
    probe.until_seen("init").await;
    client.shutdown().await.unwrap();
    assert_eq!(within(init).await.unwrap().unwrap_err().code(), Code::Unavailable);
    started.stopped().await.unwrap();
}

#[tokio::test]
async fn a_call_longer_than_its_deadline_is_reported_and_goes_on() {
    let extension = probe().init(|probe, _| async move {
        probe.wait_at_gate().await;
        Ok(())
    });
    let (probe, _started, client) = extension.start_bare(Setup::default()).await;
    let config = probe.config().map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut request = Request::new(ExtensionInitRequest { config: config.into() });
    request.set_timeout(Duration::from_millis(50));
    // The client has no timer of its own: this is the server's answer, and without its deadline
    // there would be none before the gate opens.
    let status = within(client.raw().init(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    probe.open_gate();
    client.init(&probe.config()).await.unwrap();
    assert_eq!(probe.seen().events, ["init"]);
}

#[tokio::test]
async fn health_is_serving_from_init_until_shutdown() {
    let (probe, started, client) = probe().start_bare(Setup::default()).await;
    let mut health = client.connection.health();
    let request = HealthCheckRequest { service: "proto.ExtensionService".to_owned() };
    let mut watch = within(health.watch(request)).await.unwrap().into_inner();
    // Phases in between may or may not be reported.
    let mut until = async |expected: ServingStatus, not: &[ServingStatus]| loop {
        let status = within(watch.message()).await.unwrap().unwrap().status();
        assert!(!not.contains(&status), "{status:?} and not {expected:?}");
        if status == expected {
            break;
        }
    };
    let (serving, not_serving) = (ServingStatus::Serving, ServingStatus::NotServing);
    until(not_serving, &[serving]).await;
    client.init(&probe.config()).await.unwrap();
    until(serving, &[]).await;
    client.shutdown().await.unwrap();
    until(not_serving, &[]).await;
    started.stopped().await.unwrap();
}
