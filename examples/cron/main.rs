//! The cron extension: runs a pipeline whenever an expression matches the clock.
//!
//! `cargo run --example cron` shows it at work on an embedded core; started by Gofer, it is the
//! extension itself.
//!
//! - [`cron`] is the extension: what a pipeline subscribes with, and what it does for one
//!   subscription.
//! - This file is the program: which extension, on which runtime.
//! - `image.rs` and Cargo.toml beside it are for an image: the same extension without the demo, and
//!   so without the core.

mod cron;

use cron::Cron;
use gofer_core::{Demo, DemoError, run_or_demo};

// An extension mostly waits: one thread responds faster and needs less memory than several.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    // Every minute, so that there is something to see.
    run_or_demo::<Cron>(Demo::new("cron").param("expression", "* * * * * *")).await
}
