#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    gofer_sdk::run::<Every>().await
}
