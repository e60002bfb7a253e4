//! The README's code is compiled and run: the files below `readme/` are those that a reader has
//! after following it.

#[path = "readme/examples/demo.rs"]
#[allow(dead_code, unreachable_pub, reason = "programs, whose `main` is not called here")]
mod demo;

// Private in `demo`, as a reader has it.
#[path = "readme/src/main.rs"]
#[allow(clippy::duplicate_mod, dead_code, unreachable_pub, reason = "see `demo`")]
mod every;

/// The two versions of `main` for a program that contains its demo.
#[allow(dead_code, reason = "programs, whose `main` is not called here")]
mod mains {
    use super::every::Every;
    use gofer_sdk::RunError;

    mod demo {
        use super::Every;

        include!("readme/mains/demo.rs");
    }

    include!("readme/mains/program.rs");
}

use crate::doctest::restarts_and_unsubscribes;
use every::Every;
use gofer_core::{Core, NO_SETTINGS, hours};

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
    let [mains] = blocks("rust,ignore")[..] else { panic!("a new block needs a place in `mains`") };
    let with = include_str!("readme/mains/demo.rs");
    let without = include_str!("readme/mains/program.rs");
    let both = [("feature = \"demo\"", with), ("not(feature = \"demo\")", without)];
    let both = both.map(|(on, main)| format!("#[cfg({on})]\n{main}")).join("\n");
    assert_eq!(mains, both, "`mains` is not as in the README");
}

#[tokio::test(start_paused = true)]
async fn the_extension_of_the_readme_goes_on_after_a_restart_and_ends_when_it_is_unsubscribed()
-> gofer_sdk::Result<()> {
    let gofer = Core::in_memory().await?;
    let every = gofer.install::<Every>("every", NO_SETTINGS).await?;
    every.subscribe("ops/nightly", "docs", [("every", "1h30m")]).await?;
    gofer.elapse(hours(2)).await;
    assert_eq!(gofer.runs("ops/nightly").len(), 1);
    every.restart().await?;
    gofer.elapse(hours(1)).await;
    assert_eq!(gofer.runs("ops/nightly").len(), 2, "at 3:00");
    restarts_and_unsubscribes(&gofer, &every).await
}
