//! The watch extension, and nothing else: the program that goes into an image.

mod watch;

use watch::Watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), gofer_sdk::RunError> {
    gofer_sdk::run::<Watch>().await
}
