//! What differs between the addresses of a core.
#![allow(clippy::unwrap_used)]

use gofer_proto::{BootstrapTokenRequest, GetSystemInfoRequest};
use gofer_sdk::Gofer;
use tonic::Code;

use crate::Core;

#[tokio::test]
async fn the_first_token_is_not_made_on_the_address_for_containers() {
    let builder = Core::builder().listen(([127, 0, 0, 1], 0)).allow_bootstrap();
    let core = builder.start().await.unwrap();
    // An address of this machine that no certificate names.
    let additional = core.inner.serving.also_on([127, 0, 0, 2].into()).await.unwrap();
    let to = |address: String| Gofer::builder(address).skip_tls_verify().build().unwrap();
    for reopened in [false, true] {
        if reopened {
            core.close_api().await;
            core.reopen_api().await.unwrap();
        }
        let mut api = to(additional.to_string()).api();
        api.get_system_info(GetSystemInfoRequest {}).await.unwrap();
        let refused = api.bootstrap_token(BootstrapTokenRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("--listen"), "{refused}");
    }
    let mut api = to(core.address().unwrap().to_string()).api();
    api.bootstrap_token(BootstrapTokenRequest {}).await.unwrap();
    core.stop().await;
}
