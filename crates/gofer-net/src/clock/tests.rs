use super::*;

const YEAR: i64 = 365 * 24 * 60 * 60 * 1_000_000_000;

#[tokio::test(start_paused = true)]
async fn time_goes_on_whatever_the_clock_is_set_to() {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    let clock = Clock::set_by(&AHEAD);
    let mut seen = Vec::new();
    for years in [0, 1, -1, 170, 260, -60, -200] {
        AHEAD.store(years * YEAR, Ordering::Relaxed);
        let before = clock.unix_nanos();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.unix_nanos() - before, 1_000_000_000, "{years} years ahead");
        seen.push(before / YEAR);
    }
    assert_eq!(seen[1..3], [seen[0] + 1, seen[0] - 1]);
    assert_eq!(seen[3..], [seen[0] + 170, 230, 0, 0]);
}

#[test]
fn only_a_clock_of_its_own_may_be_set() {
    assert!(Clock::system().may_be_set());
    assert!(!Clock::derived().may_be_set());
}
