//! A client for programs that are not extensions, and the certificate by which it knows a core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::support::stand_in::{Outcome, StandIn, pipeline};
use crate::support::{IDENTITY, TOKEN};
use gofer_core::Core;
use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::{BootstrapTokenRequest, GetSystemInfoRequest, ListNamespacesRequest};
use gofer_sdk::{ErrorKind, Gofer, Run};
use tonic::{Code, Status};

/// Removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gofer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("gofer.redb")
    }

    /// The certificate that the core saves for its clients.
    fn certificate(&self) -> String {
        std::fs::read_to_string(self.0.join("gofer.redb.crt")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn listening(directory: &Directory) -> Core {
    let builder = Core::builder().listen((Ipv4Addr::LOCALHOST, 0)).store(directory.store());
    builder.allow_bootstrap().start().await.unwrap()
}

fn address(core: &Core) -> String {
    core.address().unwrap().to_string()
}

#[tokio::test]
async fn a_restarted_core_keeps_its_certificate() {
    let directory = Directory::new("known");
    let core = listening(&directory).await;
    assert!(core.awaits_first_token());
    let trusted = directory.certificate();
    assert_eq!(trusted, core.certificate());
    let gofer = Gofer::builder(address(&core)).ca_certificate(&trusted).build().unwrap();
    let token = gofer.api().bootstrap_token(BootstrapTokenRequest {}).await.unwrap();
    let token = token.into_inner().token;
    assert!(!core.awaits_first_token());
    core.stop().await;

    let core = listening(&directory).await;
    assert!(!core.awaits_first_token(), "it is not new any more");
    let gofer = Gofer::builder(address(&core)).ca_certificate(&trusted).token(token);
    let gofer = gofer.build().unwrap();
    gofer.api().list_namespaces(ListNamespacesRequest::default()).await.unwrap();
    core.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_core_that_has_moved_is_known_by_the_certificate_that_was_copied() {
    let directory = Directory::new("moved");
    let core = listening(&directory).await;
    let trusted = directory.certificate();
    core.stop().await;
    let builder = Core::builder().listen(([127, 0, 0, 2], 0)).store(directory.store());
    let core = builder.start().await.unwrap();
    let gofer = Gofer::builder(address(&core)).ca_certificate(&trusted).build().unwrap();
    gofer.api().get_system_info(GetSystemInfoRequest {}).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_unless_verification_is_skipped() {
    let core = Core::on_loopback().await.unwrap();
    let unauthenticated = Gofer::builder(address(&core)).build().unwrap();
    let status = unauthenticated.api().get_system_info(GetSystemInfoRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("certificate is not accepted"), "{status}");
    let unverified = Gofer::builder(address(&core)).skip_tls_verify().build().unwrap();
    unverified.api().get_system_info(GetSystemInfoRequest {}).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn a_configured_certificate_is_served_on_tcp_and_extensions_still_work() {
    let pair = rcgen::generate_simple_self_signed(["gofer.example.com".to_owned()]).unwrap();
    let core = Core::builder()
        .listen((Ipv4Addr::LOCALHOST, 0))
        .tls(pair.cert.pem(), pair.signing_key.serialize_pem())
        .start()
        .await
        .unwrap();
    assert_eq!(core.certificate(), pair.cert.pem());
    // Trusted, but not valid for the name that is called.
    let gofer = Gofer::builder(address(&core)).ca_certificate(pair.cert.pem()).build().unwrap();
    let status = gofer.api().get_system_info(GetSystemInfoRequest {}).await.unwrap_err();
    assert!(status.message().contains("but for `gofer.example.com`"), "{status}");
    // In-process connections use another server name.
    core.client().api().get_system_info(GetSystemInfoRequest {}).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn an_unreachable_gofer_is_unavailable() {
    let nobody: SocketAddr = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let gofer = Gofer::builder(nobody.to_string()).build().unwrap();
    let status = gofer.api().get_system_info(GetSystemInfoRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn another_service_is_called_over_the_same_connection() {
    let core = Core::on_loopback().await.unwrap();
    let gofer = Gofer::builder(address(&core)).skip_tls_verify().token(core.token());
    let gofer = gofer.build().unwrap();
    let request = ListExtensionStatesRequest::default();
    match EmbeddedCoreClient::new(gofer.transport()).list_extension_states(request).await {
        Ok(_) => {}
        Err(status) => assert_eq!(status.code(), Code::Unimplemented, "{status}"),
    }
    core.stop().await;
}

#[tokio::test]
async fn a_full_gofer_gives_the_kinds_of_errors_that_are_promised() {
    let stand_in = StandIn::listening([pipeline("nightly"), pipeline("off").disabled()]);
    let builder = || {
        let address = stand_in.address().to_string();
        Gofer::builder(address).ca_certificate(&IDENTITY.certificate)
    };
    let gofer = builder().token(TOKEN).build().unwrap();
    let objects = gofer.pipeline_objects("nightly");
    objects.put("cursor", "41").await.unwrap();
    assert_eq!(objects.put("cursor", "42").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    for code in [Code::FailedPrecondition, Code::Internal, Code::Unknown] {
        stand_in.not_found_is(code);
        assert_eq!(gofer.run("nightly", 7).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(objects.get("other").await.unwrap_err().kind(), ErrorKind::NotFound);
        let started = gofer.start_run("other", "test", Run::because("of a test")).await;
        assert_eq!(started.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let disabled = gofer.start_run("off", "test", Run::because("of a test")).await;
    assert_eq!(disabled.unwrap_err().kind(), ErrorKind::FailedPrecondition);

    let starts = stand_in.recorded().calls("StartRun");
    let refusal = "could not start: rpc error: code = Unavailable desc = draining";
    stand_in.next("StartRun", [Outcome::Refuse(Status::failed_precondition(refusal))]);
    let refused = gofer.start_run("nightly", "test", Run::because("of a test")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(refused.to_string(), "Gofer: could not start: draining");
    assert_eq!(stand_in.recorded().calls("StartRun"), starts + 1, "a refusal is final");

    let anonymous = builder().build().unwrap();
    let refused = anonymous.runs("nightly", 1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
}
