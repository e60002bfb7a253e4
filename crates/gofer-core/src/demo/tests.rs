#![allow(clippy::unwrap_used)]

use super::*;

include!("../../tests/support/interval.rs");

#[tokio::test]
async fn a_cadence_that_is_no_parameter_is_an_error() {
    let demo = Demo::new("interval").param("every", "5s").cadence("evry");
    let error = run_demo::<Interval>(demo, std::iter::empty()).await.unwrap_err();
    assert!(error.to_string().contains("no parameter `evry`"), "{error}");
}
