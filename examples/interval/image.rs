//! The interval extension, and nothing else: the program that goes into an image.

mod interval;

use interval::Interval;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), gofer_sdk::RunError> {
    gofer_sdk::run::<Interval>().await
}
