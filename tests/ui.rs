//! The compiler errors for an author's mistakes.
//!
//! Their wording changes with the compiler, so they are compared only with the version that they
//! were recorded with.

use std::process::Command;

/// `TRYBUILD=overwrite cargo test --test ui` records them again.
const RECORDED_WITH: &str = "rustc 1.95.";

#[test]
fn compile_errors_explain_the_authors_mistake() {
    let version = Command::new("rustc").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    if !version.starts_with(RECORDED_WITH) {
        println!("skipped: recorded with {RECORDED_WITH}x, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
