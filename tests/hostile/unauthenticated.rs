//! Many unauthenticated connections, each with as many calls as it can have.

use std::collections::VecDeque;
use std::time::Duration;

use gofer_sdk::Limits;
use tonic_health::pb::HealthCheckRequest;

use crate::abuse::{Target, alone, quick};
use crate::support::{Connection, bearer, within};
use crate::wire::{
    ACK, CHECK, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, call, frame, hpack, message,
};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The default limit is 1024.
const CONNECTIONS: usize = 24;

/// The memory that all their calls may hold if each is small, in bytes: half of what it is if every
/// call that watches is kept.
const SMALL: usize = 20 << 20;

/// The same if each has long headers: a sixth of what they send, and twice what is measured.
const LONG: usize = 15 << 20;

/// On a busy machine it may take seconds to send all that, for which no call is answered.
fn patient() -> Limits {
    quick().with_first_call_timeout(Duration::from_secs(60))
}

/// Opens connections, each of which makes 250 calls that start with these headers and this body.
async fn connections(target: &Target, headers: &[u8], body: Option<&[u8]>) -> Vec<Raw> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut raw = Raw::http2(target.address, &[]).await;
        raw.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        for stream in (1..500).step_by(2) {
            let mut start = frame(HEADERS, END_HEADERS, stream, headers);
            if let Some(body) = body {
                start.extend(frame(DATA, END_STREAM, stream, body));
            }
            raw.send(&start).await.unwrap();
        }
        connections.push(raw);
    }
    connections
}

/// What is held once the server has read everything. While it reads, it depends on how much has
/// arrived at once, and so on what else the machine does.
async fn held(target: &Target) -> usize {
    within(async {
        let mut samples = VecDeque::new();
        loop {
            samples.push_back(target.grown());
            let (least, most) = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
            if samples.len() == 50 && most - least < 1 << 20 {
                return *most;
            }
            if samples.len() == 50 {
                samples.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[test]
fn unauthenticated_calls_with_long_headers_hold_next_to_nothing() {
    alone(async {
        let mut target = Target::start(patient()).await;
        // As long as allowed, and of calls that never end.
        let headers = [call(CHECK, None), hpack(&[("x-long", &"x".repeat(15_000))])].concat();
        let connections = connections(&target, &headers, None).await;
        let held = held(&target).await;
        assert!(held < LONG, "{CONNECTIONS} connections hold {} MiB", held >> 20);
        drop(connections);
        target.assert_unharmed().await;
    });
}

#[test]
fn unauthenticated_calls_that_watch_hold_next_to_nothing() {
    alone(async {
        let mut target = Target::start(patient()).await;
        // Response streams that neither side ends.
        let connections = connections(&target, &call(WATCH, None), Some(&message(&[]))).await;
        let held = held(&target).await;
        assert!(held < SMALL, "{CONNECTIONS} connections hold {} MiB", held >> 20);
        drop(connections);
        target.assert_unharmed().await;
    });
}

#[test]
fn watches_of_others_do_not_make_a_health_check_fail() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let mut watching = Vec::new();
        for _ in 0..128 {
            let connection = target.started.unauthenticated().await;
            for _ in 0..8 {
                // Answered, with a stream or a refusal.
                if let Ok(watch) = connection.health().watch(HealthCheckRequest::default()).await {
                    watching.push((connection.clone(), watch));
                }
            }
        }
        assert!(watching.len() >= 8, "no Watch is served without a token");
        let balancer = target.started.unauthenticated().await;
        for connection in [&balancer, &watching[0].0] {
            connection.health().check(HealthCheckRequest::default()).await.unwrap();
        }
        drop((watching, balancer));
        target.assert_unharmed().await;
    });
}

#[test]
fn connections_of_gofer_itself_that_are_idle_do_not_keep_it_out() {
    alone(async {
        let mut target = Target::start(quick().with_connections(32)).await;
        let mut leaked = Vec::new();
        for _ in 0..100 {
            let client = target.started.client().await;
            client.info().await.unwrap();
            leaked.push(client);
        }
        drop(leaked);
        target.assert_unharmed().await;
    });
}

#[test]
fn connections_with_a_wrong_token_do_not_keep_gofer_out() {
    alone(async {
        // One for the good client, and four with the wrong token.
        let mut target = Target::start(quick().with_connections(5)).await;
        let mut connections = Vec::new();
        for _ in 0..4 {
            let connection = Connection::open(target.address, [bearer("not the token")]).await;
            // Health needs no token, so it does not authenticate the connection.
            connection.health().check(HealthCheckRequest::default()).await.unwrap();
            connections.push(connection);
        }
        target.started.client().await.info().await.unwrap();
        drop(connections);
        target.assert_unharmed().await;
    });
}
