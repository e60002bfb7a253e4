//! Errors name what they are about, however long that is: their callers get them.

use gofer_core::Core;
use gofer_proto as proto;
use gofer_proto::initiator::Type;
use gofer_proto::run_pipeline_configurator_client_message as configurator;
use tonic::codegen::tokio_stream;
use tonic::{Code, Status};

use crate::caller::Caller;
use crate::metronome::Metronome;

/// What its caller gets of an error that names something long.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code) {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().ends_with('…'), "{status}");
}

/// The caller accepts no more headers than most gRPC implementations do.
#[tokio::test]
async fn an_error_that_names_something_long_reaches_its_caller() {
    let core = Core::on_loopback().await.unwrap();
    core.install::<Metronome>("metronome", [("", ""); 0]).await.unwrap();
    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let register = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(register).await.unwrap();
    let mut api = Caller::of(&core).await.with(core.token()).api();
    for long in ["a".repeat(20_000), "é".repeat(20_000), "🦀%".repeat(200_000)] {
        let get = proto::GetPipelineRequest { id: long.clone(), ..Default::default() };
        refused(api.get_pipeline(get).await, Code::NotFound);
        let get = proto::GetNamespaceRequest { id: long.clone() };
        refused(api.get_namespace(get).await, Code::NotFound);
        let get = proto::GetExtensionRequest { name: long.clone() };
        refused(api.get_extension(get).await, Code::NotFound);
        let get = proto::GetGlobalSecretRequest { key: long.clone(), include_secret: true };
        refused(api.get_global_secret(get).await, Code::NotFound);
        let get = proto::GetPipelineObjectRequest {
            pipeline_id: "nightly".to_owned(),
            key: long.clone(),
            ..Default::default()
        };
        refused(api.get_pipeline_object(get).await, Code::NotFound);
        let start = proto::StartRunRequest {
            namespace_id: long.clone(),
            pipeline_id: long.clone(),
            initiator: Some(proto::Initiator {
                r#type: Type::Bot.into(),
                name: "test".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        refused(api.start_run(start).await, Code::NotFound);
        // Refused by the extension.
        let subscribe = proto::CreatePipelineExtensionSubscriptionRequest {
            pipeline_id: "nightly".to_owned(),
            extension_name: "metronome".to_owned(),
            extension_label: "l".to_owned(),
            settings: [("every".to_owned(), "1h".to_owned()), (long.clone(), String::new())].into(),
            ..Default::default()
        };
        let status = api.create_pipeline_extension_subscription(subscribe).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        // At the end of a stream.
        let init = configurator::MessageType::Init(configurator::Init { name: long });
        let first = proto::RunPipelineConfiguratorClientMessage { message_type: Some(init) };
        let begun = api.run_pipeline_configurator(tokio_stream::iter([first])).await;
        let outcome = match begun {
            Ok(begun) => begun.into_inner().message().await,
            Err(status) => Err(status),
        };
        refused(outcome, Code::NotFound);
    }
    core.stop().await;
}
