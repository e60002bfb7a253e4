//! The first management token: nobody gets it by reaching the core, unless the embedder allows it.

use crate::caller::Caller;
use gofer_core::Core;
use gofer_proto as proto;
use tonic::{Code, Status};

async fn bootstrap(caller: &Caller) -> Result<String, Status> {
    let made = caller.api().bootstrap_token(proto::BootstrapTokenRequest {}).await;
    made.map(|made| made.into_inner().token)
}

fn refused(outcome: Result<String, Status>, expected: &str) {
    let refused = outcome.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(expected), "{refused}");
}

/// Any process of the machine can do this while a test or a program with a core runs.
#[tokio::test]
async fn who_reaches_the_port_of_an_embedded_core_does_not_become_its_manager() {
    let core = Core::on_loopback().await.unwrap();
    assert!(!core.awaits_first_token());
    let stranger = Caller::of(&core).await;
    refused(bootstrap(&stranger).await, "--allow-bootstrap");
    // So it cannot have the core start a program.
    let request = proto::InstallExtensionRequest {
        name: "own".to_owned(),
        image: "exec:/bin/true".to_owned(),
        ..Default::default()
    };
    let outcome = stranger.api().install_extension(request).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unauthenticated);
    core.stop().await;
}

#[tokio::test]
async fn if_allowed_the_first_token_is_made_once_and_on_the_configured_address_only() {
    let builder = Core::builder().listen(([127, 0, 0, 1], 0)).allow_bootstrap();
    let core = builder.start().await.unwrap();
    assert!(core.awaits_first_token());
    // The pipe inside the process is not that address.
    let in_memory = core.client().api().bootstrap_token(proto::BootstrapTokenRequest {}).await;
    refused(in_memory.map(|_| String::new()), "--listen");
    // Nor does it become another one by an outage.
    core.close_api().await;
    core.reopen_api().await.unwrap();
    let caller = Caller::of(&core).await;
    let token = bootstrap(&caller).await.unwrap();
    assert!(!core.awaits_first_token());
    caller.with(&token).call("ListTokens").await.unwrap();
    refused(bootstrap(&caller).await, "already been made");
    core.stop().await;
}

#[tokio::test]
async fn the_embedder_makes_the_first_token_once_and_has_it_before_it_is_valid() {
    let core = Core::on_loopback().await.unwrap();
    let lost = core.make_first_token(|_| Err(gofer_sdk::Error::internal("the disk is full")));
    assert!(lost.await.unwrap_err().to_string().contains("the disk is full"));
    let mut kept = String::new();
    let keep = |token: &str| {
        kept.push_str(token);
        Ok::<_, gofer_sdk::Error>(())
    };
    assert!(core.make_first_token(keep).await.unwrap(), "the lost one does not count");
    let caller = Caller::of(&core).await.with(&kept);
    caller.call("ListTokens").await.unwrap();
    let again = core.make_first_token(|_| -> gofer_sdk::Result<()> { panic!("made again") });
    assert!(!again.await.unwrap());
    core.stop().await;
}
