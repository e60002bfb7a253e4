//! What strangers do together: many connections, each with all the calls that
//! it can have, and none of them known by a token.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;

use crate::siege::{Siege, quick};
use crate::support::{Connection, bearer};
use crate::wire::{
    ACK, CHECK, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, call, frame, hpack, message,
};

const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Of the 1024 connections that are allowed by default.
const CROWD: usize = 24;

/// What all their calls may hold in bytes, where each is small: half of what it
/// is where every call that watches is held, and twice what is seen.
const SMALL: usize = 20 << 20;

/// The same where each has long headers: half of what they send, and twice what
/// is seen.
const LONG: usize = 45 << 20;

/// A crowd of strangers, each of whom makes 250 calls that begin so.
async fn crowd(siege: &Siege, headers: &[u8], body: Option<&[u8]>) -> Vec<Raw> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut raw = Raw::http2(siege.address, &[]).await;
        raw.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        for stream in (1..500).step_by(2) {
            let mut start = frame(HEADERS, END_HEADERS, stream, headers);
            if let Some(body) = body {
                start.extend(frame(DATA, END_STREAM, stream, body));
            }
            raw.send(&start).await.unwrap();
        }
        crowd.push(raw);
    }
    crowd
}

/// The most that is held while all that was sent is being read.
async fn most_held(siege: &Siege) -> usize {
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(siege.grown());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    most
}

#[tokio::test]
async fn strangers_with_long_headers_hold_next_to_nothing() {
    let mut siege = Siege::begin(quick()).await;
    // As long as is accepted, and calls that never end.
    let headers = [call(CHECK, None), hpack(&[("x-long", &"x".repeat(15_000))])].concat();
    let crowd = crowd(&siege, &headers, None).await;
    let most = most_held(&siege).await;
    assert!(most < LONG, "{CROWD} strangers hold {} MiB", most >> 20);
    drop(crowd);
    siege.over().await;
}

#[tokio::test]
async fn strangers_that_watch_hold_next_to_nothing() {
    let mut siege = Siege::begin(quick()).await;
    // Answers that neither side ever ends.
    let crowd = crowd(&siege, &call(WATCH, None), Some(&message(&[]))).await;
    let most = most_held(&siege).await;
    assert!(most < SMALL, "{CROWD} strangers hold {} MiB", most >> 20);
    drop(crowd);
    siege.over().await;
}

#[tokio::test]
async fn strangers_with_a_wrong_token_do_not_keep_gofer_out() {
    // A place for the good client, and four that strangers take.
    let mut siege = Siege::begin(quick().with_connections(5)).await;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let stranger = Connection::open(siege.address, [bearer("not the token")]).await;
        // Health is told to anybody, and that earns nobody trust.
        stranger.health().check(HealthCheckRequest::default()).await.unwrap();
        crowd.push(stranger);
    }
    siege.started.client().await.info().await.unwrap();
    drop(crowd);
    siege.over().await;
}
