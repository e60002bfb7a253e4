use super::*;

#[tokio::test(start_paused = true)]
async fn warnings_are_throttled_and_counted() {
    let throttle = Throttle::default();
    assert_eq!(throttle.record(), Some(1));
    for _ in 0..5 {
        assert_eq!(throttle.record(), None);
    }
    tokio::time::advance(PERIOD).await;
    assert_eq!(throttle.record(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_number_of_lines_may_follow_each_other() {
    let throttle = Throttle::lines(3);
    for _ in 0..3 {
        assert_eq!(throttle.record(), Some(1));
    }
    assert_eq!((throttle.record(), throttle.record()), (None, None));
    tokio::time::advance(PERIOD).await;
    assert_eq!((throttle.record(), throttle.record()), (Some(3), Some(1)));
}
