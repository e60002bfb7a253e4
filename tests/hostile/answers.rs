//! A caller of conversations that never reads what is said to it, and floods
//! the extension with answers that it has no use for yet.

use std::time::Duration;

use crate::siege::{Siege, quick};
use crate::support::TOKEN;
use crate::support::conversation::Conversation;
use crate::wire::{ACK, DATA, END_HEADERS, HEADERS, Raw, SETTINGS, call, frame, message};

const INSTALLER: &str = "/proto.ExtensionService/RunExtensionInstaller";

/// As many as are held at once, by default.
const CONVERSATIONS: u32 = 64;

/// An answer that is refused each time: with the reason and the question again
/// two more utterances wait to be read.
fn useless(blanks: u8) -> Vec<u8> {
    message(&[&[0x0a, blanks][..], &vec![b' '; blanks.into()]].concat())
}

/// A caller that takes no byte of what is said, in the midst of conversations
/// that wait for it: nothing in them is read any more.
async fn deaf(siege: &Siege) -> Raw {
    let mut raw = Raw::http2(siege.address, &[(4, 0)]).await;
    // Until its settings are acknowledged the server holds the caller to the
    // 65,535 bytes of the protocol's default.
    loop {
        let greeting = raw.frame().await.expect("the server greets");
        if greeting.kind == SETTINGS && greeting.flags & ACK == 0 {
            break;
        }
    }
    raw.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
    for n in 0..CONVERSATIONS {
        let head = frame(HEADERS, END_HEADERS, 2 * n + 1, &call(INSTALLER, Some(TOKEN)));
        let enough = frame(DATA, 0, 2 * n + 1, &useless(0).repeat(20));
        raw.send(&[head, enough].concat()).await.unwrap();
    }
    raw
}

/// Floods all conversations in turn with `part`, 16 KiB at a time, for longer
/// than their windows last.
async fn flooded(part: &[u8], rounds: usize) {
    let mut siege = Siege::begin(quick()).await;
    let mut raw = deaf(&siege).await;
    let (mut sent, mut most) = (0, 0);
    'flood: for _ in 0..rounds {
        for n in 0..CONVERSATIONS {
            let one = frame(DATA, 0, 2 * n + 1, part);
            let many = one.repeat((16 << 10) / one.len() + 1);
            // What the server does about it, to the stream or to the connection,
            // is its own business.
            match raw.flood(&many, 1).await {
                0 => break 'flood,
                bytes => sent += bytes,
            }
        }
        most = most.max(siege.grown());
    }
    // What has been sent is still being read.
    tokio::time::sleep(Duration::from_millis(200)).await;
    most = most.max(siege.grown());
    assert!(sent > 64 << 10, "the flood did not begin: {sent} bytes");
    assert!(most < 32 << 20, "{} KiB of answers make {} MiB", sent >> 10, most >> 20);
    drop(raw);
    // All places are free again.
    siege.over().await;
    Conversation::installer(&siege.good).await.unwrap().query().await;
}

#[tokio::test]
async fn long_answers_to_a_caller_that_never_reads_are_bounded() {
    flooded(&useless(127).repeat(100), 40).await;
}

#[tokio::test]
async fn short_answers_to_a_caller_that_never_reads_are_bounded() {
    flooded(&useless(0), 40).await;
}

#[tokio::test]
async fn answers_byte_by_byte_to_a_caller_that_never_reads_are_bounded() {
    flooded(&[0], 40).await;
}

#[tokio::test]
async fn frames_of_nothing_to_a_caller_that_never_reads_are_bounded() {
    flooded(&[], 40).await;
}
