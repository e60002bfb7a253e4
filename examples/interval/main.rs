//! The interval extension: runs a pipeline each time an interval has passed.
//!
//! Written to be learnt from. `cargo run --example interval` shows it at work
//! on an embedded Gofer core; started by Gofer, it is the extension itself.
//!
//! - [`interval`] is the extension: what it is configured with, what a pipeline
//!   subscribes with, and what it does for one subscription.
//! - This file is the program: which extension, on which runtime.
//! - Cargo.toml beside it is for an image: the same program without the core.

mod interval;

use gofer_sdk::RunError;
use interval::Interval;

// An extension waits; it does not compute. One thread answers faster, and with
// less, than several that hand calls to each other.
#[cfg(feature = "harness")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    use gofer_sdk::harness::{Demo, run_or_develop};

    let demo = Demo::new("interval")
        // Shorter than anybody wants in production, so that there is something
        // to see.
        .config("min_interval", "1s")
        .param("every", "5s")
        .cadence("every");
    run_or_develop::<Interval>(demo).await
}

// What goes into an image.
#[cfg(not(feature = "harness"))]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    gofer_sdk::run::<Interval>().await
}
