use super::*;

#[test]
fn pauses_grow_to_the_maximum_and_vary_by_up_to_half() {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut nominal = 100;
    for _ in 0..50 {
        let pause = backoff.pause();
        let most = Duration::from_millis(nominal);
        assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        nominal = (nominal * 2).min(2_000);
    }
}
