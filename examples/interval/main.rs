//! The interval extension: runs a pipeline each time an interval has passed.
//!
//! `cargo run --example interval` shows it at work on an embedded core; started by Gofer, it is the
//! extension itself.
//!
//! - [`interval`] is the extension: what it is configured with, what a pipeline subscribes with,
//!   and what it does for one subscription.
//! - This file is the program: which extension, on which runtime.
//! - `image.rs` and Cargo.toml beside it are for an image: the same extension without the demo, and
//!   so without the core.

mod interval;

use gofer_core::{Demo, DemoError, run_or_demo};
use interval::Interval;

// An extension mostly waits: one thread responds faster and needs less memory than several.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    let demo = Demo::new("interval")
        // Shorter than in production, so that there is something to see.
        .config("min_interval", "1s")
        .param("every", "5s")
        .cadence("every");
    run_or_demo::<Interval>(demo).await
}
