#[path = "../src/main.rs"]
#[allow(dead_code)] // its `main`
mod every;

use gofer_core::{Demo, DemoError, run_or_demo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    let demo = Demo::new("every").param("every", "2s").cadence("every");
    run_or_demo::<every::Every>(demo).await
}
