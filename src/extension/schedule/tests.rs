use super::*;

#[test]
fn the_grid_is_computed_from_one_of_its_points() {
    assert_eq!(next_on_grid(100, 10, 100), 110);
    assert_eq!(next_on_grid(100, 10, 109), 110);
    assert_eq!(next_on_grid(100, 10, 110), 120);
    assert_eq!(next_on_grid(100, 10, 173), 180, "what was missed is skipped");
    assert_eq!(next_on_grid(-1_000, 300, -1_000), -700, "overdue stays overdue");
    assert_eq!(next_on_grid(1_105, 100, 110), 205, "also before that point");
    assert_eq!(next_on_grid(0, i64::MAX, 5), i64::MAX);
    assert_eq!(next_on_grid(5, i64::MAX, 5), i64::MAX, "saturates");
}
