//! The cron extension, and nothing else: the program that goes into an image.

mod cron;

use cron::Cron;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), gofer_sdk::RunError> {
    gofer_sdk::run::<Cron>().await
}
