//! More connections than there is room for, and a stop in the midst of it all.

use std::net::SocketAddr;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;

use crate::siege::{Siege, quick};
use crate::support::conversation::Conversation;
use crate::support::probe::probe;
use crate::support::{EVENT, TOKEN, within};
use crate::wire::{CHECK, END_HEADERS, HEADERS, INFO, Raw, call, frame};

/// Strangers that hold their connections: every other one stalls in the
/// handshake, the others speak HTTP/2, and some of those make calls.
async fn strangers(
    address: SocketAddr,
    count: usize,
) -> (Vec<Raw<tokio::net::TcpStream>>, Vec<Raw>) {
    let (mut stalled, mut speaking) = (Vec::new(), Vec::new());
    for n in 0..count {
        if n % 2 == 0 {
            let mut raw = Raw::tcp(address).await;
            let _ = raw.send(&[0x16, 3, 1, 2]).await;
            stalled.push(raw);
        } else if let Ok(mut raw) = Raw::tls(address, &[b"h2"]).await {
            let path = if n % 4 == 1 { CHECK } else { INFO };
            let _ = raw.send(crate::wire::PREFACE).await;
            let _ = raw.send(&frame(4, 0, 0, &[])).await;
            let _ = raw.send(&frame(HEADERS, END_HEADERS, 1, &call(path, None))).await;
            speaking.push(raw);
        }
    }
    (stalled, speaking)
}

#[tokio::test]
async fn a_crowd_of_strangers_keeps_nobody_out_who_has_the_token() {
    let mut siege = Siege::begin(quick().with_connections(32)).await;
    let crowd = tokio::spawn(strangers(siege.address, 300));
    for _ in 0..10 {
        let fresh = siege.started.client().await;
        for _ in 0..5 {
            fresh.info().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let crowd = within(crowd).await.unwrap();
    siege.started.client().await.info().await.unwrap();
    drop(crowd);
    siege.over().await;
}

#[tokio::test]
async fn a_first_call_that_takes_long_is_not_taken_for_a_strangers() {
    let slow = probe().event(|probe, _| async move {
        probe.record("event");
        probe.wait_at_gate().await;
        Ok(())
    });
    let mut siege = Siege::of(slow, quick().with_connections(8)).await;
    let fresh = siege.started.client().await;
    let event = tokio::spawn(async move { fresh.external_event(EVENT).await });
    siege.probe.until_seen("event").await;
    let crowd = strangers(siege.address, 40).await;
    siege.probe.open_gate();
    within(event).await.unwrap().expect("strangers pushed out who had shown the token");
    drop(crowd);
    siege.over().await;
}

#[tokio::test]
async fn a_stop_in_the_midst_of_it_all_is_bounded() {
    let stubborn = probe()
        .serve(|_, _| std::future::pending())
        .event(|_, _| std::future::pending())
        .shutdown(|_, ()| std::future::pending());
    let siege = Siege::of(stubborn, quick()).await;
    let crowd = strangers(siege.address, 60).await;
    let fresh = siege.started.client().await;
    let event = tokio::spawn({
        let fresh = fresh.clone();
        async move { fresh.external_event(EVENT).await }
    });
    let watch = fresh.connection.health().watch(HealthCheckRequest::default()).await.unwrap();
    let talk = Conversation::installer(&fresh).await.unwrap();
    let mut deaf = Raw::http2(siege.address, &[(4, 0)]).await;
    for stream in [1, 3, 5] {
        let headers = frame(HEADERS, END_HEADERS, stream, &call(INFO, Some(TOKEN)));
        deaf.send(&headers).await.unwrap();
    }
    // A grace for the subscriptions, one for the clean-up, a second each for
    // connections and calls, and what a busy machine adds.
    let took = siege.stop().await;
    assert!(took < Duration::from_millis(200 + 200 + 2_000 + 5_000), "it took {took:?}");
    assert!(within(event).await.unwrap().is_err());
    drop((crowd, watch, talk, deaf));
}
