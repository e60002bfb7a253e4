#![allow(clippy::unwrap_used)]

use tonic::Code;

use super::*;
use crate::essential::EssentialTasks;
use crate::files::tests::Scratch;
use crate::store::{By, Owner, Store};
use gofer_net::Clock;

/// A store in a file, with more than is sent ahead.
fn large(directory: &Scratch) -> Arc<Store> {
    let path = directory.path("gofer.redb");
    let essential = EssentialTasks::default();
    let store = Store::open(Clock::derived(), &path, None, None, &essential).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    for n in 0..10 {
        let owner = Owner { by: &By::Core, namespace: "default", pipeline: "nightly", run: None };
        store.put_object(owner, format!("object-{n}"), vec![7; 2 * CHUNK].into(), false).unwrap();
    }
    store
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_is_not_read_ends_and_lets_the_file_be_closed() {
    let directory = Scratch::new();
    let store = large(&directory);
    let backup = store.back_up().await.unwrap();
    while !backup.outcome.is_finished() {
        tokio::time::advance(STALLED).await;
        tokio::task::yield_now().await;
    }
    let status = backup.outcome.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_closed_does_not_wait_for_the_reader_of_a_backup() {
    let directory = Scratch::new();
    let store = large(&directory);
    let backup = store.back_up().await.unwrap();
    store.close().await;
    let status = backup.outcome.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn backups_at_a_time_are_limited() {
    let directory = Scratch::new();
    let store = large(&directory);
    let mut backups = Vec::new();
    for _ in 0..4 {
        backups.push(store.back_up().await.unwrap());
    }
    let refused = store.back_up().await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("4 backups are being made already"), "{refused}");
    let Backup { records, outcome, .. } = backups.pop().unwrap();
    drop(records);
    assert_eq!(outcome.await.unwrap().unwrap_err().code(), Code::Cancelled);
    backups.push(store.back_up().await.unwrap());
    store.close().await;
}

#[tokio::test]
async fn a_backup_is_written_whole_or_not_at_all() {
    let directory = Scratch::new();
    let store = large(&directory);
    let mut backup = store.back_up().await.unwrap();
    let header = std::mem::take(&mut backup.header);
    let mut chunks = Vec::new();
    while let Some(chunk) = backup.records.recv().await {
        chunks.push(chunk.records);
    }
    let sent = backup.outcome.await.unwrap().unwrap();
    let before = directory.names();
    let path = directory.path("copy.redb");
    let begin = || Restored::begin(&path, header.clone()).unwrap();
    let refused = |outcome: io::Result<()>, what: &str| {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(directory.names(), before);
    };
    // One record short.
    let mut copy = begin();
    for chunk in &chunks {
        copy.add(chunk).unwrap();
    }
    refused(copy.finish(sent + 1).map(drop), "records have arrived");
    // A byte is another one.
    let mut changed = chunks[0].clone();
    changed[0].value[0] ^= 1;
    let add_changed = || begin().add(&changed);
    refused(add_changed(), "checksum");
    // Another version.
    let other = BackupHeader { version: VERSION + 1, ..header.clone() };
    refused(Restored::begin(&path, other).map(drop), "use the same version");
    // One of its files has been made meanwhile.
    let mut copy = begin();
    for chunk in &chunks {
        copy.add(chunk).unwrap();
    }
    let taken = with_suffix(&path, ".key");
    std::fs::write(&taken, "mine").unwrap();
    let error = copy.finish(sent).map(drop).unwrap_err();
    assert_eq!(error.kind(), AlreadyExists);
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    std::fs::remove_file(taken).unwrap();
    assert_eq!(directory.names(), before);
    store.close().await;
}
