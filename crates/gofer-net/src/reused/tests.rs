use std::sync::Arc;

use super::*;

/// Waits, if it is to, and returns how many hold what it holds.
struct Count(Arc<()>, bool);

thread_local! {
    static COUNTS: AtRest<usize> = const { AtRest::new() };
}

impl Job for Count {
    type Output = usize;

    async fn run(job: Option<Self>) -> usize {
        let Some(Self(held, waits)) = job else { return 0 };
        if waits {
            std::future::pending::<()>().await;
        }
        Arc::strong_count(&held)
    }

    fn at_rest() -> &'static LocalKey<AtRest<usize>> {
        &COUNTS
    }
}

fn at_rest() -> usize {
    COUNTS.with(|at_rest| at_rest.0.borrow().len())
}

#[tokio::test]
async fn a_future_is_used_again_and_holds_nothing_at_rest() {
    let held = Arc::new(());
    for _ in 0..3 {
        assert_eq!(Reused::new(Count(Arc::clone(&held), false)).await, 2);
        assert_eq!((Arc::strong_count(&held), at_rest()), (1, 1));
    }
}

#[tokio::test]
async fn one_that_is_dropped_before_its_end_drops_what_it_holds() {
    let held = Arc::new(());
    let mut waiting: Vec<_> =
        (0..100).map(|_| Reused::new(Count(Arc::clone(&held), true))).collect();
    for future in &mut waiting {
        assert!(poll_once(future).is_pending());
    }
    assert_eq!(Arc::strong_count(&held), 101);
    drop(waiting);
    assert_eq!((Arc::strong_count(&held), at_rest()), (1, AT_REST), "no more are kept");
}

fn poll_once(future: &mut Reused<Count>) -> Poll<usize> {
    Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
}
