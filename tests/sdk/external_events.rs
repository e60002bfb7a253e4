//! External events over a real socket: a payload reaches the author's code unchanged, and none can
//! stop the server.

use std::time::Duration;

use crate::in_memory::InMemory;
use crate::support::gofer::Behavior;
use crate::support::log::Log;
use crate::support::probe::probe;
use crate::support::{EVENT, Setup};
use gofer_sdk::{Error, ErrorKind, Extension, Gofer, NoConfig, NoParams, Result, Run};
use tonic::{Code, Status};

#[tokio::test]
async fn method_path_headers_and_body_arrive() {
    let extension = probe().event(|probe, event| async move {
        probe.record(format!("{} {} {:?}", event.method(), event.path(), event.query()));
        probe.record(format!("{:?}", event.header("x-github-event")));
        probe.record(format!("{:?}", event.body()));
        Ok(())
    });
    let (probe, _started, client) = extension.start(Setup::default()).await;
    let payload = b"PUT /external/probe/x%20y?team=web HTTP/1.1\r\n\
        Host: example.com\r\nX-GitHub-Event: push\r\nContent-Length: 5\r\n\r\n\x00\xff\r\n!";
    client.external_event(&payload[..]).await.unwrap();
    assert_eq!(
        probe.seen().events[1..],
        [r#"PUT /external/probe/x%20y Some("team=web")"#, r#"Some("push")"#, r#"b"\0\xff\r\n!""#,]
    );
}

#[tokio::test]
async fn an_event_of_32_mib_arrives_whole() {
    let extension = probe().event(|probe, event| async move {
        let sum: u64 = event.body().iter().map(|byte| u64::from(*byte)).sum();
        probe.record(format!("{} bytes, {sum}", event.body().len()));
        Ok(())
    });
    let (probe, _started, client) = extension.start(Setup::default()).await;
    let length = 32 * 1024 * 1024;
    let mut payload = EVENT.strip_suffix("body").unwrap().as_bytes().to_vec();
    payload.resize(payload.len() + length, 1);
    client.external_event(payload).await.unwrap();
    assert_eq!(probe.seen().events[1], format!("{length} bytes, {length}"));
}

#[tokio::test]
async fn what_is_not_an_http_request_is_refused() {
    let (probe, _started, client) = probe().start(Setup::default()).await;
    for payload in [
        &b""[..],
        b"\n",
        b"{\"event\": \"hunter2\"}",
        b"POST /hunter2 HTTP/1.1\r\nHost: example.com\r\n",
        b"POST /hunter2 HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort",
        b"\xff\xfe\x00\x00 / HTTP/1.1\r\n\r\n",
    ] {
        let status = client.external_event(payload).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("HTTP request"), "{status}");
        assert!(!status.message().contains("hunter2"), "{status}");
    }
    assert_eq!(probe.seen().events, ["init"], "none of them reached the author's code");
}

#[tokio::test]
async fn a_panic_in_an_event_handler_is_internal_and_the_server_keeps_running() {
    let extension = probe().event(|probe, event| async move {
        assert!(event.method() == "GET", "on purpose, with hunter2");
        probe.record("handled");
        Ok(())
    });
    let (probe, _started, client) = extension.start(Setup::default()).await;
    client.subscribe("a", &[]).await.unwrap();
    for _ in 0..3 {
        let status = client.external_event(EVENT).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(!status.message().contains("hunter2"), "{status}");
    }
    client.external_event("GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(probe.seen().has("handled"));
    assert_eq!(probe.seen().running.len(), 1, "the subscriptions are not affected");
}

#[tokio::test]
async fn what_the_extension_refuses_is_reported_and_its_own_failure_is_not() {
    let extension = probe().event(|_, event| async move {
        match event.path() {
            "/unsigned" => Err(Error::invalid_parameter("signature", "is missing")),
            _ => Err(Error::internal("the database says hunter2")),
        }
    });
    let (_, _started, client) = extension.start(Setup::default()).await;
    let refused = client.external_event("GET /unsigned HTTP/1.1\r\n\r\n").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "parameter `signature`: is missing");
    let failed = client.external_event("GET / HTTP/1.1\r\n\r\n").await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    assert_eq!(failed.message(), "the extension failed; see its log");
}

#[tokio::test]
async fn the_status_of_another_service_is_shown_only_if_the_author_asks_for_it() {
    let extension = probe().event(|_, event| async move {
        let answer = Err(Status::not_found("there is no channel hunter2"));
        match event.path() {
            "/passed-on" => answer.map_err(Error::from_status),
            _ => Ok(answer?),
        }
    });
    let (_, _started, client) = extension.start(Setup::default()).await;
    let shown = client.external_event("GET /passed-on HTTP/1.1\r\n\r\n").await.unwrap_err();
    assert_eq!(shown.code(), Code::NotFound);
    assert_eq!(shown.message(), "there is no channel hunter2");
    let hidden = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(hidden.code(), Code::Internal);
    assert_eq!(hidden.message(), "the extension failed; see its log");
}

/// An extension that leaves everything to the defaults.
struct Default;

impl Extension for Default {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }
}

#[tokio::test]
async fn an_extension_that_takes_no_events_returns_unimplemented() {
    let started = Setup::default().start::<Default>();
    let client = started.client().await;
    client.init(&[]).await.unwrap();
    let status = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

/// What Gofer answers to the extension is no answer to the sender, who may read it as "unauthorized",
/// for example.
#[tokio::test(start_paused = true)]
async fn what_gofer_refuses_the_extension_is_no_fault_of_the_sender() {
    for (refused, expected) in [
        (Code::PermissionDenied, Code::Internal),
        (Code::Unauthenticated, Code::Internal),
        (Code::NotFound, Code::Internal),
        (Code::InvalidArgument, Code::Internal),
        (Code::ResourceExhausted, Code::Unavailable),
        (Code::FailedPrecondition, Code::FailedPrecondition),
    ] {
        let extension = probe().event(|probe, _| async move {
            probe.gofer().start_run("a", "l", Run::because("an event")).await.map(drop)
        });
        let gofer = move |_: &_, _| Behavior::Refuse(Status::new(refused, "on purpose"));
        let InMemory { client, .. } = &InMemory::start(extension, gofer).await;
        let answer = client.external_event(EVENT).await.unwrap_err();
        assert_eq!(answer.code(), expected, "for {refused:?}: {answer}");
    }
    // An author's own is.
    let extension = probe().event(|_, _| async {
        Err(Error::new(ErrorKind::PermissionDenied, "the signature does not match"))
    });
    let InMemory { client, .. } = &InMemory::start(extension, |_, _| Behavior::Answer).await;
    let answer = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(answer.code(), Code::PermissionDenied, "{answer}");
}

/// Nobody else would report it.
#[tokio::test(start_paused = true)]
async fn an_event_that_fails_after_its_caller_has_gone_away_is_logged() {
    let log = Log::begin();
    let extension = probe().event(|probe, _| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        probe.record("it fails".to_owned());
        Err(Error::unavailable("the queue is full"))
    });
    let InMemory { client, probe, .. } = &InMemory::start(extension, |_, _| Behavior::Answer).await;
    let call = tokio::time::timeout(Duration::from_secs(30), client.external_event(EVENT));
    assert!(call.await.is_err(), "it was answered");
    probe.until_seen("it fails").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lines = log.take();
    let is_it = |line: &&String| line.contains("its caller has gone away");
    let line = lines.iter().find(is_it).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(line.contains("the queue is full"), "{line}");
}
