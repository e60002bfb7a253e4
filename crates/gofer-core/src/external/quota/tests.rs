use super::*;

fn named(name: &str) -> Arc<str> {
    Arc::from(name)
}

#[test]
fn an_extension_cannot_reserve_more_than_it_leaves_free() {
    let quota = Quota::new(12);
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let six = quota.try_reserve(&a, 6).expect("a single one may hold half");
    assert!(quota.try_reserve(&a, 1).is_none());
    let three = quota.try_reserve(&b, 3).expect("the next may hold half of the rest");
    assert!(quota.try_reserve(&b, 1).is_none());
    assert!(quota.try_reserve(&c, 2).is_none());
    let one = quota.try_reserve(&c, 1).expect("and something is left for a third");
    drop(six);
    assert!(quota.try_reserve(&b, 1).is_some(), "what was released can be reserved again");
    drop((three, one));
    assert!(
        lock(&quota.state).usage.is_empty(),
        "no entry is left of extensions that hold nothing"
    );
    assert_eq!(lock(&quota.state).free, 12);
}

#[test]
fn a_reservation_that_shrinks_releases_the_excess_at_once() {
    let quota = Quota::new(100);
    let mut reservation = quota.try_reserve(&named("a"), 50).unwrap();
    reservation.shrink(10);
    assert_eq!(lock(&quota.state).free, 90);
    reservation.shrink(20);
    assert_eq!(lock(&quota.state).free, 90, "it does not grow");
    drop(reservation);
    assert_eq!(lock(&quota.state).free, 100);
}

#[tokio::test]
async fn waiting_callers_are_counted_and_served() {
    let quota = Quota::new(10);
    let (a, b) = (named("a"), named("b"));
    let held = quota.try_reserve(&a, 5).unwrap();
    let waiting = tokio::spawn({
        let (quota, a) = (Arc::clone(&quota), Arc::clone(&a));
        async move { quota.reserve(&a, 4).await }
    });
    while !quota.is_contended("a") {
        tokio::task::yield_now().await;
    }
    assert!(!quota.is_contended("b"), "it would not help");
    let other = tokio::spawn({
        let (quota, b) = (Arc::clone(&quota), Arc::clone(&b));
        async move { quota.reserve(&b, 5).await }
    });
    while !quota.is_contended("c") {
        tokio::task::yield_now().await;
    }
    drop(held);
    drop(waiting.await.unwrap());
    drop(other.await.unwrap());
    assert!(!quota.is_contended("a") && lock(&quota.state).usage.is_empty());
}
