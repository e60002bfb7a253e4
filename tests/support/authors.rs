//! Authors that start runs and lose patience, for tests of what becomes of their runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gofer_sdk::{Gofer, Run};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Starts a run for each of the keys `k0`, `k1` and so on, as often as it takes, each with the client
/// that is current at that time.
pub(crate) async fn start_all(
    keys: usize,
    pipeline: fn(usize) -> String,
    current: &Arc<Mutex<Gofer>>,
    seed: u64,
) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut authors = JoinSet::new();
    for author in 0..128 {
        let (current, next) = (Arc::clone(current), Arc::clone(&next));
        let mut random = fastrand::Rng::with_seed(seed ^ author);
        authors.spawn(async move {
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed);
                if key >= keys {
                    return;
                }
                start(key, &pipeline(key), &current, &mut random).await;
            }
        });
    }
    while let Some(author) = authors.join_next().await {
        author.unwrap();
    }
}

/// Starts one run; a future that takes long may be dropped, and the start be repeated.
async fn start(key: usize, pipeline: &str, current: &Mutex<Gofer>, random: &mut fastrand::Rng) {
    loop {
        let gofer = current.lock().unwrap().clone();
        let run = Run::because("of a test").key(format!("k{key}"));
        let patience = match random.u32(..10) {
            0 => Duration::from_millis(random.u64(1..20)),
            _ => Duration::from_millis(random.u64(5_000..20_000)),
        };
        if let Ok(Ok(run)) = timeout(patience, gofer.start_run(pipeline, "l", run)).await {
            assert_eq!(run.key(), Some(&*format!("k{key}")));
            return;
        }
    }
}
