//! More connections than the limit, and a stop under load.

use std::net::SocketAddr;
use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;

use crate::abuse::{Target, alone, quick};
use crate::support::conversation::Conversation;
use crate::support::probe::probe;
use crate::support::{EVENT, TOKEN, within};
use crate::wire::{CHECK, END_HEADERS, HEADERS, INFO, Raw, call, frame};

/// Opens unauthenticated connections: every other one stalls in the handshake, the others speak
/// HTTP/2, and some of those make calls.
async fn unauthenticated(
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

#[test]
fn unauthenticated_connections_do_not_keep_out_callers_with_the_token() {
    alone(async {
        let mut target = Target::start(quick().with_connections(32)).await;
        let others = tokio::spawn(unauthenticated(target.address, 300));
        for _ in 0..10 {
            let fresh = target.started.client().await;
            for _ in 0..5 {
                fresh.info().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let others = within(others).await.unwrap();
        target.started.client().await.info().await.unwrap();
        drop(others);
        target.assert_unharmed().await;
    });
}

#[test]
fn a_connection_counts_as_authenticated_during_its_first_call() {
    alone(async {
        let slow = probe().event(|probe, _| async move {
            probe.record("event");
            probe.wait_at_gate().await;
            Ok(())
        });
        let mut target = Target::of(slow, quick().with_connections(8)).await;
        let fresh = target.started.client().await;
        let event = tokio::spawn(async move { fresh.external_event(EVENT).await });
        target.probe.until_seen("event").await;
        let others = unauthenticated(target.address, 40).await;
        target.probe.open_gate();
        within(event).await.unwrap().expect("an authenticated connection was evicted");
        drop(others);
        target.assert_unharmed().await;
    });
}

#[test]
fn a_stop_under_load_ends() {
    alone(async {
        let stubborn = probe()
            .serve(|_, _| std::future::pending())
            .event(|_, _| std::future::pending())
            .shutdown(|_, ()| std::future::pending());
        let target = Target::of(stubborn, quick()).await;
        let others = unauthenticated(target.address, 60).await;
        let fresh = target.started.client().await;
        let event = tokio::spawn({
            let fresh = fresh.clone();
            async move { fresh.external_event(EVENT).await }
        });
        let watch = fresh.connection.health().watch(HealthCheckRequest::default()).await.unwrap();
        let talk = Conversation::installer(&fresh).await.unwrap();
        let mut unread = Raw::http2(target.address, &[(4, 0)]).await;
        for stream in [1, 3, 5] {
            let headers = frame(HEADERS, END_HEADERS, stream, &call(INFO, Some(TOKEN)));
            unread.send(&headers).await.unwrap();
        }
        // Nothing here ends by itself: a stop without a bound would hang.
        target.stop().await;
        assert!(within(event).await.unwrap().is_err());
        drop((others, watch, talk, unread));
    });
}
