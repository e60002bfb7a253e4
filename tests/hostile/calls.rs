//! Abusive calls: from unauthenticated peers, which must cost next to nothing, and from callers
//! with the token, which must not affect others.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame as BodyFrame;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::tokio_stream::{self, StreamExt};

use crate::abuse::{Target, alone, quick};
use crate::support::probe::together;
use crate::support::{Connection, EVENT, TOKEN, within};
use crate::wire::{CHECK, DATA, END_HEADERS, HEADERS, INFO, Raw, SUBSCRIBE, call, frame, message};

/// Makes a call, and returns the gRPC status of its response if it has one.
async fn post(connection: &Connection, method: Method, path: &str, body: Body) -> Option<Code> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(CONTENT_TYPE, "application/grpc").body(body).unwrap();
    within(async {
        let answered = tower_service::Service::call(&mut connection.clone(), request).await;
        let response = answered.expect("the call is answered");
        let (head, body) = response.into_parts();
        let collected = body.collect().await.expect("the response ends");
        let mut trailers = collected.trailers().into_iter().chain([&head.headers]);
        let status = trailers.find_map(|headers| headers.get("grpc-status"))?;
        Some(Code::from_bytes(status.as_bytes()))
    })
    .await
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// A body that starts and never ends.
fn unfinished(start: Vec<Bytes>) -> Body {
    let start = tokio_stream::iter(start.into_iter().map(BodyFrame::data));
    let body = start.chain(tokio_stream::pending()).map(Ok::<_, std::convert::Infallible>);
    Body::new(StreamBody::new(body))
}

#[test]
fn health_calls_that_never_end_hold_next_to_nothing() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let unauthenticated = target.started.unauthenticated().await;
        // The bytes are shared, so they cost this side nothing.
        let head = Bytes::from_static(&[0, 0, 0x30, 0, 0]);
        let start = || [vec![head.clone()], vec![Bytes::from(vec![0; 1 << 16]); 40]].concat();
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (unauthenticated, body) = (unauthenticated.clone(), unfinished(start()));
                tokio::spawn(async move { post(&unauthenticated, Method::POST, CHECK, body).await })
            })
            .collect();
        let mut most = 0;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            most = most.max(target.grown());
        }
        assert!(most < 48 << 20, "unauthenticated calls hold {} MiB", most >> 20);
        for call in calls {
            call.abort();
        }
        drop(unauthenticated);
        target.assert_unharmed().await;
    });
}

#[test]
fn a_message_above_the_limit_is_rejected_and_the_connection_stays() {
    alone(async {
        let mut target = Target::start(quick().with_message_bytes(64 << 10)).await;
        for size in [64 << 10, 128 << 10, 3 << 20] {
            let status = target.good.external_event(vec![b'x'; size]).await.unwrap_err();
            let refused = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
            assert!(refused, "{size} bytes: {status}");
            assert!(!target.good.connection.is_closed());
            target.good.external_event(EVENT).await.unwrap();
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn invalid_messages_are_rejected_and_the_connection_stays() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let lying = |length: u32, flag: u8, rest: &[u8]| {
            [&[flag][..], &length.to_be_bytes(), rest].concat()
        };
        // Field 2 of Subscribe is the pipeline, field 4 the map.
        let bodies = [
            ("empty", Vec::new()),
            ("half a head", vec![0, 0, 0]),
            ("less than announced", lying(100, 0, b"\x12\x01a")),
            ("much less than announced", lying(30 << 20, 0, b"\x12\x01a")),
            ("far too much announced", lying(u32::MAX, 0, b"\x12\x01a")),
            ("compressed, without a header that says so", lying(3, 1, b"\x12\x01a")),
            ("an unknown flag", lying(3, 7, b"\x12\x01a")),
            ("a truncated field", message(b"\x12\x05a")),
            ("a field of 4 GiB", message(b"\x12\xff\xff\xff\xff\x0f")),
            ("a length of eleven bytes", message(&[[0x12].as_slice(), &[0xff; 11]].concat())),
            ("a number in place of a string", message(b"\x10\x01")),
            ("a string that is not UTF-8", message(b"\x12\x02\xc3\x28")),
            ("a key that is not UTF-8", message(b"\x12\x01a\x22\x06\x0a\x02\xc3\x28\x12\x00")),
            ("endless groups", message(&vec![0x2b; 100_000])),
            ("a group that ends without a start", message(b"\x2c")),
            ("field number zero", message(b"\x02\x01a")),
            ("wire type seven", message(b"\x17\x01a")),
        ];
        for (what, body) in bodies {
            let code = post(&target.good.connection, Method::POST, SUBSCRIBE, whole(body)).await;
            assert!(code.is_some_and(|code| code != Code::Ok), "{what}: {code:?}");
            assert!(!target.good.connection.is_closed(), "{what}");
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn calls_of_unknown_methods_are_answered() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let trusted = &target.good.connection;
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
        let unauthenticated = target.started.unauthenticated().await;
        let sneaky = "/grpc.health.v1.Health/../../proto.ExtensionService/Shutdown";
        let code = post(&unauthenticated, Method::POST, sneaky, whole(message(&[]))).await;
        assert_eq!(code, Some(Code::Unimplemented));
        for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::TRACE] {
            // Any outcome is right, as long as it does not hang.
            post(trusted, method.clone(), INFO, whole(message(&[]))).await;
            let code = post(&unauthenticated, method, INFO, whole(message(&[]))).await;
            assert_eq!(code, Some(Code::Unauthenticated));
        }
        drop(unauthenticated);
        target.assert_unharmed().await;
    });
}

#[test]
fn unread_responses_are_bounded_and_released() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let pipelines: Vec<String> = (0..20).map(|n| format!("{n:0>4000}")).collect();
        for pipeline in &pipelines {
            target.good.subscribe(pipeline, &[]).await.unwrap();
        }
        // With a window of 0, each response of 80 kB stays on the server.
        let mut raw = Raw::http2(target.address, &[(4, 0)]).await;
        for n in 0..1_000 {
            let headers = frame(HEADERS, END_HEADERS, 2 * n + 1, &call(INFO, Some(TOKEN)));
            let body = frame(DATA, 1, 2 * n + 1, &message(&[]));
            raw.send(&[headers, body].concat()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        // 256 calls of a connection are answered, the others are rejected.
        assert!(target.grown() < 64 << 20, "{} MiB", target.grown() >> 20);
        drop(raw);
        for pipeline in &pipelines {
            target.good.unsubscribe(pipeline).await.unwrap();
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn settings_of_any_size_are_rejected_with_a_short_message() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let long = "k".repeat(1 << 20);
        let many: Vec<String> = (0..50_000).map(|n| format!("key-{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "v")).collect();
        for settings in [&[(long.as_str(), "v")][..], &[("every", long.as_str())], &many] {
            let status = target.good.subscribe("a", settings).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().len() < 4_000, "{} bytes", status.message().len());
        }
        for pipeline in [long.as_str(), ""] {
            let status = target.good.subscribe(pipeline, &[]).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn thousands_of_inits_change_nothing() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let calls = (0..3_000).map(|n| {
            let (client, probe) = (target.good.clone(), target.probe.clone());
            async move { client.init(&probe.config_with(&n.to_string())).await }
        });
        for outcome in together(calls).await {
            assert_eq!(outcome.unwrap_err().code(), Code::FailedPrecondition);
        }
        assert_eq!(target.probe.seen().count("init"), 1);
        target.assert_unharmed().await;
    });
}

#[test]
fn thousands_of_abandoned_changes_leave_one_subscription() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let mut connections = Vec::new();
        for _ in 0..8 {
            connections.push(target.started.client().await);
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
        // Calls that were read are still executed. Then only the good client's connection is left,
        // and what the last of the calls started.
        target.until_tasks(1).await;
        target.good.subscribe("hot", &[("value", "last")]).await.unwrap();
        target.probe.until(|seen| seen.running.get("hot") == Some(&1)).await;
        assert_eq!(target.probe.seen().most, 1, "two ran at the same time");
        target.good.unsubscribe("hot").await.unwrap();
        let seen = target.probe.seen().events.last().cloned();
        assert_eq!(seen.as_deref(), Some("end hot last"));
        target.assert_unharmed().await;
    });
}
