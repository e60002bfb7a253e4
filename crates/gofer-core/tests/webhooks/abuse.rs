//! Slow senders, senders that use much memory, and extensions that hang, each with a good sender
//! that must not be affected.

use std::net::SocketAddr;
use std::time::Duration;

use gofer_core::ExternalEventLimits;
use tokio::io::AsyncWriteExt;

use crate::inbox::Setup;
use crate::sender::{Answer, Sender, within};

const KIB: usize = 1024;

/// A timeout that a test can wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A timeout that no test waits for: [`within`] fails sooner.
const LONG: Duration = Duration::from_secs(600);

fn limits() -> ExternalEventLimits {
    ExternalEventLimits::default()
}

fn head(name: &str, length: usize) -> String {
    format!("POST /external/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

/// The answer to what is sent on a new connection, and the connection. On a busy machine it may
/// arrive only after the header timeout: a connection that is closed without an answer is opened
/// again.
async fn first_answer(address: SocketAddr, bytes: &str) -> (Sender, Answer) {
    let attempts = async {
        loop {
            let mut sender = Sender::to(address).await;
            if sender.0.write_all(bytes.as_bytes()).await.is_ok()
                && let Some(answer) = sender.next_answer().await
            {
                return (sender, answer);
            }
        }
    };
    within(attempts).await
}

#[tokio::test]
async fn a_request_that_stalls_is_answered_408() {
    let setup = Setup::start(limits().with_header_timeout(SHORT).with_body_timeout(SHORT)).await;
    let (_hook, _inbox) = setup.install("hook").await;
    let half = head("hook", 100) + "half";
    let chunks = head("hook", 1).replace("Content-Length: 1", "Transfer-Encoding: chunked");
    for begun in ["P", "POST /external/hook HTTP/1.1\r\nHost", &half, &(chunks + "9\r\nhalf")] {
        let (mut sender, answer) = first_answer(setup.address, begun).await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        sender.closed().await;
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_an_answer() {
    let setup = Setup::start(limits().with_header_timeout(SHORT)).await;
    let (_hook, _inbox) = setup.install("hook").await;
    let mut fresh = Sender::to(setup.address).await;
    let (mut used, answer) = first_answer(setup.address, &head("hook", 0)).await;
    assert_eq!(answer.status, 200);
    fresh.closed().await;
    used.closed().await;
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_408() {
    let setup = Setup::start(limits().with_body_timeout(SHORT)).await;
    let (_hook, _inbox) = setup.install("hook").await;
    let (mut reader, mut writer) = {
        let mut sender = Sender::to(setup.address).await;
        sender.send(head("hook", 1_000_000)).await;
        sender.0.into_inner().into_split()
    };
    let trickle = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    drop(reader);
    within(trickle).await.unwrap();
}

#[tokio::test]
async fn at_the_limit_of_connections_the_slowest_is_closed() {
    let setup = Setup::start(limits().with_connections(16)).await;
    let (_hook, inbox) = setup.install("hook").await;
    // The extension is handling this one: it must not be closed.
    let mut busy = Sender::to(setup.address).await;
    busy.send(head("hook?hang", 0)).await;
    within(inbox.begun(1)).await;
    let mut half = Vec::new();
    for n in 0..100 {
        let mut sender = Sender::to(setup.address).await;
        let begun = if n % 2 == 0 { "POST /external/hook".to_owned() } else { head("hook", 9) };
        sender.send(begun).await;
        half.push(sender);
    }
    for _ in 0..20 {
        let mut good = Sender::to(setup.address).await;
        assert_eq!(good.post("/external/hook", "", b"good").await.status, 200);
    }
    inbox.release(1);
    assert_eq!(busy.answer().await.status, 200);
}

#[tokio::test]
async fn half_sent_bodies_are_given_up_if_memory_is_short() {
    let size = 1024 * KIB;
    let limits = limits().with_body_bytes(size).with_memory_bytes(0).with_queue_timeout(LONG);
    let setup = Setup::start(limits.with_body_timeout(LONG)).await;
    let (_hook, inbox) = setup.install("hook").await;
    let (_other, _) = setup.install("other").await;
    let mut greedy = Vec::new();
    for name in ["hook", "hook", "other", "other"] {
        let mut sender = Sender::to(setup.address).await;
        sender.send(head(name, size) + &"x".repeat(64 * KIB)).await;
        greedy.push(sender);
    }
    for _ in 0..3 {
        let mut good = Sender::to(setup.address).await;
        assert_eq!(good.post("/external/hook", "", &vec![0; size]).await.status, 200);
    }
    within(inbox.begun(3)).await;
}

#[tokio::test]
async fn an_extension_that_hangs_leaves_calls_and_memory_to_the_others() {
    let size = 1024 * KIB;
    let limits = limits()
        .with_body_bytes(size)
        .with_memory_bytes(0)
        .with_calls_per_extension(2)
        .with_queue_timeout(SHORT);
    let setup = Setup::start(limits).await;
    let (_hung, inbox) = setup.install("hung").await;
    let (_good, _) = setup.install("good").await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut sender = Sender::to(setup.address).await;
        sender.send([head("hung?hang", size).into_bytes(), vec![0; size]].concat()).await;
        waiting.push(sender);
    }
    within(inbox.begun(2)).await;
    // It has neither calls nor memory left, and the answer says so.
    for body in [vec![], vec![0; size]] {
        let mut one_more = Sender::to(setup.address).await;
        one_more.send([head("hung", body.len()).into_bytes(), body].concat()).await;
        let answer = one_more.answer().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    }
    for _ in 0..10 {
        let mut good = Sender::to(setup.address).await;
        assert_eq!(good.post("/external/good", "", &vec![0; size]).await.status, 200);
        assert_eq!(good.post("/external/good", "", b"").await.status, 200);
    }
    inbox.release(2);
    for mut sender in waiting {
        assert_eq!(sender.answer().await.status, 200);
    }
}

#[tokio::test]
async fn an_extension_that_hangs_leaves_connections_to_the_others() {
    let setup = Setup::start(limits().with_connections(12)).await;
    let (_hung, inbox) = setup.install("hung").await;
    let (_good, _) = setup.install("good").await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let mut sender = Sender::to(setup.address).await;
        sender.send(head("hung?hang", 0)).await;
        waiting.push(sender);
    }
    within(inbox.begun(6)).await;
    for _ in 0..20 {
        let mut one_more = Sender::to(setup.address).await;
        assert_eq!(one_more.post("/external/hung", "", b"").await.status, 503);
        let mut good = Sender::to(setup.address).await;
        assert_eq!(good.post("/external/good", "", b"").await.status, 200);
    }
}
