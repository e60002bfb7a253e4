//! How sizes are read and written.
#![allow(clippy::unwrap_used)]

use super::Size;

#[test]
fn sizes_are_read_as_they_are_written() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1000),
        ("1KiB", 1024),
        ("256MiB", 256 << 20),
        ("3GiB", 3 << 30),
        ("1TiB", 1 << 40),
        ("1025KiB", 1025 << 10),
        ("18446744073709551615", u64::MAX),
    ] {
        let size: Size = text.parse().unwrap();
        assert_eq!((size.0, size.to_string()), (bytes, text.to_owned()));
    }
    assert_eq!("1024MiB".parse::<Size>().unwrap().to_string(), "1GiB");
}

#[test]
fn what_is_not_a_size_is_refused_with_what_to_write_instead() {
    for text in ["", "MiB", "-1MiB", "1.5GiB", "256M", "256mib", "256 MiB", "256MiB ", "1e3", "+1"]
    {
        let refused = text.parse::<Size>().unwrap_err();
        assert!(refused.contains("`256MiB`; a number without a unit is in bytes"), "{text}");
    }
    for text in ["18446744073709551616", "16777216TiB", "99999999999999999999999GiB"] {
        assert_eq!(text.parse::<Size>().unwrap_err(), "is too large", "{text}");
    }
}
