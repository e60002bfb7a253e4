//! The compiler errors that an author meets, as the author reads them.
//!
//! Their exact wording is the compiler's, and changes with it: they are compared with the version
//! that they were recorded with, and only compiled with others.

use std::process::Command;

/// `TRYBUILD=overwrite cargo test --test ui` records them again.
const RECORDED_WITH: &str = "rustc 1.95.";

#[test]
fn mistakes_of_an_author_are_explained_in_the_authors_words() {
    let version = Command::new("rustc").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    if !version.starts_with(RECORDED_WITH) {
        println!("skipped: recorded with {RECORDED_WITH}x, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
