//! The README's code is compiled and run: the files below `readme/` are those that a reader has
//! after following it.

#[path = "readme/examples/demo.rs"]
#[allow(dead_code, unreachable_pub, reason = "programs, whose `main` is not called here")]
mod demo;

const README: &str = include_str!("../../README.md");
const DOCKERFILE: &str = include_str!("../../examples/Dockerfile");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_recipe_for_an_image_is_the_one_that_is_tested() {
    // By the container tests of gofer-core.
    assert_eq!(blocks("dockerfile"), [DOCKERFILE]);
}

#[test]
fn the_recipe_for_a_program_that_was_built_outside_is_the_end_of_that_one() {
    let (_, end) = DOCKERFILE.split_once("FROM scratch\n").unwrap();
    let end = end.replace("COPY --from=build /source/image/ /", "COPY image/ /");
    assert_eq!(blocks("text"), [format!("FROM scratch\n{end}")]);
}

#[test]
fn every_code_block_of_the_readme_is_what_is_tested() {
    let [extension, test, demo] = blocks("rust")[..] else {
        panic!("a new block needs a place below tests/project/readme")
    };
    let main = include_str!("readme/src/main.rs");
    assert_eq!(format!("{extension}\n{test}"), main, "src/main.rs is not as in the README");
    let expected = include_str!("readme/examples/demo.rs");
    assert_eq!(demo, expected, "examples/demo.rs is not as in the README");
}
