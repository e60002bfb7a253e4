//! The README's code is compiled and run: `readme/every.rs` is what a reader
//! has in `src/main.rs` after following it.

#[allow(dead_code, reason = "its `main` is not called here")]
mod every {
    /// The lines that make the program show itself. It is compiled; it would
    /// run for as long as one lets it.
    async fn demo() -> Result<(), gofer_core::DemoError> {
        include!("readme/demo.rs")
    }

    include!("readme/every.rs");
}

const README: &str = include_str!("../../README.md");
const EVERY: &str = include_str!("readme/every.rs");

#[test]
fn the_recipe_for_an_image_is_the_one_that_is_tested() {
    // By tests/containers.
    let block = format!("```dockerfile\n{}```", include_str!("../../examples/Dockerfile"));
    assert!(README.contains(&block), "the README must have the lines of examples/Dockerfile");
}

#[test]
fn every_code_block_of_the_readme_is_what_is_tested() {
    let blocks: Vec<&str> = README
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert_eq!(blocks.len(), 2, "a new block needs a place in tests/project/readme/every.rs");
    // In braces, since a file that is included is one expression.
    let lines = include_str!("readme/demo.rs").trim_matches(['{', '}', '\n']);
    let block = format!("```rust,ignore\n{lines}\n```");
    assert!(README.contains(&block), "tests/project/readme/demo.rs must be the README's lines");
    assert_eq!(
        blocks.join("\n"),
        EVERY,
        "tests/project/readme/every.rs must be the README's blocks"
    );
}
