//! Two extensions as an author writes them, each with its tests in the same file: what they take is
//! what the SDK leaves to its users.

mod inbox;
mod nightly;

/// An extension took 136 lines and its tests 132, before webhooks and schedules were the SDK's.
#[test]
fn an_extension_takes_45_lines_and_its_tests_40() {
    for (name, text) in [
        ("inbox", include_str!("authors/inbox.rs")),
        ("nightly", include_str!("authors/nightly.rs")),
    ] {
        let (extension, tests) = text.split_once("#[cfg(test)]\n").unwrap();
        let count = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
        let (extension, tests) = (count(extension), count(tests) + 1);
        assert!(extension <= 45 && tests <= 40, "{name}: {extension} and {tests}");
    }
}
