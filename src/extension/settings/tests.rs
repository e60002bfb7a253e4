use super::*;
use std::collections::HashMap;

#[test]
fn order_and_case_of_the_keys_do_not_matter() {
    let one = Settings::new([("every", "5m"), ("Jitter", "3s")]);
    let other = Settings::new([("JITTER", "3s"), ("EVERY", "5m")]);
    assert_eq!(one, other);
    assert_eq!(one.iter().collect::<Vec<_>>(), [("every", "5m"), ("Jitter", "3s")]);
}

#[test]
fn a_changed_value_or_key_is_a_difference() {
    let one = Settings::new([("every", "5m")]);
    assert_ne!(one, Settings::new([("every", "5M")]));
    assert_ne!(one, Settings::new([("evert", "5m")]));
    assert_ne!(one, Settings::new([("every5", "m")]));
    assert_ne!(one, Settings::new([("every", "5m"), ("", "")]));
    assert_ne!(one, Settings::default());
}

#[test]
fn what_goes_in_comes_out_at_every_size_of_length() {
    let sizes = [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152];
    let pairs: HashMap<String, String> = sizes
        .iter()
        .map(|&n| (format!("{n:08}"), "ä".repeat(n / 2) + &"b".repeat(n % 2)))
        .collect();
    let settings = Settings::new(&pairs);
    assert_eq!(settings.len(), sizes.len());
    for (key, value) in settings.iter() {
        assert_eq!(pairs[key], value);
    }
    let exact: usize = pairs.iter().map(|(k, v)| encoded_len(k) + encoded_len(v)).sum();
    assert_eq!(settings.packed.len(), exact);
}

#[test]
fn keys_that_differ_in_case_only_stand_next_to_each_other() {
    let settings = Settings::new([("b", "1"), ("A", "2"), ("B", "3"), ("a", "4"), ("C", "5")]);
    let keys: Vec<_> = settings.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["A", "a", "B", "b", "C"]);
}

#[test]
fn no_settings_are_empty_and_one_empty_setting_is_not() {
    let none = Settings::new::<&str, &str>([]);
    assert!(none.is_empty());
    assert_eq!(none, Settings::default());
    let one = Settings::new([("", "")]);
    assert!(!one.is_empty());
    assert_eq!(one.iter().collect::<Vec<_>>(), [("", "")]);
}

#[test]
fn debug_shows_keys_and_never_values() {
    let text = format!("{:?}", Settings::new([("token", "hunter22"), ("every", "5m")]));
    assert_eq!(text, r#"Settings {"every", "token"}"#);
}
