use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[derive(Default)]
struct Count(Signal, AtomicUsize);

impl AsRef<Signal> for Count {
    fn as_ref(&self) -> &Signal {
        &self.0
    }
}

impl Count {
    fn set(&self, count: usize) {
        self.1.store(count, Ordering::Release);
        self.0.notify();
    }

    async fn reaches(self: Arc<Self>, least: usize) {
        Signal::wait(&*self, |count| count.1.load(Ordering::Acquire) >= least).await;
    }
}

#[tokio::test]
async fn every_task_that_waits_is_woken() {
    let count = Arc::new(Count::default());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=5 {
        tasks.spawn(Arc::clone(&count).reaches(n));
    }
    for n in 1..=5 {
        tokio::task::yield_now().await;
        count.set(n);
        tasks.join_next().await.unwrap().unwrap();
        assert_eq!(tasks.len(), 5 - n);
    }
}

#[tokio::test]
async fn a_task_that_was_dropped_does_not_keep_others_from_being_woken() {
    let count = Arc::new(Count::default());
    let gone = tokio::spawn(Arc::clone(&count).reaches(1));
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.is_err());
    let waiting = tokio::spawn(Arc::clone(&count).reaches(1));
    tokio::task::yield_now().await;
    count.set(1);
    waiting.await.unwrap();
}

#[tokio::test]
async fn what_has_changed_already_is_not_waited_for() {
    Arc::new(Count::default()).reaches(0).await;
}
