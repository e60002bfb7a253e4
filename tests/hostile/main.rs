//! Garbage, floods and silence on the extension's port, while a good client must be served: over
//! real sockets, with short timeouts, and with a check that nothing is leaked.
//!
//! This file contains the attacks below the level of calls. Calls, with and without the token, are
//! in `calls.rs`, many unauthenticated peers in `unauthenticated.rs`, more connections than the
//! limit in `load.rs`, and floods of answers in conversations in `answers.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails a test"
)]
#![allow(unreachable_pub, reason = "the parts are modules of this test")]

#[path = "../support/mod.rs"]
mod support;

/// Counts allocated memory to the byte. The size of the process would include what its allocator
/// keeps of freed memory.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

mod abuse;
mod answers;
mod calls;
mod load;
mod unauthenticated;
mod wire;

use std::time::Duration;

use abuse::{TIMEOUT, Target, alone, quick};
use support::within;
use tokio::io::AsyncReadExt;
use tokio_rustls::rustls::ClientConnection;
use wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INFO, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, call, frame, hpack,
    server_name, tls,
};

/// Pseudorandom bytes, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_connection_that_is_not_tls_is_closed() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for bytes in [http, PREFACE.to_vec(), b"SSH-2.0-x\r\n".to_vec(), noise(1), noise(100_000)] {
            let mut raw = Raw::tcp(target.address).await;
            // The server may close it before it has read everything.
            let _ = raw.send(&bytes).await;
            raw.until_closed().await;
        }
        target.assert_unharmed().await;
    });
}

/// A TLS handshake of which only the first bytes are sent.
async fn handshake(target: &Target, bytes: usize) -> Raw<tokio::net::TcpStream> {
    let mut raw = Raw::tcp(target.address).await;
    let mut client = ClientConnection::new(tls(&[b"h2"]), server_name()).unwrap();
    let mut left = bytes;
    loop {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        let part = flight.len().min(left);
        left -= part;
        raw.send(&flight[..part]).await.unwrap();
        if left == 0 || !client.is_handshaking() {
            return raw;
        }
        let mut answer = vec![0; 16 << 10];
        let read = raw.0.read(&mut answer).await.unwrap();
        let mut answer = &answer[..read];
        while !answer.is_empty() {
            client.read_tls(&mut answer).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

#[test]
fn a_handshake_that_stops_at_any_stage_times_out() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let hello = {
            let mut client = ClientConnection::new(tls(&[b"h2"]), server_name()).unwrap();
            let mut flight = Vec::new();
            client.write_tls(&mut flight).unwrap();
            flight.len()
        };
        let stages = [0, 1, 4, 5, 6, 9, 43, hello / 2, hello - 1, hello, hello + 1, hello + 6];
        let stages = stages.into_iter().chain([hello + 20, hello + 40, hello + 60]);
        let mut stalled = Vec::new();
        for bytes in stages {
            drop(handshake(&target, bytes).await);
            stalled.push(handshake(&target, bytes).await);
        }
        for mut raw in stalled {
            raw.until_closed().await;
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn a_handshake_that_trickles_times_out() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let mut raw = Raw::tcp(target.address).await;
        // So long that sending it takes many times the timeout.
        let mut client =
            ClientConnection::new(tls(&[&[b'x'; 200][..]; 10]), server_name()).unwrap();
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        let mut sent = 0;
        for byte in &flight {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if raw.send(&[*byte]).await.is_err() {
                break;
            }
            sent += 1;
        }
        raw.until_closed().await;
        assert!(sent < flight.len(), "a handshake may take any time, one byte at a time");
        drop(raw);
        target.assert_unharmed().await;
    });
}

#[test]
fn tls_for_another_protocol_is_refused() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let refused = Raw::tls(target.address, &[b"http/1.1"]).await.err();
        assert!(refused.is_some(), "a handshake for HTTP/1.1 succeeds");
        // A client that offers no protocol may speak HTTP/2, and nothing else.
        let mut raw = Raw::tls(target.address, &[]).await.unwrap();
        raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        raw.until_closed().await;
        drop(raw);
        target.assert_unharmed().await;
    });
}

#[test]
fn a_connection_without_a_call_is_closed() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let mut silent = Raw::tls(target.address, &[b"h2"]).await.unwrap();
        let mut polite = Raw::http2(target.address, &[]).await;
        let mut half = Raw::http2(target.address, &[]).await;
        half.send(&frame(HEADERS, 0, 1, &call(INFO, None)[..20])).await.unwrap();
        let mut busy = Raw::http2(target.address, &[]).await;
        within(async {
            while busy.send(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        for raw in [&mut silent, &mut polite, &mut half, &mut busy] {
            raw.until_closed().await;
        }
        drop((silent, polite, half, busy));
        target.assert_unharmed().await;
    });
}

#[test]
fn invalid_frames_end_only_their_own_connection() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let huge = [&[0xff, 0xff, 0xff, DATA, 0][..], &1_u32.to_be_bytes(), &noise(1000)].concat();
        let compressed_nonsense = frame(HEADERS, END_HEADERS, 1, &noise(200));
        let one = frame(HEADERS, END_HEADERS, 1, &call(INFO, None));
        let again = [&one[..], &frame(HEADERS, END_HEADERS, 1, &call(INFO, None))].concat();
        let backwards = [
            &frame(HEADERS, END_HEADERS, 9, &call(INFO, None))[..],
            &frame(HEADERS, END_HEADERS, 3, &call(INFO, None)),
        ];
        let settings = |key: u16, value: u32| {
            frame(SETTINGS, 0, 0, &[&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
        };
        let attacks = [
            PREFACE[..10].to_vec(),
            noise(10_000),
            huge,
            compressed_nonsense,
            again,
            backwards.concat(),
            frame(DATA, 0, 0, &[1; 10]),
            frame(DATA, 0, 1, &[1; 10]),
            frame(DATA, 8, 1, &[255; 10]),
            frame(HEADERS, END_HEADERS, 0, &call(INFO, None)),
            frame(HEADERS, END_HEADERS, 2, &call(INFO, None)),
            frame(HEADERS, END_HEADERS | 0x28, 1, &[255; 3]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &hpack(&[("no", "method")])),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &hpack(&[("", ""), (":path", "")])),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x3f, 0xff, 0xff, 0xff, 0x7f]),
            frame(PRIORITY, 0, 1, &1_u32.to_be_bytes()),
            frame(RST_STREAM, 0, 77, &[0; 4]),
            frame(RST_STREAM, 0, 0, &[0; 4]),
            frame(SETTINGS, 0, 0, &[0; 5]),
            frame(SETTINGS, ACK, 0, &[0; 6]),
            settings(4, u32::MAX),
            settings(5, 1),
            frame(PUSH_PROMISE, END_HEADERS, 1, &call(INFO, None)),
            frame(PING, 0, 0, &[0; 7]),
            frame(PING, 0, 5, &[0; 8]),
            frame(GOAWAY, 0, 0, &[0; 3]),
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            frame(CONTINUATION, END_HEADERS, 1, &call(INFO, None)),
            frame(200, 255, 1, &noise(100)),
        ];
        let mut attackers = Vec::new();
        for attack in &attacks {
            let mut bare = Raw::tls(target.address, &[b"h2"]).await.unwrap();
            let _ = bare.send(attack).await;
            let mut greeted = Raw::http2(target.address, &[]).await;
            let _ = greeted.send(attack).await;
            attackers.extend([bare, greeted]);
        }
        // Some are ignored, as the protocol demands, and some are calls that are rejected. The
        // other connections are closed, at the latest because they make no call.
        for mut raw in attackers {
            let _ = tokio::time::timeout(Duration::from_millis(50), raw.until_closed()).await;
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn endless_headers_are_not_buffered() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let long = "x".repeat(16_000);
        let plain = call(INFO, None);
        let large = hpack(&[("x-large", &long)]);
        // Literal headers that are added to the table, over and over; and empty frames.
        let floods = [&large[..], &plain, &[]];
        for part in floods {
            let mut raw = Raw::http2(target.address, &[]).await;
            raw.send(&frame(HEADERS, 0, 1, &plain)).await.unwrap();
            raw.flood(&frame(CONTINUATION, 0, 1, part), 5_000).await;
            raw.until_closed().await;
            assert!(target.grown() < 16 << 20, "{} bytes", target.grown());
        }
        // A call whose headers are larger than allowed, and one after it.
        let mut raw = Raw::http2(target.address, &[]).await;
        let too_large = [plain.clone(), hpack(&[("x-1", &long)])].concat();
        let (first, rest) = too_large.split_at(16_000);
        let first = frame(HEADERS, END_STREAM, 1, first);
        raw.send(&[first, frame(CONTINUATION, END_HEADERS, 1, rest)].concat()).await.unwrap();
        raw.assert_served(3).await;
        drop(raw);
        target.assert_unharmed().await;
    });
}

#[test]
fn calls_that_are_reset_at_once_are_not_accumulated() {
    alone(async {
        let mut target = Target::start(quick()).await;
        for token in [None, Some(support::TOKEN)] {
            let headers = call(INFO, token);
            let mut raw = Raw::http2(target.address, &[]).await;
            for stream in (1..20_000).step_by(2) {
                let open = frame(HEADERS, END_HEADERS, stream, &headers);
                let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                let both = [open, reset].concat();
                if !matches!(tokio::time::timeout(TIMEOUT, raw.send(&both)).await, Ok(Ok(()))) {
                    break;
                }
            }
            assert!(target.grown() < 16 << 20, "{} bytes", target.grown());
        }
        target.assert_unharmed().await;
    });
}

#[test]
fn responses_to_floods_of_frames_are_not_accumulated() {
    alone(async {
        let mut target = Target::start(quick()).await;
        let window = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
        for one in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[1; 8]), window] {
            // The responses are never read.
            let mut raw = Raw::http2(target.address, &[]).await;
            raw.flood(&one.repeat(1_000), 500).await;
            assert!(target.grown() < 16 << 20, "{} bytes", target.grown());
        }
        target.assert_unharmed().await;
    });
}
