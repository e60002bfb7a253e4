{
let demo = gofer_sdk::harness::Demo::new("every").param("every", "2s");
gofer_sdk::harness::run_or_develop::<Every>(demo).await
}
