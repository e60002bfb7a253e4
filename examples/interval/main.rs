//! The interval extension: runs a pipeline each time an interval has passed.
//!
//! Written to be learnt from. `cargo run --example interval` shows it at work on an embedded Gofer
//! core; started by Gofer, it is the extension itself.
//!
//! - [`interval`] is the extension: what it is configured with, what a pipeline subscribes with,
//!   and what it does for one subscription.
//! - This file is the program: which extension, on which runtime.
//! - `image.rs` and Cargo.toml beside it are for an image: the same extension without the demo, and
//!   so without the core.

mod interval;

use gofer_core::{Demo, DemoError, run_or_demo};
use interval::Interval;

// An extension waits; it does not compute. One thread answers faster, and with less, than several
// that hand calls to each other.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    let demo = Demo::new("interval")
        // Shorter than anybody wants in production, so that there is something to see.
        .config("min_interval", "1s")
        .param("every", "5s")
        .cadence("every");
    run_or_demo::<Interval>(demo).await
}
