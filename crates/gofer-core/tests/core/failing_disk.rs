//! A disk that fails for a while: what could not be stored has not happened, in the extensions
//! neither, and what works goes on.

use std::io;
use std::sync::Arc;

use gofer_core::internal::Backing;
use gofer_core::{Core, ExtensionState, Installed, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{Error, ErrorKind, Result, RunInfo};
use redb::StorageBackend;

use crate::disk::Disk;
use crate::log::Log;
use crate::metronome::Metronome;

impl Backing for Disk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Disk::open(self)))
    }
}

async fn start(disk: &Disk) -> Core {
    let builder = Core::builder().store_backing(Arc::new(disk.clone()));
    builder.encryption_key("0a".repeat(32)).start().await.unwrap()
}

/// A core with an extension to which `default/nightly` is subscribed, every minute.
async fn ticking(disk: &Disk) -> (Core, Installed) {
    let core = start(disk).await;
    let metronome = core.install::<Metronome>("metronome", gofer_core::NO_SETTINGS).await.unwrap();
    metronome.subscribe("default/nightly", "l", [("every", "1m")]).await.unwrap();
    (core, metronome)
}

async fn enable(core: &Core) -> Result<()> {
    let request = proto::EnableExtensionRequest { name: "metronome".to_owned() };
    core.client().api().enable_extension(request).await.map(drop).map_err(Error::from_status)
}

async fn disable(core: &Core) -> Result<()> {
    let request = proto::DisableExtensionRequest { name: "metronome".to_owned() };
    core.client().api().disable_extension(request).await.map(drop).map_err(Error::from_status)
}

/// Makes a change while the disk fails, and then waits until the store can be written again.
async fn refused<T>(disk: &Disk, change: impl Future<Output = Result<T>>) {
    disk.set_failing(true);
    let refused = change.await.err().expect("the change was acknowledged");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    disk.set_failing(false);
    tokio::time::sleep(seconds(5)).await;
}

/// The runs that are added in ten minutes.
async fn new_runs(core: &Core) -> usize {
    let before = core.runs("default/nightly").len();
    core.elapse(minutes(10)).await;
    core.runs("default/nightly").len() - before
}

fn ids(core: &Core) -> Vec<i64> {
    core.runs("default/nightly").iter().map(RunInfo::id).collect()
}

async fn subscribed(metronome: &Installed) -> usize {
    metronome.info().await.unwrap().registered.len()
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_stored_is_taken_back() {
    let disk = Disk::new(1);
    let (core, metronome) = ticking(&disk).await;
    refused(&disk, metronome.subscribe("default/nightly", "other", [("every", "1m")])).await;
    assert_eq!(subscribed(&metronome).await, 1);
    assert_eq!(new_runs(&core).await, 10);
    // A change of one that is there: it goes on as it was.
    refused(&disk, metronome.subscribe("default/nightly", "l", [("every", "10s")])).await;
    assert_eq!(subscribed(&metronome).await, 1);
    assert_eq!(new_runs(&core).await, 10);
    metronome.subscribe("default/nightly", "other", [("every", "1m")]).await.unwrap();
    assert_eq!(new_runs(&core).await, 20);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unsubscription_that_cannot_be_stored_has_not_happened() {
    let disk = Disk::new(2);
    let (core, metronome) = ticking(&disk).await;
    refused(&disk, metronome.unsubscribe("default/nightly", "l")).await;
    core.elapse(minutes(2)).await;
    assert_eq!(subscribed(&metronome).await, 1);
    assert_eq!(new_runs(&core).await, 10);
    metronome.unsubscribe("default/nightly", "l").await.unwrap();
    assert_eq!(new_runs(&core).await, 0);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_extension_whose_end_cannot_be_stored_comes_up_again() {
    let disk = Disk::new(3);
    let (core, metronome) = ticking(&disk).await;
    let is_running = || metronome.wait_for(|it| it.state == ExtensionState::Running);
    refused(&disk, metronome.uninstall()).await;
    is_running().await;
    core.elapse(minutes(2)).await;
    assert_eq!(new_runs(&core).await, 10);
    refused(&disk, disable(&core)).await;
    is_running().await;
    core.elapse(minutes(2)).await;
    assert_eq!(new_runs(&core).await, 10);
    disable(&core).await.unwrap();
    assert_eq!(new_runs(&core).await, 0);
    refused(&disk, enable(&core)).await;
    assert_eq!(new_runs(&core).await, 0, "it is disabled still");
    enable(&core).await.unwrap();
    core.elapse(minutes(2)).await;
    assert_eq!(new_runs(&core).await, 10);
    metronome.uninstall().await.unwrap();
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_and_a_full_disk_lose_nothing_that_was_acknowledged() {
    let disk = Disk::new(4);
    let (core, metronome) = ticking(&disk).await;
    core.elapse(minutes(10)).await;
    let before = core.runs("default/nightly").len();
    disk.set_room(0);
    for _ in 0..600 {
        core.elapse(seconds(1)).await;
        // Reading goes on.
        assert!(core.runs("default/nightly").len() >= before);
    }
    assert_eq!(subscribed(&metronome).await, 1);
    disk.set_room(u64::MAX);
    core.elapse(minutes(10)).await;
    let runs = ids(&core);
    assert!(runs.len() > before, "runs are started again");
    disk.lose_power();
    disk.kill();
    let again = start(&disk).await;
    assert_eq!(ids(&again), runs);
    // Its extension was in the process that lost its power.
    core.stop().await;
    again.stop().await;
}

/// Makes a change that cannot be written, and waits until the core gives up. Returns why, and after how
/// many seconds.
async fn given_up(core: &Core, disk: &Disk) -> (String, u64) {
    let begun = tokio::time::Instant::now();
    disk.set_failing(true);
    let mut api = core.client().api();
    let request = proto::CreateNamespaceRequest { id: "ops".to_owned(), ..Default::default() };
    let (refused, why) = tokio::join!(api.create_namespace(request), core.failure());
    let refused = Error::from_status(refused.unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    (why.to_string(), begun.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_core_whose_store_cannot_be_read_for_a_minute_has_failed() {
    let disk = Disk::new(5);
    let core = start(&disk).await;
    disk.set_unreadable(true);
    let (why, after) = given_up(&core, &disk).await;
    assert!(why.contains("the store cannot be read again"), "{why}");
    assert!(why.contains("the disk cannot be read"), "{why}");
    assert!((60..65).contains(&after), "after {after} s");
    // Whoever asks later learns of it too.
    assert_eq!(core.failure().await.to_string(), why);
    core.stop().await;
}

/// What may have become of a file that held this.
fn damaged(content: &[u8]) -> [Vec<u8>; 5] {
    let (intact, rest) = content.split_at(content.len() / 8);
    [
        [intact, &vec![0xff; rest.len()]].concat(),
        content[..content.len() / 2].to_vec(),
        content[..100].to_vec(),
        b"dear diary".repeat(100),
        Vec::new(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_core_whose_store_is_damaged_when_it_is_opened_again_has_failed_at_once() {
    for nth in 0..5 {
        let disk = Disk::new(6);
        let core = start(&disk).await;
        disk.set_content(damaged(&disk.content())[nth].clone());
        let (why, after) = given_up(&core, &disk).await;
        assert!(why.contains("the store cannot be read again"), "{nth}: {why}");
        assert_eq!(after, 0, "{nth}: {why}");
        core.stop().await;
    }
}

/// What is small can be written, so that the store is writable again after each failure.
#[tokio::test(start_paused = true)]
async fn a_disk_with_room_for_little_is_logged_once_a_minute() {
    let log = Log::begin();
    let disk = Disk::new(7);
    let core = start(&disk).await;
    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
    disk.set_room(64 << 10);
    let mut refused = 0;
    for n in 0..150 {
        let request = proto::PutPipelineObjectRequest {
            pipeline_id: "nightly".to_owned(),
            key: format!("object-{n}"),
            content: vec![1; 1 << 20].into(),
            ..Default::default()
        };
        let status = core.client().api().put_pipeline_object(request).await.unwrap_err();
        refused += u32::from(status.message().contains("cannot be written"));
        tokio::time::sleep(seconds(1)).await;
    }
    assert_eq!(refused, 150);
    let failures = log.with("changes are refused until it can");
    assert!((2..=3).contains(&failures.len()), "{failures:?}");
    assert!(failures[1].contains("failures=60"), "{failures:?}");
    assert_eq!(log.with("can be written again").len(), failures.len());
    core.stop().await;
}
