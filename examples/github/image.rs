//! The github extension, and nothing else: the program that goes into an image.

mod github;

use github::Github;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), gofer_sdk::RunError> {
    gofer_sdk::run::<Github>().await
}
