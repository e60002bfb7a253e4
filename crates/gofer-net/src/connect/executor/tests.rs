use hyper::rt::Executor as _;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;

/// With a first future, which does not complete.
fn connected() -> Executor {
    let executor = Executor::spawn();
    executor.execute(std::future::pending());
    executor
}

fn at_rest(executor: &Executor) -> usize {
    lock(&executor.shared).at_rest.len()
}

async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test]
async fn what_has_completed_is_dropped_and_its_memory_used_again() {
    let executor = connected();
    let held = Arc::new(());
    for _ in 0..10 {
        let (done, completed) = oneshot::channel();
        let held = Arc::clone(&held);
        executor.execute(async move {
            yield_now().await;
            drop(held);
            done.send(()).unwrap();
        });
        completed.await.unwrap();
        settle().await;
        assert_eq!(at_rest(&executor), 1);
    }
    assert_eq!(Arc::strong_count(&held), 1);
}

/// As hyper's, which keeps its parts until it is dropped.
struct Keeping(#[expect(dead_code, reason = "dropped")] Arc<()>);

impl Future for Keeping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[tokio::test]
async fn memory_at_rest_holds_nothing() {
    let executor = connected();
    let held = Arc::new(());
    executor.execute(Keeping(Arc::clone(&held)));
    settle().await;
    assert_eq!((at_rest(&executor), Arc::strong_count(&held)), (1, 1));
}

#[tokio::test]
async fn what_waits_does_not_hold_up_others() {
    let executor = connected();
    let (go, wait) = oneshot::channel::<()>();
    let (done, completed) = oneshot::channel();
    executor.execute(async move {
        wait.await.unwrap();
        done.send(()).unwrap();
    });
    let (other, overtakes) = oneshot::channel();
    executor.execute(async move { other.send(()).unwrap() });
    overtakes.await.unwrap();
    go.send(()).unwrap();
    completed.await.unwrap();
}

#[tokio::test]
async fn a_panic_ends_what_panicked_and_nothing_else() {
    let executor = connected();
    let held = Arc::new(());
    let (go, wait) = oneshot::channel::<()>();
    let (done, completed) = oneshot::channel();
    executor.execute(async move {
        wait.await.unwrap();
        done.send(()).unwrap();
    });
    let dropped = Arc::clone(&held);
    executor.execute(async move {
        yield_now().await;
        assert_eq!(Arc::strong_count(&dropped), 0, "expected by this test");
    });
    settle().await;
    assert_eq!((at_rest(&executor), Arc::strong_count(&held)), (1, 1));
    go.send(()).unwrap();
    completed.await.unwrap();
    let (after, runs) = oneshot::channel();
    executor.execute(async move { after.send(()).unwrap() });
    runs.await.unwrap();
}

#[tokio::test]
async fn after_a_burst_a_bounded_number_is_kept() {
    let executor = connected();
    let (go, _) = tokio::sync::broadcast::channel::<()>(1);
    for _ in 0..3 * AT_REST {
        let mut wait = go.subscribe();
        executor.execute(async move { drop(wait.recv().await) });
    }
    settle().await;
    assert_eq!(at_rest(&executor), 0);
    go.send(()).unwrap();
    settle().await;
    assert_eq!(at_rest(&executor), AT_REST);
}

#[tokio::test]
async fn its_task_ends_with_the_last_executor_once_what_runs_has_completed() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let executor = Executor::spawn();
    let copy = executor.clone();
    let (go, wait) = oneshot::channel::<()>();
    executor.execute(async {});
    executor.execute(async move { drop(wait.await) });
    settle().await;
    drop(executor);
    drop(copy);
    settle().await;
    assert_eq!(tasks(), 1);
    go.send(()).unwrap();
    settle().await;
    assert_eq!(tasks(), 0);
}
