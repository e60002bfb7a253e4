//! Ten thousand webhooks of mixed sizes on 64 connections, while an attacker keeps a thousand
//! half-sent requests open: each arrives once and complete.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::inbox::{Setup, hex};
use crate::sender::Sender;

const WEBHOOKS: usize = 10_000;
const CONNECTIONS: usize = 64;
const HALF_SENT: usize = 1_000;

/// Both ends of each connection are in this process.
const OPEN_FILES: u64 = 2 * (CONNECTIONS + HALF_SENT) as u64 + 500;

/// Bodies are slices of this, each at a different offset.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let states = std::iter::successors(Some(1), next);
    states.map(|state: u32| state.to_le_bytes()[3]).take(4_000_000).collect()
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_webhooks_arrive_once_each_beside_a_thousand_half_sent_ones() {
    allow_open_files();
    let setup = Setup::start(super::limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let held = Arc::new(AtomicUsize::new(0));
    let mut attack = JoinSet::new();
    for n in 0..HALF_SENT {
        attack.spawn(hold(setup.address, n, Arc::clone(&held)));
    }
    while held.load(Ordering::Relaxed) < HALF_SENT {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        senders.spawn(send(setup.address, Arc::clone(&next)));
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
    assert!(attack.try_join_next().is_none(), "the attacker has failed");
    let complete = inbox.complete();
    for id in 0..WEBHOOKS {
        assert_eq!(complete.get(&id.to_string()), Some(&1), "the webhook {id}");
    }
    assert_eq!(complete.len(), WEBHOOKS);
    setup.core.stop().await;
}

/// The soft limit of many systems is lower than what this test needs.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.current.map(|now| now.max(OPEN_FILES));
    let allowed = match (wanted, limit.maximum) {
        (Some(wanted), Some(most)) => Some(wanted.min(most)),
        _ => wanted,
    };
    assert!(allowed.is_none_or(|allowed| allowed >= OPEN_FILES), "raise `ulimit -Hn`: {limit:?}");
    setrlimit(Resource::Nofile, Rlimit { current: allowed, ..limit }).unwrap();
}

/// Sends webhooks one after another on one connection.
async fn send(address: SocketAddr, next: Arc<AtomicUsize>) {
    let mut sender = Sender::to(address).await;
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        if id >= WEBHOOKS {
            return;
        }
        let body = &NOISE[id..][..size(id)];
        let headers = format!("X-Id: {id}\r\nX-Digest: {}\r\n", hex(body));
        let answer = if id % 5 == 4 {
            let head = format!(
                "POST /external/hook HTTP/1.1\r\nHost: localhost\r\n{headers}\
                 Transfer-Encoding: chunked\r\n\r\n"
            );
            sender.send(head).await;
            for chunk in body.chunks(20_000) {
                let size = format!("{:x}\r\n", chunk.len());
                sender.send([size.as_bytes(), chunk, b"\r\n"].concat()).await;
            }
            sender.send("0\r\n\r\n").await;
            sender.answer().await
        } else {
            sender.post("/external/hook", &headers, body).await
        };
        assert_eq!(answer.status, 200, "the webhook {id}: {answer:?}");
    }
}

/// From 0 to 3 MB, mostly small: about 130 MB in total.
fn size(id: usize) -> usize {
    match id {
        _ if id.is_multiple_of(1_000) => 3_000_000 + id,
        _ if id.is_multiple_of(100) => 300_000 + id,
        _ if id.is_multiple_of(10) => 20_000 + 3 * id,
        _ => (id * 37) % 8_000,
    }
}

/// Keeps a half-sent request open, and begins another one if its connection is closed.
async fn hold(address: SocketAddr, n: usize, held: Arc<AtomicUsize>) {
    let line = "POST /external/hook HTTP/1.1\r\nHost: localhost\r\n";
    let begun = match n % 5 {
        0 => line[..n % line.len()].to_owned(),
        1 => format!("{line}X-Id: 0\r\n"),
        2 => format!("{line}Content-Length: 1000\r\n\r\n{}", "x".repeat(500)),
        3 => format!("{line}Content-Length: 60000\r\n\r\n{}", "x".repeat(30_000)),
        _ => format!("{line}Transfer-Encoding: chunked\r\n\r\n3e8\r\n{}", "x".repeat(500)),
    };
    loop {
        let mut sender = Sender::to(address).await;
        sender.send(&begun).await;
        held.fetch_add(1, Ordering::Relaxed);
        // Until it is answered or closed.
        let _ = sender.0.read_to_end(&mut Vec::new()).await;
        held.fetch_sub(1, Ordering::Relaxed);
    }
}
