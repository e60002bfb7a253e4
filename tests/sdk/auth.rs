//! Who may call what, over a real socket: without the token, health and nothing else.

use crate::support::probe::probe;
use crate::support::{Connection, Setup, TOKEN, bearer, within};
use gofer_proto::ExtensionInfoRequest;
use gofer_proto::extension_service_client::ExtensionServiceClient;
use http::HeaderValue;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

/// Everything but health: the eight methods, the SDK's own, reflection, and paths that do not exist, which an
/// unauthenticated caller must not find out.
const CLOSED: [&str; 12] = [
    "/proto.ExtensionService/Init",
    "/proto.ExtensionService/Info",
    "/proto.ExtensionService/Subscribe",
    "/proto.ExtensionService/Unsubscribe",
    "/proto.ExtensionService/Shutdown",
    "/proto.ExtensionService/ExternalEvent",
    "/proto.ExtensionService/RunExtensionInstaller",
    "/proto.ExtensionService/RunPipelineConfigurator",
    "/gofer_sdk.embedded.ExtensionStatus/GetSubscriptionStates",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/proto.ExtensionService/NoSuchMethod",
    "/no.such.Service/Method",
];

async fn assert_all_unauthenticated(connection: &Connection, credentials: &str) {
    for path in CLOSED {
        let status = connection.call(path).await.expect_err(path);
        assert_eq!(status.code(), Code::Unauthenticated, "{path} with {credentials}: {status}");
        assert!(!status.message().contains(TOKEN), "{status}");
    }
}

#[tokio::test]
async fn without_a_token_nothing_but_health_is_open() {
    let (probe, started, _) = probe().start_bare(Setup::default()).await;
    let unauthenticated = started.unauthenticated().await;
    assert_all_unauthenticated(&unauthenticated, "no token").await;
    let mut health = unauthenticated.health();
    let answer = within(health.check(HealthCheckRequest { service: String::new() })).await;
    let status = answer.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing, "before Init");
    assert!(probe.seen().events.is_empty(), "{:?}", probe.seen().events);
}

#[tokio::test]
async fn any_token_but_the_right_one_is_refused_by_every_method() {
    let (probe, started, client) = probe().start_bare(Setup::default()).await;
    let unauthenticated = started.unauthenticated().await;
    let longer = format!("{TOKEN}x");
    for (credentials, value) in [
        ("a wrong token", "Bearer wrong".to_owned()),
        ("an empty token", "Bearer ".to_owned()),
        ("no token after the scheme", "Bearer".to_owned()),
        ("an empty header", String::new()),
        ("the token without a scheme", TOKEN.to_owned()),
        ("another scheme", format!("Basic {TOKEN}")),
        ("the start of the token", format!("Bearer {}", &TOKEN[..TOKEN.len() - 1])),
        ("the token and more", format!("Bearer {longer}")),
        ("the token in another case", format!("Bearer {}", TOKEN.to_uppercase())),
        ("two spaces before the token", format!("Bearer  {TOKEN}")),
        ("the token twice in one header", format!("Bearer {TOKEN}, Bearer {TOKEN}")),
    ] {
        let header = HeaderValue::try_from(value).unwrap();
        assert_all_unauthenticated(&unauthenticated.with([header]), credentials).await;
    }
    // None of those calls had an effect, not even Shutdown.
    client.init(&probe.config()).await.unwrap();
    assert_eq!(probe.seen().events, ["init"]);
}

#[tokio::test]
async fn two_authorization_headers_are_refused_by_every_method() {
    let (_, started, _) = probe().start_bare(Setup::default()).await;
    let unauthenticated = started.unauthenticated().await;
    assert_all_unauthenticated(
        &unauthenticated.with([bearer(TOKEN), bearer(TOKEN)]),
        "the token twice",
    )
    .await;
    assert_all_unauthenticated(
        &unauthenticated.with([bearer(TOKEN), bearer("wrong")]),
        "one wrong",
    )
    .await;
    assert_all_unauthenticated(
        &unauthenticated.with([bearer("wrong"), bearer(TOKEN)]),
        "one right",
    )
    .await;
}

#[tokio::test]
async fn the_scheme_is_compared_without_regard_to_case() {
    let (_, started, _) = probe().start_bare(Setup::default()).await;
    let unauthenticated = started.unauthenticated().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let header = HeaderValue::try_from(format!("{scheme} {TOKEN}")).unwrap();
        let mut client = ExtensionServiceClient::new(unauthenticated.with([header]));
        let info = within(client.info(ExtensionInfoRequest {})).await;
        assert_eq!(info.expect(scheme).into_inner().name, crate::support::NAME);
    }
}

#[tokio::test]
async fn a_wrong_token_does_not_close_health() {
    let (_, started, _) = probe().start_bare(Setup::default()).await;
    let mut health = started.unauthenticated().await.with([bearer("wrong")]).health();
    for service in ["", "proto.ExtensionService", "subscriptions"] {
        let service = service.to_owned();
        within(health.check(HealthCheckRequest { service })).await.unwrap();
    }
}

#[tokio::test]
async fn with_the_token_reflection_names_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let (_, _started, client) = probe().start_bare(Setup::default()).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let requests = tonic::codegen::tokio_stream::once(request);
    let mut reflection = ServerReflectionClient::new(client.connection.clone());
    let response = within(reflection.server_reflection_info(requests)).await.unwrap();
    let answer = within(response.into_inner().message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == "proto.ExtensionService"), "{names:?}");
    assert!(names.iter().any(|name| name == "gofer_sdk.embedded.ExtensionStatus"), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
}
