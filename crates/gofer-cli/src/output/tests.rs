use super::*;

#[test]
fn times_are_utc_and_zero_is_never() {
    assert_eq!(rfc3339(1_700_000_000_123).unwrap(), "2023-11-14T22:13:20.123Z");
    assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20Z");
    assert_eq!((rfc3339(0), moment(0).as_str()), (None, "-"));
    assert_eq!(rfc3339(i64::MAX), None);
}

#[test]
fn control_characters_are_removed() {
    assert_eq!(visible("a\u{1b}[2Jb\nc"), "a [2Jb c");
    // Of those that change the order of a line, or end it, or that nobody sees, the first and the
    // last ones.
    for invisible in "\u{200b}\u{200f}\u{2028}\u{202e}\u{2060}\u{2069}\u{feff}".chars() {
        assert_eq!(visible(&format!("a{invisible}b")), "a b", "{invisible:?}");
    }
    assert_eq!(visible("שלום – 👍"), "שלום – 👍");
}
