//! A disk that is full, fails, or loses its power: nothing that was acknowledged is lost, and
//! nothing is half done.

use std::pin::pin;

use tonic::{Code, Status};

use super::*;
use crate::store::backing::Backing;
use crate::store::backing::simulated::Disk as Simulated;
use crate::store::history::{Order, beginning_with};
use crate::store::objects::ObjectInfo;
use crate::store::usage::{NamespaceUsage, Usage, size};
use crate::store::{Ending, Job};

/// Key of the stores.
const KEY: [u8; 32] = [7; 32];

pub(super) fn open_on(disk: &Simulated) -> Result<Arc<Store>> {
    let backing: Arc<dyn Backing> = Arc::new(disk.clone());
    let path = Path::new("simulated");
    Store::open(Clock::derived(), path, Some(KEY), Some(backing), &EssentialTasks::default())
}

/// What is counted is what there is.
pub(super) fn check_usage(store: &Store) {
    let tables = store.tables();
    let history = tables.journal.history();
    for table in tables.namespaces.values() {
        let mut all = NamespaceUsage::default();
        for pipeline in table.pipelines.values() {
            let of = [&*pipeline.metadata.namespace, &pipeline.metadata.id];
            let mut counted = Usage { last_run: pipeline.usage.last_run, ..Usage::default() };
            let each = |kind: RecordKind, count: &mut dyn FnMut(&[u8], &[u8])| {
                let records = beginning_with(kind.key(&of, None));
                let visited = history.visit(records, Order::OldestFirst, |key, record| {
                    count(key, record);
                    ControlFlow::Continue(())
                });
                visited.unwrap();
            };
            let prefix = RecordKind::Run.key(&of, None).len();
            each(RecordKind::Run, &mut |_, record| {
                counted.runs += 1;
                counted.run_bytes += size(record.len());
            });
            each(RecordKind::Config, &mut |_, record| {
                counted.earlier_configs += 1;
                counted.content_bytes += size(record.len());
            });
            let mut contents = Vec::new();
            each(RecordKind::ObjectInfo, &mut |key, record| {
                let name = key.len() - prefix - 8 - 4;
                let info = ObjectInfo::decode(record).unwrap();
                counted.content_bytes += size(name) + info.length;
                let content = [&[RecordKind::ObjectContent as u8], &key[1..]].concat();
                contents.push((content, info.length));
            });
            for (content, length) in contents {
                assert_eq!(history.get(&content).unwrap().unwrap().len() as u64, length);
            }
            assert_eq!(pipeline.usage, counted, "{of:?}");
            let newest = store_newest(&tables, &pipeline.metadata.id);
            assert!(newest <= counted.last_run, "{newest} {counted:?}");
            all.add(&counted);
            all.replace_live(0, pipeline.live_bytes());
        }
        assert_eq!(table.usage, all, "{}", table.namespace.id);
    }
}

fn store_newest(tables: &Tables, pipeline: &str) -> i64 {
    let runs = beginning_with(RecordKind::Run.key(&["default", pipeline], None));
    let mut newest = 0;
    let visited = tables.journal.history().visit(runs, Order::NewestFirst, |key, _| {
        newest = crate::store::events::number(key);
        ControlFlow::Break(())
    });
    visited.unwrap();
    newest
}

/// The first line that differs, without long words.
fn difference(one: &str, other: &str) -> String {
    let [mut one, mut other] = [one, other].map(|it| it.split_inclusive([',', '\n']));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return String::new(),
            (one, other) if one != other => return format!("{one:?}\n{other:?}\n\n"),
            _ => {}
        }
    }
}

pub(super) fn assert_same(one: &str, other: &str, seed: u64) {
    assert!(one == other, "seed {seed}: {}", difference(one, other));
}

/// Changes of every kind, of pipelines that there are and that there are not.
struct Changes {
    random: fastrand::Rng,
    count: u32,
    /// Runs that are being executed.
    jobs: Vec<Job>,
}

impl Changes {
    fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), count: 0, jobs: Vec::new() }
    }

    fn make(&mut self, store: &Store) -> Result<(), Status> {
        self.count += 1;
        let pipeline = format!("pipeline-{}", self.random.u8(..3));
        let label = format!("label-{}", self.random.u8(..3));
        let key = format!("key-{}", self.random.u8(..3));
        let by = &By::Core;
        let of = Owner { namespace: "", pipeline: &pipeline, run: None, by };
        let names = ["", &*pipeline, "interval", &*label];
        match self.random.u8(..18) {
            0 => {
                let config = proto::UserPipelineConfig {
                    id: pipeline,
                    description: "*".repeat(self.random.usize(..9_000)),
                    ..Default::default()
                };
                store.register_config("", config, by).map(drop)
            }
            1 if self.random.u8(..4) == 0 => {
                let reason = proto::run_status_reason::RunStatusReasonKind::UserCancelled;
                store.delete_pipeline("", &pipeline, reason, by).map(drop)
            }
            2 => {
                let content = vec![self.random.u8(..); self.random.usize(..20_000)];
                store.put_object(of, key, content.into(), true).map(drop)
            }
            3 => store.delete_object(of, &key),
            4 => {
                let holder = Holder::Pipeline { namespace: "", pipeline: &pipeline, by };
                store.put_secret(holder, key, "hunter22".to_owned(), vec![], true)
            }
            5 => {
                let mut changed = subscription(&pipeline, &label);
                changed.settings.insert("every".to_owned(), format!("{}s", self.count));
                store.put_subscription(changed, None, by)
            }
            6 => store.remove_subscription(names, by),
            7 => store.set_subscription_status(names, State::Disabled, "", by),
            8 => {
                let registration = proto::ExtensionRegistration {
                    name: "interval".to_owned(),
                    ..Default::default()
                };
                store.put_registration(registration, Options::default())
            }
            9 if self.random.u8(..4) == 0 => store.remove_registration("interval").map(drop),
            10 => {
                let state = [PipelineState::Active, PipelineState::Disabled];
                let state = state[usize::from(self.random.u8(..4) == 0)];
                store.set_pipeline_state("", &pipeline, state, by)
            }
            11 => {
                self.jobs.extend(store.next_run());
                Ok(())
            }
            12 => self.jobs.pop().map_or(Ok(()), |job| {
                let ended = store.end_run(&job, &Ending::success());
                store.release(&job);
                ended
            }),
            _ => store.start_run(start(&pipeline), by).map(drop),
        }
    }
}

/// Whether a change was not made because of the disk, rather than refused.
fn is_of_disk(status: &Status) -> bool {
    status.code() == Code::Unavailable
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_written_has_changed_nothing() {
    for seed in 0..9 {
        let disk = Simulated::new(seed);
        let store = open_on(&disk).unwrap();
        store.begin_runs(Some(2)).unwrap();
        let mut changes = Changes::new(seed);
        for _ in 0..60 {
            let _ = changes.make(&store);
        }
        store.durable(Mark::default()).await.unwrap();
        let before = everything(&store);
        let progress = store.progress().borrow().last;
        // Full at once, full after some more, or broken.
        match seed % 3 {
            0 => disk.set_room(0),
            1 => disk.set_room(64 << 10),
            _ => disk.set_failing(true),
        }
        let mut acknowledged = before.clone();
        let mut failed = 0;
        for _ in 0..60 {
            let mark = store.mark();
            let made = changes.make(&store);
            let outcome = store.durable(mark).await;
            if made.as_ref().is_err_and(is_of_disk) || outcome.is_err() {
                failed += 1;
                // Reading goes on, and nothing is seen of the change.
                assert_same(&everything(&store), &acknowledged, seed);
                check_usage(&store);
            } else {
                acknowledged = everything(&store);
            }
        }
        assert!(failed > 0, "seed {seed}");
        if seed % 3 == 2 {
            assert_eq!(store.progress().borrow().last, progress, "nothing was announced");
        }
        // There is room again.
        disk.set_room(u64::MAX);
        disk.set_failing(false);
        tokio::time::sleep(RETRY_AFTER * 2).await;
        for _ in 0..60 {
            let mark = store.mark();
            let made = changes.make(&store);
            assert!(!made.is_err_and(|status| is_of_disk(&status)), "seed {seed}");
            store.durable(mark).await.unwrap();
        }
        check_usage(&store);
        let after = everything(&store);
        store.close().await;
        drop(store);
        let store = open_on(&disk).unwrap();
        assert_same(&everything(&store), &after, seed);
        check_usage(&store);
        store.close().await;
    }
}

/// What was undone before its caller asked was not made either.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_undone_before_anyone_waited_is_an_error() {
    let disk = Simulated::new(0);
    let store = open_on(&disk).unwrap();
    store.begin_runs(Some(1)).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    store.start_run(start("nightly"), &By::Core).unwrap();
    store.durable(store.mark()).await.unwrap();
    disk.set_room(0);
    let job = store.next_run().unwrap();
    tokio::time::sleep(RETRY_AFTER).await;
    disk.set_room(u64::MAX);
    tokio::time::sleep(RETRY_AFTER * 2).await;
    let late = store.durable(job.mark).await.unwrap_err();
    assert!(is_of_disk(&late), "{late:?}");
    store.release(&job);
    let again = store.next_run().unwrap();
    assert_eq!(again.run.id, job.run.id);
    store.durable(again.mark).await.unwrap();
}

/// Who waits for a change that failed may rely on what it reads then.
#[tokio::test(start_paused = true)]
async fn a_change_has_failed_once_it_has_been_undone() {
    let disk = Simulated::new(0);
    let store = open_on(&disk).unwrap();
    store.ensure_pipeline("", "nightly").unwrap();
    store.durable(store.mark()).await.unwrap();
    let before = everything(&store);
    disk.set_failing(true);
    disk.set_unreadable(true);
    let mark = store.mark();
    store.start_run(start("nightly"), &By::Core).unwrap();
    let mut waiting = pin!(store.durable(mark));
    assert!(tokio::time::timeout(RETRY_AFTER * 5, &mut waiting).await.is_err(), "undone already");
    // Who only reads now does not have to wait.
    assert!(is_of_disk(&store.durable(store.mark()).await.unwrap_err()));
    disk.set_unreadable(false);
    assert!(is_of_disk(&waiting.await.unwrap_err()));
    assert_same(&everything(&store), &before, 0);
    store.durable(store.mark()).await.unwrap();
}

/// Reads that fail for a while, wherever the reading of the file has got to, are tried again.
#[tokio::test(start_paused = true)]
async fn a_change_is_undone_once_the_file_can_be_read() {
    for reads in 0.. {
        let disk = Simulated::new(0);
        let store = open_on(&disk).unwrap();
        store.ensure_pipeline("", "nightly").unwrap();
        store.durable(store.mark()).await.unwrap();
        let before = everything(&store);
        disk.set_failing(true);
        disk.set_reads(reads);
        let mark = store.mark();
        store.start_run(start("nightly"), &By::Core).unwrap();
        let mut waiting = pin!(store.durable(mark));
        let at_once = tokio::time::timeout(RETRY_AFTER * 5, &mut waiting).await;
        disk.set_reads(u64::MAX);
        disk.set_failing(false);
        let is_over = at_once.is_ok();
        let outcome = match at_once {
            Ok(outcome) => outcome,
            Err(_) => waiting.await,
        };
        let error = outcome.unwrap_err();
        assert!(is_of_disk(&error) && !error.message().contains("stopped"), "{error}");
        assert_same(&everything(&store), &before, reads);
        tokio::time::sleep(RETRY_AFTER * 2).await;
        store.start_run(start("nightly"), &By::Core).unwrap();
        store.durable(store.mark()).await.unwrap();
        if is_over {
            assert!(reads > 3, "{reads}");
            return;
        }
    }
}

/// One round: changes until the power is lost. `expected` is what may be found: what was
/// acknowledged, and everything after that.
async fn lose_power(disk: &Simulated, changes: &mut Changes, expected: &mut Vec<String>) {
    changes.jobs.clear();
    let Ok(store) = open_on(disk) else {
        assert!(!disk.has_power(), "it cannot be opened");
        return;
    };
    let mark = store.mark();
    let found = everything(&store);
    assert_expected(&found, expected);
    check_usage(&store);
    let mut is_kept = store.begin_runs(Some(2)).is_ok();
    expected.extend([found, everything(&store)]);
    for _ in 0..changes.random.u8(1..30) {
        if !is_kept {
            break;
        }
        if changes.make(&store).is_err_and(|status| is_of_disk(&status)) {
            break;
        }
        expected.push(everything(&store));
        match changes.random.u8(..4) {
            0 => {
                is_kept = store.durable(mark).await.is_ok();
                if is_kept {
                    *expected = vec![everything(&store)];
                }
            }
            1 => tokio::task::yield_now().await,
            _ => {}
        }
    }
    if changes.random.u8(..8) == 0 {
        store.close().await;
    }
    disk.lose_power();
}

fn assert_expected(found: &str, expected: &[String]) {
    assert!(
        expected.iter().any(|it| it == found),
        "it is neither as acknowledged nor as changed later:\n{}",
        expected.iter().map(|it| difference(found, it)).collect::<String>()
    );
}

/// More are tried with `POWER_LOSSES`.
#[tokio::test(start_paused = true)]
async fn nothing_that_was_acknowledged_is_lost_with_the_power() {
    let rounds = std::env::var("POWER_LOSSES").map_or(300, |it| it.parse().unwrap());
    // A disk is used for some rounds, so that its file has been repaired and has holes.
    for seed in 0..rounds / 20 {
        let disk = Simulated::new(seed);
        let mut changes = Changes::new(seed);
        let store = open_on(&disk).unwrap();
        store.durable(Mark::default()).await.unwrap();
        let mut expected = vec![everything(&store)];
        store.close().await;
        drop(store);
        for _ in 0..20 {
            let writes = [5, 50, 1000][changes.random.usize(..3)];
            disk.lose_power_after(changes.random.u64(1..writes));
            lose_power(&disk, &mut changes, &mut expected).await;
            disk.kill();
        }
        let store = open_on(&disk).unwrap();
        assert_expected(&everything(&store), &expected);
        check_usage(&store);
        store.close().await;
    }
}
