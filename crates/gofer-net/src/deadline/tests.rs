use super::*;

#[test]
fn formatted_timeouts_are_parsed_back() {
    for timeout in [
        Duration::from_micros(1),
        Duration::from_secs(10),
        Duration::from_secs(100),
        Duration::from_secs(99_999_999),
    ] {
        assert_eq!(parse(&format(timeout)), Some(timeout));
    }
    assert_eq!(format(Duration::MAX), "99999999S");
}

#[test]
fn invalid_headers_are_treated_as_absent() {
    for text in ["", "S", "1", "1x", "-1S", "+1S", "123456789S", "1 S", "é", "1é"] {
        assert_eq!(parse(&HeaderValue::from_bytes(text.as_bytes()).unwrap()), None, "{text}");
    }
}
