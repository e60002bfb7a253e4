//! The project as a new user sees it: the README, the examples, the packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what fails here fails a test"
)]

#[path = "../support/mod.rs"]
mod support;

mod authors;
mod cron;
#[path = "../../examples/cron/cron.rs"]
mod cron_extension;
#[path = "../support/doctest.rs"]
mod doctest;
mod github;
#[path = "../../examples/github/github.rs"]
mod github_extension;
mod interval;
#[path = "../../examples/interval/interval.rs"]
mod interval_extension;
mod package;
mod process;
mod readme;
mod watch;
#[path = "../../examples/watch/watch.rs"]
mod watch_extension;
