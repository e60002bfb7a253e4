use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn running() -> Arc<Alarms> {
    let alarms = Arc::new(Alarms::default());
    let running = Arc::clone(&alarms);
    tokio::spawn(async move { running.run().await });
    alarms
}

async fn after(alarms: &Alarms, wait: Duration) {
    alarms.wait(alarms.key_after(wait)).await;
}

/// How long it took until an alarm was noticed.
fn spawn(alarms: &Arc<Alarms>, wait: Duration) -> JoinHandle<Duration> {
    let alarms = Arc::clone(alarms);
    tokio::spawn(async move {
        let begun = Instant::now();
        after(&alarms, wait).await;
        begun.elapsed()
    })
}

fn waiting(alarms: &Alarms) -> usize {
    alarms.set().wakers.len()
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_as_late_as_a_timer_of_tokios() {
    let alarms = running();
    for nanos in
        [1, 62_500, 62_501, 999_999, 1_000_000, 1_000_001, 59_999_950_001, 3_600_000_000_000]
    {
        let wait = Duration::from_nanos(nanos);
        let begun = Instant::now();
        tokio::time::sleep(wait).await;
        let slept = begun.elapsed();
        assert_eq!(spawn(&alarms, wait).await.unwrap(), slept, "{wait:?}");
        assert!(slept >= wait);
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_is_set_later_may_be_earlier() {
    let alarms = running();
    let late = spawn(&alarms, 60 * MINUTE);
    tokio::time::sleep(MINUTE).await;
    let early = spawn(&alarms, MINUTE);
    assert_eq!(early.await.unwrap().as_secs(), 60);
    assert_eq!(late.await.unwrap().as_secs(), 3_600);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_at_the_same_time_is_all_woken_and_others_have_their_turn() {
    let alarms = running();
    let woken = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..10 * AT_ONCE)
        .map(|_| {
            let (alarms, woken) = (Arc::clone(&alarms), Arc::clone(&woken));
            tokio::spawn(async move {
                after(&alarms, MINUTE).await;
                woken.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let mut turns = 0;
    after(&alarms, MINUTE).await;
    while woken.load(Ordering::Relaxed) < tasks.len() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert!(turns >= 9, "{turns}");
    assert_eq!(waiting(&alarms), 0);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_is_dropped_leaves_nothing() {
    let alarms = running();
    for _ in 0..100 {
        timeout(Duration::from_secs(1), after(&alarms, MINUTE)).await.unwrap_err();
    }
    assert_eq!(waiting(&alarms), 0);
    drop(after(&alarms, MINUTE));
}

#[tokio::test(start_paused = true)]
async fn the_task_that_polled_last_is_woken() {
    let alarms = running();
    let other = Arc::clone(&alarms);
    let (send, receive) = tokio::sync::oneshot::channel();
    let first = tokio::spawn(async move {
        let mut alarm = Box::pin(async move { after(&other, MINUTE).await });
        timeout(Duration::from_secs(1), &mut alarm).await.unwrap_err();
        drop(send.send(alarm));
    });
    first.await.unwrap();
    let begun = Instant::now();
    receive.await.unwrap().await;
    assert_eq!(begun.elapsed().as_secs(), 59);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_in_a_thousand_years_waits() {
    let alarms = running();
    let year = 365 * 24 * 60 * MINUTE;
    for wait in [1_000 * year, Duration::MAX] {
        timeout(year, after(&alarms, wait)).await.unwrap_err();
    }
}

#[test]
fn of_millions_of_alarms_for_one_time_each_has_its_key() {
    let mut set = Set::default();
    let time = Key::at(MINUTE);
    let numbers = (1 << Key::NUMBER) - 1;
    for round in 0..3 {
        for number in [7, numbers - 1, numbers] {
            set.number = round * numbers + number;
            let (key, is_first) = set.insert(time, Waker::noop().clone());
            assert!(key.has_number() && !time.has_number());
            assert_eq!(is_first, set.wakers.len() == 1 || (round, number) == (0, numbers - 1));
            assert_eq!(key.time(), time.time() + Duration::from_nanos(round * Key::STEP));
        }
    }
    assert_eq!(set.wakers.len(), 9);
}
