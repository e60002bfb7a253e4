//! Changed subscriptions of extensions that were not written with this SDK: some ignore a second
//! Subscribe of the same subscription, some then hold both.

use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::files::{Directory, write_script};
use crate::subscription_states::is_listed_without_state;
use gofer_core::{Core, InstallOptions, Installed, NO_SETTINGS};
use gofer_net::auth::{Authorize, Caller, Class, Decision, bearer, sha256};
use gofer_net::server::{Handler, ResponseFuture, Service, serve};
use gofer_net::tls::server_config;
use gofer_net::{Limits, Listener};
use gofer_proto as proto;
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_proto::server::extension_service_server::{ExtensionService, ExtensionServiceServer};
use gofer_sdk::ErrorKind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Where the extension writes down what it is called with.
const CALLS: &str = "FOREIGN_CALLS";

/// While this file exists, it does not answer some.
const HANGS: &str = "hangs";

/// Written by hand, as an extension without the SDK is.
struct Foreign {
    calls: PathBuf,
    once: Mutex<bool>,
    stop: CancellationToken,
}

impl Foreign {
    fn record(&self, call: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.calls);
        writeln!(file.as_mut().unwrap(), "{call}").unwrap();
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ExtensionService for Foreign {
    type RunExtensionInstallerStream =
        Messages<proto::ExtensionRunExtensionInstallerExtensionMessage>;
    type RunPipelineConfiguratorStream =
        Messages<proto::ExtensionRunPipelineConfiguratorExtensionMessage>;

    async fn init(
        &self,
        _: Request<proto::ExtensionInitRequest>,
    ) -> Result<Response<proto::ExtensionInitResponse>, Status> {
        Ok(Response::new(proto::ExtensionInitResponse::default()))
    }

    async fn info(
        &self,
        _: Request<proto::ExtensionInfoRequest>,
    ) -> Result<Response<proto::ExtensionInfoResponse>, Status> {
        Ok(Response::new(proto::ExtensionInfoResponse::default()))
    }

    async fn subscribe(
        &self,
        request: Request<proto::ExtensionSubscribeRequest>,
    ) -> Result<Response<proto::ExtensionSubscribeResponse>, Status> {
        let what = request.into_inner().config.remove("what").unwrap_or_default();
        self.record(&what);
        match &*what {
            "refused" => Err(Status::invalid_argument("`what` must be another")),
            "unanswered" => std::future::pending().await,
            "hangs" if self.calls.with_file_name(HANGS).exists() => std::future::pending().await,
            "once" if std::mem::replace(&mut self.once.lock().unwrap(), true) => {
                Err(Status::resource_exhausted("only once"))
            }
            _ => Ok(Response::new(proto::ExtensionSubscribeResponse::default())),
        }
    }

    async fn unsubscribe(
        &self,
        _: Request<proto::ExtensionUnsubscribeRequest>,
    ) -> Result<Response<proto::ExtensionUnsubscribeResponse>, Status> {
        self.record("end");
        Ok(Response::new(proto::ExtensionUnsubscribeResponse::default()))
    }

    async fn shutdown(
        &self,
        _: Request<proto::ExtensionShutdownRequest>,
    ) -> Result<Response<proto::ExtensionShutdownResponse>, Status> {
        self.stop.cancel();
        Ok(Response::new(proto::ExtensionShutdownResponse::default()))
    }

    async fn external_event(
        &self,
        _: Request<proto::ExtensionExternalEventRequest>,
    ) -> Result<Response<proto::ExtensionExternalEventResponse>, Status> {
        Err(Status::unimplemented("no events"))
    }

    async fn run_extension_installer(
        &self,
        _: Request<Streaming<proto::ExtensionRunExtensionInstallerClientMessage>>,
    ) -> Result<Response<Self::RunExtensionInstallerStream>, Status> {
        Err(Status::unimplemented("no installer"))
    }

    async fn run_pipeline_configurator(
        &self,
        _: Request<Streaming<proto::ExtensionRunPipelineConfiguratorClientMessage>>,
    ) -> Result<Response<Self::RunPipelineConfiguratorStream>, Status> {
        Err(Status::unimplemented("no configurator"))
    }
}

/// Lets everybody in who has a token.
struct Anyone;

impl Authorize for Anyone {
    fn authorize(
        &self,
        _: &str,
        headers: &http::HeaderMap,
        _: &mut http::Extensions,
    ) -> Result<Decision, Status> {
        let token = bearer(headers).ok_or_else(|| Status::unauthenticated("no token"))?;
        Ok(Decision::Granted(Caller { digest: sha256(token), class: Class::Other }))
    }
}

/// What it offers, and while the file exists, the SDK's own service, which never answers.
struct Offered(ExtensionServiceServer<Foreign>, PathBuf);

impl Handler for Offered {
    fn handle(&self, request: http::Request<Body>) -> ResponseFuture {
        let path = request.uri().path();
        if path.starts_with("/proto.ExtensionService/") {
            return self.0.clone().call(request);
        }
        if path.contains("ExtensionStatus") && self.1.exists() {
            return Box::pin(std::future::pending());
        }
        Box::pin(async { Ok(Status::unimplemented("unknown service").into_http()) })
    }
}

/// The extension's process. Not a test of its own.
#[tokio::test]
#[ignore = "started by other tests"]
async fn extension_under_test() {
    let Some(calls) = std::env::var_os(CALLS) else { return };
    let var = |name: &str| std::env::var(format!("GOFER_EXTENSION_SYSTEM_{name}")).unwrap();
    let tls = server_config(&var("TLS_CERT"), &var("TLS_KEY")).ok().unwrap();
    let listener = TcpListener::bind(var("HOST")).await.unwrap();
    let stop = CancellationToken::new();
    let foreign = Foreign { calls: calls.into(), once: Mutex::default(), stop: stop.clone() };
    let hangs = foreign.calls.with_file_name(HANGS);
    let handler = Arc::new(Offered(ExtensionServiceServer::new(foreign), hangs));
    let service = Service::new(Arc::new(Anyone), handler, Limits::default());
    serve(Listener::Tcp(listener), tls, service, stop.cancelled()).await;
}

struct Test {
    core: Core,
    foreign: Installed,
    directory: Directory,
}

impl Test {
    async fn begin(name: &str) -> Self {
        let directory = Directory::new(name);
        let program = directory.0.join("foreign");
        let tests = std::env::current_exe().unwrap();
        let start = format!(
            "export {CALLS}='{}'\nexec '{}' --exact foreign::extension_under_test --ignored \
             --nocapture >/dev/null",
            directory.0.join("calls").display(),
            tests.display()
        );
        write_script(&program, &start);
        let core = Core::on_loopback().await.unwrap();
        // Long enough for every call that is answered.
        let options = InstallOptions::new().call_timeout(Duration::from_secs(5));
        let foreign =
            core.install_program_with("foreign", &program, NO_SETTINGS, options).await.unwrap();
        Self { core, foreign, directory }
    }

    async fn subscribe(&self, what: &str) -> gofer_sdk::Result<()> {
        self.foreign.subscribe("nightly", "l", [("what", what)]).await
    }

    /// What the extension has been called with: Unsubscribe is `end`.
    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.directory.0.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    async fn stored(&self) -> Result<(String, State, String), Status> {
        let request = proto::GetPipelineExtensionSubscriptionRequest {
            pipeline_id: "nightly".to_owned(),
            extension_name: "foreign".to_owned(),
            extension_label: "l".to_owned(),
            ..Default::default()
        };
        let mut api = self.core.client().api();
        let response = api.get_pipeline_extension_subscription(request).await?;
        let stored = response.into_inner().subscription.unwrap();
        let reason = stored.status_reason.clone().unwrap_or_default().description;
        Ok((stored.settings["what"].clone(), stored.status(), reason))
    }

    async fn is_stored(&self, what: &str) {
        let active = (what.to_owned(), State::Active, String::new());
        assert_eq!(self.stored().await.unwrap(), active);
    }
}

/// What an extension runs that ignores a second Subscribe, and one that then holds both.
fn running(calls: &[String]) -> (Option<&str>, usize) {
    let (mut first, mut all) = (None, 0);
    for call in calls.iter().filter(|call| *call != "refused" && *call != "unanswered") {
        if call == "end" {
            (first, all) = (None, 0);
        } else {
            first = first.or(Some(&**call));
            all += 1;
        }
    }
    (first, all)
}

#[tokio::test]
async fn its_subscriptions_are_listed_whatever_it_says_of_them() {
    let test = Test::begin("foreign-states").await;
    test.subscribe("one").await.unwrap();
    let began = std::time::Instant::now();
    is_listed_without_state(&test.core, "foreign", Duration::from_secs(5)).await;
    let answered = began.elapsed();
    std::fs::write(test.directory.0.join(HANGS), "").unwrap();
    let began = std::time::Instant::now();
    is_listed_without_state(&test.core, "foreign", Duration::from_secs(5)).await;
    let hanging = began.elapsed();
    assert!(hanging >= Duration::from_secs(2), "it has answered");
    assert!(answered < hanging, "it was waited for: {answered:?}");
    test.core.stop().await;
}

#[tokio::test]
async fn a_changed_subscription_is_ended_before_it_begins_anew() {
    let test = Test::begin("foreign-changed").await;
    test.subscribe("one").await.unwrap();
    test.subscribe("two").await.unwrap();
    assert_eq!(test.calls(), ["one", "end", "two"]);
    assert_eq!(running(&test.calls()), (Some("two"), 1));
    test.is_stored("two").await;
    test.core.stop().await;
}

#[tokio::test]
async fn a_subscription_that_stays_as_it_is_is_not_begun_again() {
    let test = Test::begin("foreign-unchanged").await;
    for _ in 0..3 {
        test.subscribe("one").await.unwrap();
    }
    assert_eq!(test.calls(), ["one"]);
    // A reference whose secret has changed is another setting.
    let secrets = test.core.client().pipeline_secrets("nightly");
    secrets.put("what", "two").await.unwrap();
    test.subscribe("pipeline_secret{{ what }}").await.unwrap();
    secrets.replace("what", "three").await.unwrap();
    test.subscribe("pipeline_secret{{ what }}").await.unwrap();
    assert_eq!(test.calls(), ["one", "end", "two", "end", "three"]);
    test.is_stored("pipeline_secret{{ what }}").await;
    test.core.stop().await;
}

#[tokio::test]
async fn a_change_that_is_refused_puts_the_old_subscription_back() {
    let test = Test::begin("foreign-refused").await;
    test.subscribe("one").await.unwrap();
    let refused = test.subscribe("refused").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter, "{refused:?}");
    assert_eq!(test.calls(), ["one", "end", "refused", "one"]);
    test.is_stored("one").await;
    // What is stored is what the next process is given.
    test.foreign.restart().await.unwrap();
    assert_eq!(test.calls()[4..], ["one"]);
    test.core.stop().await;
}

/// Whoever answers nothing may hold it or not.
#[tokio::test]
async fn a_change_whose_answer_is_lost_is_taken_back() {
    let test = Test::begin("foreign-lost").await;
    test.subscribe("unanswered").await.unwrap_err();
    assert_eq!(test.calls(), ["unanswered", "end"]);
    test.stored().await.unwrap_err();
    test.subscribe("one").await.unwrap();
    test.subscribe("unanswered").await.unwrap_err();
    assert_eq!(test.calls()[2..], ["one", "end", "unanswered", "end", "one"]);
    test.is_stored("one").await;
    test.core.stop().await;
}

#[tokio::test]
async fn a_stored_subscription_that_is_not_answered_is_tried_again() {
    let test = Test::begin("foreign-hangs").await;
    test.subscribe("hangs").await.unwrap();
    let hangs = test.directory.0.join(HANGS);
    std::fs::write(&hangs, "").unwrap();
    test.foreign.restart().await.unwrap();
    let (what, state, reason) = test.stored().await.unwrap();
    assert_eq!((&*what, state), ("hangs", State::Active), "{reason}");
    assert!(reason.contains("not in effect yet"), "{reason}");
    std::fs::remove_file(&hangs).unwrap();
    while !test.stored().await.unwrap().2.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It may hold what it was given without an answer, so that is ended first.
    let calls = test.calls();
    assert_eq!(calls[calls.len() - 2..], ["end", "hangs"]);
    test.core.stop().await;
}

#[tokio::test]
async fn an_old_subscription_that_cannot_be_put_back_says_so() {
    let test = Test::begin("foreign-once").await;
    test.subscribe("once").await.unwrap();
    let refused = test.subscribe("refused").await.unwrap_err().to_string();
    assert!(refused.contains("`what` must be another"), "{refused}");
    assert!(refused.contains("as it was") && refused.contains("only once"), "{refused}");
    let (what, state, reason) = test.stored().await.unwrap();
    assert_eq!((&*what, state, &*reason), ("once", State::Error, "only once"));
    test.core.stop().await;
}

#[tokio::test]
async fn one_that_is_disabled_and_enabled_is_begun_once() {
    let test = Test::begin("foreign-disabled").await;
    test.subscribe("one").await.unwrap();
    let mut api = test.core.client().api();
    let (pipeline, extension, label) = ("nightly".to_owned(), "foreign".to_owned(), "l".to_owned());
    let disable = proto::DisablePipelineExtensionSubscriptionRequest {
        pipeline_id: pipeline.clone(),
        extension_name: extension.clone(),
        extension_label: label.clone(),
        ..Default::default()
    };
    api.disable_pipeline_extension_subscription(disable).await.unwrap();
    let enable = proto::EnablePipelineExtensionSubscriptionRequest {
        pipeline_id: pipeline,
        extension_name: extension,
        extension_label: label,
        ..Default::default()
    };
    for _ in 0..2 {
        api.enable_pipeline_extension_subscription(enable.clone()).await.unwrap();
    }
    assert_eq!(test.calls(), ["one", "end", "one"]);
    test.core.stop().await;
}
