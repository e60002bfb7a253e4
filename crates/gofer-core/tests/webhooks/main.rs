//! External events over real sockets: the answers to senders, and what reaches the extension. Slow
//! senders and extensions that hang are in `abuse.rs`, a high load is in `load.rs`.

#![allow(unreachable_pub, reason = "the parts are modules of this test")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails the test"
)]

mod abuse;
#[cfg(feature = "store")]
#[path = "../core/files.rs"]
mod files;
mod inbox;
#[cfg(feature = "store")]
mod killed;
mod load;
mod sender;

use std::sync::Arc;

use gofer_core::{Core, ExternalEventLimits};
use gofer_proto as proto;
use gofer_sdk::ErrorKind;
use inbox::{Setup, hex};
use sender::{Sender, within};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const MIB: usize = 1024 * 1024;

fn limits() -> ExternalEventLimits {
    ExternalEventLimits::default()
}

#[tokio::test]
async fn the_request_arrives_as_it_was_sent() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("my hook").await;
    let mut sender = Sender::to(setup.address).await;
    let answer = sender
        .post("/external/my%20hook?a=%2F&a=", "x-gitHub-event: push\r\nX-B: 1\r\nx-b: 2\r\n", b"{}")
        .await;
    assert_eq!((answer.status, &*answer.body), (200, "The event was accepted.\n"));
    assert_eq!(
        inbox.raw(),
        ["POST /external/my%20hook?a=%2F&a= HTTP/1.1\r\nHost: localhost\r\n\
          X-Github-Event: push\r\nX-B: 1\r\nX-B: 2\r\nContent-Length: 2\r\n\r\n{}"]
    );
    // On the same connection, without a body.
    assert_eq!(sender.post("/external/my%20hook", "", b"").await.status, 200);
    assert!(inbox.raw()[1].ends_with("Content-Length: 0\r\n\r\n"));
}

#[tokio::test]
async fn a_body_in_chunks_arrives_in_one_piece() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    let request = "POST /external/hook HTTP/1.1\r\nHost: localhost\r\nTrailer: X-Sum\r\n\
                   Transfer-Encoding: Chunked\r\n\r\n3;ext=1\r\nabc\r\na\r\ndefghijklm\r\n\
                   0\r\nX-Sum: 9\r\n\r\n";
    for byte in request.bytes() {
        sender.send([byte]).await;
    }
    assert_eq!(sender.answer().await.status, 200);
    assert_eq!(
        inbox.raw(),
        ["POST /external/hook HTTP/1.1\r\nHost: localhost\r\n\
          Content-Length: 13\r\n\r\nabcdefghijklm"]
    );
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let setup = Setup::start(limits().with_body_bytes(1000)).await;
    let (_hook, inbox) = setup.install("hook").await;
    let asks = |name: &str, length: usize| {
        format!(
            "POST /external/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    for (name, length, status) in [("hook", 1001, 413), ("other", 4, 404)] {
        let mut sender = Sender::to(setup.address).await;
        sender.send(asks(name, length)).await;
        let answer = sender.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        sender.closed().await;
    }
    let mut sender = Sender::to(setup.address).await;
    sender.send(asks("hook", 4)).await;
    assert_eq!(sender.answer().await.status, 100);
    sender.send("body").await;
    assert_eq!(sender.answer().await.status, 200);
    assert!(inbox.raw()[0].ends_with("\r\n\r\nbody"));
}

#[tokio::test]
async fn what_is_not_an_event_is_rejected_with_a_status() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let head =
        |rest: &str| format!("POST /external/hook HTTP/1.1\r\nHost: localhost\r\n{rest}\r\n");
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let many = "X-Y: z\r\n".repeat(300);
    for (request, status) in [
        (head("").replace("/hook", "/hunter2"), 404),
        (head("").replace("/hook", "/hook/more"), 404),
        (head("").replace("/hook", "/"), 404),
        (head("").replace("/external", "/internal"), 404),
        (head("").replace("POST", "GET"), 405),
        (head("").replace("/hook", "/hunter2").replace("POST", "PUT"), 405),
        (head("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n", 501),
        (head("Transfer-Encoding: chunked\r\n") + "hunter2\r\n", 400),
        (head("Content-Length: hunter2\r\n"), 400),
        (head("Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (head("no header\r\n"), 400),
        ("hunter2\r\n\r\n".to_owned(), 400),
        (head(&long), 431),
        (head(&many), 431),
    ] {
        let mut sender = Sender::to(setup.address).await;
        sender.send(&request).await;
        let answer = sender.answer().await;
        assert_eq!(answer.status, status, "{request}");
        assert!(!answer.body.contains("hunter2"), "{answer:?}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("post"));
    }
    assert!(inbox.raw().is_empty());
}

#[tokio::test]
async fn the_outcome_is_reported_without_the_error_message() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    for (query, status) in [
        ("accept", 200),
        ("refuse", 400),
        ("fail", 500),
        ("panic", 500),
        ("not-found", 404),
        ("full", 500),
        ("later", 503),
        ("accept", 200),
    ] {
        let answer = sender.post(&format!("/external/hook?{query}"), "", b"").await;
        assert_eq!(answer.status, status, "{query}");
        assert!(!answer.body.contains("hunter2"), "{answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
    assert_eq!(inbox.raw().len(), 2);
}

#[tokio::test]
async fn unavailable_and_unknown_extensions_are_distinguished() {
    let setup = Setup::start(limits()).await;
    let (hook, _inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    assert_eq!(sender.post("/external/hook", "", b"").await.status, 200);
    let mut api = setup.core.client().api();
    let name = || "hook".to_owned();
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    let answer = sender.post("/external/hook", "", b"").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    api.enable_extension(proto::EnableExtensionRequest { name: name() }).await.unwrap();
    assert_eq!(sender.post("/external/hook", "", b"").await.status, 200);
    hook.uninstall().await.unwrap();
    assert_eq!(sender.post("/external/hook", "", b"").await.status, 404);
}

#[tokio::test]
async fn a_body_of_32_mib_arrives_and_one_byte_more_is_rejected() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let mut body = vec![b'x'; 32 * MIB];
    let headers = format!("X-Id: big\r\nX-Digest: {}\r\n", hex(&body));
    let mut sender = Sender::to(setup.address).await;
    assert_eq!(sender.post("/external/hook", &headers, &body).await.status, 200);
    assert_eq!(inbox.complete(), [("big".to_owned(), 1)].into());
    // The sender gets the answer although it sends the whole body first.
    body.push(b'x');
    let answer = sender.post("/external/hook", "", &body).await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
}

#[tokio::test]
async fn chunks_that_exceed_the_limit_together_are_rejected() {
    let setup = Setup::start(limits().with_body_bytes(100_000)).await;
    let (_hook, inbox) = setup.install("hook").await;
    for (chunks, status) in [(10, 200), (11, 413)] {
        let mut sender = Sender::to(setup.address).await;
        sender
            .send("POST /external/hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for _ in 0..chunks {
            sender.send(format!("2710\r\n{}\r\n", "x".repeat(10_000))).await;
        }
        if status == 200 {
            sender.send("0\r\n\r\n").await;
        }
        assert_eq!(sender.answer().await.status, status);
    }
    within(inbox.begun(1)).await;
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_extension_is_rejected() {
    let setup = Setup::start(limits().with_body_bytes(48 * MIB)).await;
    let (_hook, _inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    assert_eq!(sender.post("/external/hook", "", &vec![0; 41 * MIB]).await.status, 413);
    // The core has read the whole body, so the connection stays open.
    assert_eq!(sender.post("/external/hook", "", b"").await.status, 200);
}

#[tokio::test]
async fn an_event_is_delivered_even_if_its_sender_does_not_wait() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    sender.send("POST /external/hook?hang HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    within(inbox.begun(1)).await;
    drop(sender);
    let mut other = Sender::to(setup.address).await;
    assert_eq!(other.post("/external/hook", "", b"").await.status, 200);
    inbox.release(1);
    let both = async {
        while inbox.raw().len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(both).await;
}

#[tokio::test]
async fn a_sender_that_shuts_down_its_side_is_answered() {
    let setup = Setup::start(limits()).await;
    let (_hook, _inbox) = setup.install("hook").await;
    let mut sender = Sender::to(setup.address).await;
    sender.send("POST /external/hook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    sender.0.shutdown().await.unwrap();
    assert_eq!(sender.answer().await.status, 200);
}

#[tokio::test]
async fn with_a_certificate_only_https_is_served() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let setup = Setup::of(Core::builder().external_events_tls(&certificate, key)).await;
    let (_hook, inbox) = setup.install("hook").await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(setup.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let mut sender = Sender(BufReader::new(stream));
    assert_eq!(sender.post("/external/hook", "", b"over TLS").await.status, 200);
    assert!(inbox.raw()[0].ends_with("over TLS"));
    let mut plain = Sender::to(setup.address).await;
    plain.send("POST /external/hook HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(within(plain.next_answer()).await.is_none());
}

#[tokio::test]
async fn an_invalid_certificate_is_rejected_at_the_start() {
    let builder = Core::builder()
        .external_events(([127, 0, 0, 1], 0))
        .external_events_tls("hunter2", "hunter2");
    let error = builder.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
    assert!(error.to_string().contains("external_events_tls"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn the_listener_stays_when_the_api_goes_away_and_ends_with_the_core() {
    let setup = Setup::start(limits()).await;
    let (_hook, inbox) = setup.install("hook").await;
    setup.core.close_api().await;
    let mut sender = Sender::to(setup.address).await;
    assert_eq!(sender.post("/external/hook", "", b"").await.status, 200);
    setup.core.reopen_api().await.unwrap();
    // One that is idle, half a request, half a body, and one that the extension handles.
    let mut half = Sender::to(setup.address).await;
    half.send("POST /external/hook HTT").await;
    let mut body = Sender::to(setup.address).await;
    body.send("POST /external/hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut busy = Sender::to(setup.address).await;
    busy.send("POST /external/hook?hang HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    within(inbox.begun(2)).await;
    let stop = tokio::spawn({
        let core = setup.core.clone();
        async move { core.stop().await }
    });
    sender.closed().await;
    half.closed().await;
    let status = within(body.next_answer()).await.map(|answer| answer.status);
    assert!(matches!(status, None | Some(503)), "{status:?}");
    inbox.release(1);
    assert_eq!(busy.answer().await.status, 200, "it is not given time for its answer");
    within(stop).await.unwrap();
    assert!(TcpStream::connect(setup.address).await.is_err());
}
