//! Calls that no honest caller makes: from strangers, who must cost next to
//! nothing, and from holders of the token, whose mistakes stay their own.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame as BodyFrame;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::tokio_stream::{self, StreamExt};

use crate::siege::{Siege, quick};
use crate::support::probe::together;
use crate::support::{Connection, EVENT, TOKEN, within};
use crate::wire::{CHECK, DATA, END_HEADERS, HEADERS, INFO, Raw, SUBSCRIBE, call, frame, message};

/// One call of any kind: its gRPC status, or none where the answer has none.
async fn post(connection: &Connection, method: Method, path: &str, body: Body) -> Option<Code> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(CONTENT_TYPE, "application/grpc").body(body).unwrap();
    within(async {
        let answered = tower_service::Service::call(&mut connection.clone(), request).await;
        let response = answered.expect("it is answered");
        let (head, body) = response.into_parts();
        let collected = body.collect().await.expect("the answer has an end");
        let mut trailers = collected.trailers().into_iter().chain([&head.headers]);
        let status = trailers.find_map(|headers| headers.get("grpc-status"))?;
        Some(Code::from_bytes(status.as_bytes()))
    })
    .await
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// A body that begins and never ends.
fn unfinished(start: Vec<Bytes>) -> Body {
    let start = tokio_stream::iter(start.into_iter().map(BodyFrame::data));
    let body = start.chain(tokio_stream::pending()).map(Ok::<_, std::convert::Infallible>);
    Body::new(StreamBody::new(body))
}

#[tokio::test]
async fn health_calls_that_never_end_hold_next_to_nothing() {
    let mut siege = Siege::begin(quick()).await;
    let stranger = siege.started.unauthenticated().await;
    // What is sent costs this side nothing: it is the same bytes all the time.
    let claim = Bytes::from_static(&[0, 0, 0x30, 0, 0]);
    let start = || [vec![claim.clone()], vec![Bytes::from(vec![0; 1 << 16]); 40]].concat();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (stranger, body) = (stranger.clone(), unfinished(start()));
            tokio::spawn(async move { post(&stranger, Method::POST, CHECK, body).await })
        })
        .collect();
    let mut most = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        most = most.max(siege.grown());
    }
    assert!(most < 48 << 20, "strangers hold {} MiB", most >> 20);
    for call in calls {
        call.abort();
    }
    drop(stranger);
    siege.over().await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_and_the_connection_lives() {
    let mut siege = Siege::begin(quick().with_message_bytes(64 << 10)).await;
    for size in [64 << 10, 128 << 10, 3 << 20] {
        let status = siege.good.external_event(vec![b'x'; size]).await.unwrap_err();
        let refused = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
        assert!(refused, "{size} bytes: {status}");
        assert!(!siege.good.connection.is_closed());
        siege.good.external_event(EVENT).await.unwrap();
    }
    siege.over().await;
}

#[tokio::test]
async fn messages_that_are_none_are_refused_and_the_connection_lives() {
    let mut siege = Siege::begin(quick()).await;
    let lying =
        |length: u32, flag: u8, rest: &[u8]| [&[flag][..], &length.to_be_bytes(), rest].concat();
    // Field 2 of Subscribe is the pipeline, field 4 the map.
    let bodies = [
        ("nothing", Vec::new()),
        ("half a head", vec![0, 0, 0]),
        ("less than announced", lying(100, 0, b"\x12\x01a")),
        ("much less than announced", lying(30 << 20, 0, b"\x12\x01a")),
        ("far too much announced", lying(u32::MAX, 0, b"\x12\x01a")),
        ("compressed without a word of it", lying(3, 1, b"\x12\x01a")),
        ("an unknown flag", lying(3, 7, b"\x12\x01a")),
        ("a field that is cut", message(b"\x12\x05a")),
        ("a field longer than anything", message(b"\x12\xff\xff\xff\xff\x0f")),
        ("a length of eleven bytes", message(&[[0x12].as_slice(), &[0xff; 11]].concat())),
        ("a number where a text belongs", message(b"\x10\x01")),
        ("a text that is not UTF-8", message(b"\x12\x02\xc3\x28")),
        ("a key that is not UTF-8", message(b"\x12\x01a\x22\x06\x0a\x02\xc3\x28\x12\x00")),
        ("groups without end", message(&vec![0x2b; 100_000])),
        ("a group that ends without a start", message(b"\x2c")),
        ("field number nought", message(b"\x02\x01a")),
        ("wire type seven", message(b"\x17\x01a")),
    ];
    for (what, body) in bodies {
        let code = post(&siege.good.connection, Method::POST, SUBSCRIBE, whole(body)).await;
        assert!(code.is_some_and(|code| code != Code::Ok), "{what}: {code:?}");
        assert!(!siege.good.connection.is_closed(), "{what}");
    }
    siege.over().await;
}

#[tokio::test]
async fn calls_of_what_is_not_there_are_answered() {
    let mut siege = Siege::begin(quick()).await;
    let trusted = &siege.good.connection;
    for path in [
        "/",
        "//",
        "/proto.ExtensionService",
        "/proto.ExtensionService/",
        "/proto.ExtensionService/info",
        "/proto.ExtensionService/Info/",
        "/proto.Gofer/StartRun",
        "/grpc.health.v1.Health/",
        "/grpc.health.v1.Health/../../proto.ExtensionService/Shutdown",
        "/%70roto.ExtensionService/Shutdown",
    ] {
        let code = post(trusted, Method::POST, path, whole(message(&[]))).await;
        assert_eq!(code, Some(Code::Unimplemented), "{path}");
    }
    let stranger = siege.started.unauthenticated().await;
    let sneaky = "/grpc.health.v1.Health/../../proto.ExtensionService/Shutdown";
    let code = post(&stranger, Method::POST, sneaky, whole(message(&[]))).await;
    assert_eq!(code, Some(Code::Unimplemented));
    for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::TRACE] {
        // Whether it is answered or refused: nothing hangs and nothing breaks.
        post(trusted, method.clone(), INFO, whole(message(&[]))).await;
        let code = post(&stranger, method, INFO, whole(message(&[]))).await;
        assert_eq!(code, Some(Code::Unauthenticated));
    }
    drop(stranger);
    siege.over().await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_let_go() {
    let mut siege = Siege::begin(quick()).await;
    let pipelines: Vec<String> = (0..20).map(|n| format!("{n:0>4000}")).collect();
    for pipeline in &pipelines {
        siege.good.subscribe(pipeline, &[]).await.unwrap();
    }
    // A window of nothing: each answer of 80 kB stays with the server.
    let mut raw = Raw::http2(siege.address, &[(4, 0)]).await;
    for n in 0..1_000 {
        let headers = frame(HEADERS, END_HEADERS, 2 * n + 1, &call(INFO, Some(TOKEN)));
        let body = frame(DATA, 1, 2 * n + 1, &message(&[]));
        raw.send(&[headers, body].concat()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // 256 calls of one connection are answered, the others refused.
    assert!(siege.grown() < 64 << 20, "{} MiB", siege.grown() >> 20);
    drop(raw);
    for pipeline in &pipelines {
        siege.good.unsubscribe(pipeline).await.unwrap();
    }
    siege.over().await;
}

#[tokio::test]
async fn settings_of_any_size_are_refused_in_few_words() {
    let mut siege = Siege::begin(quick()).await;
    let long = "k".repeat(1 << 20);
    let many: Vec<String> = (0..50_000).map(|n| format!("key-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "v")).collect();
    for settings in [&[(long.as_str(), "v")][..], &[("every", long.as_str())], &many] {
        let status = siege.good.subscribe("a", settings).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().len() < 4_000, "{} bytes", status.message().len());
    }
    for pipeline in [long.as_str(), ""] {
        let status = siege.good.subscribe(pipeline, &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    siege.over().await;
}

#[tokio::test]
async fn thousands_of_inits_change_nothing() {
    let mut siege = Siege::begin(quick()).await;
    let calls = (0..3_000).map(|n| {
        let (client, probe) = (siege.good.clone(), siege.probe.clone());
        async move { client.init(&probe.config_with(&n.to_string())).await }
    });
    for outcome in together(calls).await {
        assert_eq!(outcome.unwrap_err().code(), Code::FailedPrecondition);
    }
    assert_eq!(siege.probe.seen().count("init"), 1);
    siege.over().await;
}

#[tokio::test]
async fn thousands_of_changes_whose_callers_are_gone_leave_one_subscription() {
    let mut siege = Siege::begin(quick()).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(siege.started.client().await);
    }
    let calls: Vec<_> = (0..4_000)
        .map(|n: usize| {
            let client = connections[n % connections.len()].clone();
            tokio::spawn(async move {
                let value = n.to_string();
                drop(client.subscribe("hot", &[("value", &value)]).await);
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for call in &calls {
        call.abort();
    }
    drop(connections);
    // What was read from them is still taken up; then only the good client's
    // connection is left, and what the last of them started.
    siege.until_tasks(1).await;
    siege.good.subscribe("hot", &[("value", "last")]).await.unwrap();
    siege.probe.until(|seen| seen.running.get("hot") == Some(&1)).await;
    assert_eq!(siege.probe.seen().most, 1, "two ran at the same time");
    siege.good.unsubscribe("hot").await.unwrap();
    let seen = siege.probe.seen().events.last().cloned();
    assert_eq!(seen.as_deref(), Some("end hot last"));
    siege.over().await;
}
