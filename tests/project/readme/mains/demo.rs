#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), gofer_core::DemoError> {
    let demo = gofer_core::Demo::new("every").param("every", "2s").cadence("every");
    gofer_core::run_or_demo::<Every>(demo).await
}
