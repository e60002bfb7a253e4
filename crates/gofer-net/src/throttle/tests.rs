use super::*;

#[tokio::test(start_paused = true)]
async fn warnings_are_throttled_and_counted() {
    let throttle = Throttle::default();
    assert_eq!(throttle.record(), Some(1));
    for _ in 0..5 {
        assert_eq!(throttle.record(), None);
    }
    tokio::time::advance(WARN_EVERY).await;
    assert_eq!(throttle.record(), Some(6));
}
