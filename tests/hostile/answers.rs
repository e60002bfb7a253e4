//! A caller of conversations that never reads the messages to it, and floods the extension with
//! answers that were not asked for.

use std::time::Duration;

use crate::abuse::{Target, alone, quick};
use crate::support::TOKEN;
use crate::support::conversation::Conversation;
use crate::wire::{ACK, DATA, END_HEADERS, HEADERS, Raw, SETTINGS, call, frame, message};

const INSTALLER: &str = "/proto.ExtensionService/RunExtensionInstaller";

/// The default limit of concurrent conversations.
const CONVERSATIONS: u32 = 64;

/// An answer that is always rejected: the reason, and the question again, are two more messages
/// that wait to be read.
fn invalid_answer(blanks: u8) -> Vec<u8> {
    message(&[&[0x0a, blanks][..], &vec![b' '; blanks.into()]].concat())
}

/// A caller in the middle of conversations that reads no messages, so that the server no longer
/// reads its answers either.
async fn unreading(target: &Target) -> Raw {
    let mut raw = Raw::http2(target.address, &[(4, 0)]).await;
    // Until its settings are acknowledged, the window of the caller is the default of the protocol,
    // 65,535 bytes.
    loop {
        let settings = raw.frame().await.expect("the server sends its settings");
        if settings.kind == SETTINGS && settings.flags & ACK == 0 {
            break;
        }
    }
    raw.send(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
    for n in 0..CONVERSATIONS {
        let head = frame(HEADERS, END_HEADERS, 2 * n + 1, &call(INSTALLER, Some(TOKEN)));
        let answers = frame(DATA, 0, 2 * n + 1, &invalid_answer(0).repeat(20));
        raw.send(&[head, answers].concat()).await.unwrap();
    }
    raw
}

/// Floods all conversations in turn with `part`, 16 KiB at a time, until their flow-control windows
/// are exhausted.
async fn flood(part: &[u8], rounds: usize) {
    let mut target = Target::start(quick()).await;
    let mut raw = unreading(&target).await;
    let (mut sent, mut most) = (0, 0);
    'flood: for _ in 0..rounds {
        for n in 0..CONVERSATIONS {
            let one = frame(DATA, 0, 2 * n + 1, part);
            let many = one.repeat((16 << 10) / one.len() + 1);
            // The server may close the stream or the connection.
            match raw.flood(&many, 1).await {
                0 => break 'flood,
                bytes => sent += bytes,
            }
        }
        most = most.max(target.grown());
    }
    // The server is still reading.
    tokio::time::sleep(Duration::from_millis(200)).await;
    most = most.max(target.grown());
    assert!(sent > 64 << 10, "the flood did not start: {sent} bytes");
    assert!(most < 32 << 20, "{} KiB of answers make {} MiB", sent >> 10, most >> 20);
    drop(raw);
    // All conversations have ended.
    target.assert_unharmed().await;
    Conversation::installer(&target.good).await.unwrap().query().await;
}

#[test]
fn long_answers_to_a_caller_that_never_reads_are_bounded() {
    alone(async {
        flood(&invalid_answer(127).repeat(100), 40).await;
    });
}

#[test]
fn short_answers_to_a_caller_that_never_reads_are_bounded() {
    alone(async {
        flood(&invalid_answer(0), 40).await;
    });
}

#[test]
fn answers_byte_by_byte_to_a_caller_that_never_reads_are_bounded() {
    alone(async {
        flood(&[0], 40).await;
    });
}

#[test]
fn empty_frames_to_a_caller_that_never_reads_are_bounded() {
    alone(async {
        flood(&[], 40).await;
    });
}
