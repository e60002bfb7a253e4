//! Authors that start runs and lose patience, for tests of what becomes of their runs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gofer_sdk::{Gofer, Run};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Starts this many runs, each as often as it takes, with the client that is current at that time.
/// Every other one has a key of its author's, `k0`, `k2` and so on, which is the same each time; the
/// others have keys of the SDK's, a new one each time. Returns the keys of those that were started.
pub(crate) async fn start_all(
    count: usize,
    pipeline: fn(usize) -> String,
    current: &Arc<Mutex<Gofer>>,
    seed: u64,
) -> BTreeSet<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut authors = JoinSet::new();
    for author in 0..128 {
        let (current, next) = (Arc::clone(current), Arc::clone(&next));
        let mut random = fastrand::Rng::with_seed(seed ^ author);
        authors.spawn(async move {
            let mut started = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return started;
                }
                started.push(start(number, &pipeline(number), &current, &mut random).await);
            }
        });
    }
    let mut started = BTreeSet::new();
    while let Some(of_author) = authors.join_next().await {
        started.extend(of_author.unwrap());
    }
    assert_eq!(started.len(), count, "no two have the same key");
    started
}

/// Starts one run; a future that takes long may be dropped, and the start be repeated. Returns the
/// run's key.
async fn start(
    number: usize,
    pipeline: &str,
    current: &Mutex<Gofer>,
    random: &mut fastrand::Rng,
) -> String {
    let key = number.is_multiple_of(2).then(|| format!("k{number}"));
    loop {
        let gofer = current.lock().unwrap().clone();
        let run = Run::because("of a test");
        let run = match &key {
            Some(key) => run.key(key),
            None => run,
        };
        let patience = match random.u32(..10) {
            0 => Duration::from_millis(random.u64(1..20)),
            _ => Duration::from_millis(random.u64(5_000..20_000)),
        };
        if let Ok(Ok(run)) = timeout(patience, gofer.start_run(pipeline, "l", run)).await {
            let started = run.key().unwrap().to_owned();
            assert!(key.is_none_or(|key| key == started));
            return started;
        }
    }
}
