//! The disk is full, fails or loses its power while a file that is far too large is compacted: nothing
//! is lost.

use super::failing::{assert_same, check_usage, open_on};
use super::*;
use crate::store::backing::simulated::Disk as Simulated;

/// Bytes of a file that is to be compacted: more than one that is left as it is.
const LARGE: usize = 16 << 20;

fn of(pipeline: &str) -> Owner<'_> {
    Owner { namespace: "", pipeline, run: None, by: &By::Core }
}

/// Everything, with checksums of the objects that are kept.
fn content(store: &Store) -> String {
    let objects = store.objects(of("small")).unwrap();
    let read = |key: &str| crc32fast::hash(&store.object(of("small"), key).unwrap());
    let objects: Vec<_> =
        objects.iter().map(|it| format!("{} {}", it.key, read(&it.key))).collect();
    format!("{}\n{}", everything(store), objects.join("\n"))
}

/// A file that was closed without being compacted, and what is in it.
async fn too_large() -> (Vec<u8>, String) {
    let disk = Simulated::new(0);
    let store = open_on(&disk).unwrap();
    store.ensure_pipeline("", "large").unwrap();
    store.ensure_pipeline("", "small").unwrap();
    for n in 0..24 {
        // Empty, so that a copy of the file has holes, which are written only on a disk with room.
        let gone = vec![0; (1 << 20) + 1].into();
        store.put_object(of("large"), format!("key-{n}"), gone, false).unwrap();
        let kept = vec![n; 6_000].into();
        store.put_object(of("small"), format!("key-{n}"), kept, false).unwrap();
        store.start_run(start("small"), &By::Core).unwrap();
        store.durable(store.mark()).await.unwrap();
    }
    // At the end of the file, so that it is not shortened without being compacted.
    store.put_object(of("small"), "last".to_owned(), vec![7; 1 << 20].into(), false).unwrap();
    store.durable(store.mark()).await.unwrap();
    let reason = proto::run_status_reason::RunStatusReasonKind::UserCancelled;
    store.delete_pipeline("", "large", reason, &By::Core).unwrap();
    store.durable(store.mark()).await.unwrap();
    let before = content(&store);
    store.disk.as_ref().unwrap().close(u64::MAX).await;
    let file = disk.content();
    assert!(file.len() > LARGE, "{}", file.len());
    (file, before)
}

/// Closes the store with a fault at the first write, at the second, and so on, until there is none.
async fn close_with(fault: impl Fn(&Simulated, u64)) {
    let (file, before) = too_large().await;
    for nth in 0.. {
        let disk = Simulated::holding(file.clone(), nth);
        let store = open_on(&disk).unwrap();
        fault(&disk, nth);
        store.close().await;
        drop(store);
        let is_over = !disk.has_refused();
        if is_over {
            assert!(disk.content().len() < LARGE / 2, "{}", disk.content().len());
            assert!(nth > 9, "it is no test of a compaction");
        }
        disk.kill();
        disk.set_room(u64::MAX);
        disk.fail_once_after(u64::MAX);
        let store = open_on(&disk).unwrap();
        assert_same(&content(&store), &before, nth);
        check_usage(&store);
        // What is closed in the background does not matter any more.
        disk.kill();
        if is_over {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_compaction_loses_nothing_on_a_full_disk() {
    close_with(|disk, nth| disk.set_room(nth * (24 << 10))).await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_loses_nothing_when_a_write_fails() {
    close_with(Simulated::fail_once_after).await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_loses_nothing_with_the_power() {
    close_with(|disk, nth| disk.lose_power_after(nth + 1)).await;
}
