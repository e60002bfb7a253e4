{
let demo = gofer_core::Demo::new("every").param("every", "2s");
gofer_core::run_or_demo::<Every>(demo).await
}
