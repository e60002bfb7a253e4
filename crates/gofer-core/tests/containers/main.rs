//! Extensions in real containers: installed, subscribed, updated and killed, without orphans. If no
//! container engine answers, these tests report that they are skipped; what needs none is tested
//! everywhere.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what fails here fails a test"
)]

mod engine;
mod limits;
mod proxy;
mod registry;

use std::fmt::{Debug, Write as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::query_parameters::KillContainerOptions;
use gofer_core::{Core, ExtensionState, Installed, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::embedded;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::{ErrorKind, Run};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::codegen::tokio_stream::StreamExt as _;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use engine::{Cleared, Image, archive, container, containers, engine, static_program};
use proxy::Proxy;
use registry::Registry;

/// Far longer than anything here takes, even on a busy machine and if the program in the images has
/// to be built first.
const TIMEOUT: Duration = Duration::from_secs(600);

const ONE_SECOND: [(&str, &str); 1] = [("every", "1s")];

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("it hangs")
}

/// A name that no other test and no other run of the tests uses.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

async fn install(core: &Core, name: &str, image: &str) -> Installed {
    within(core.install_image(name, image, [("min_interval", "1s")])).await.unwrap()
}

/// Waits for this many more runs of a pipeline.
async fn further_runs(core: &Core, pipeline: &str, further: usize) {
    runs(core, pipeline, core.runs(pipeline).len() + further).await;
}

/// Waits until a pipeline has had so many runs.
async fn runs(core: &Core, pipeline: &str, count: usize) {
    within(async {
        while core.runs(pipeline).len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A directory that is removed with its content when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gofer-{}", unique(name)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// For the output of CI.
#[tokio::test]
async fn whether_containers_are_tested_is_reported() {
    if engine().await.is_some() {
        let _ = std::io::stderr().write_all(b"container tests run: a container engine answers\n");
    }
}

#[tokio::test]
async fn an_image_of_the_recipe_has_only_the_program_and_the_certificate_authorities() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let inspected = within(docker.inspect_image(&image.name)).await.unwrap();
    let config = inspected.config.unwrap();
    assert_eq!(config.user.as_deref(), Some("65532:65532"), "it must not run as root");
    let ports: Vec<_> = config.exposed_ports.unwrap_or_default();
    assert_eq!(ports, ["8082/tcp"]);
    assert_eq!(config.entrypoint, Some(vec!["/extension".to_owned()]));
    let mut exported = docker.export_image(&image.name);
    let mut saved = Vec::new();
    within(async {
        while let Some(piece) = exported.next().await {
            saved.extend_from_slice(&piece.unwrap());
        }
    })
    .await;
    let mut files = Vec::new();
    list(&saved, &mut files);
    files.sort();
    assert_eq!(files, ["etc/ssl/certs/ca-certificates.crt", "extension"]);
}

#[tokio::test]
async fn each_provided_extension_works_in_its_image() {
    let Some(docker) = engine().await else { return };
    let [cron, github, watch] = ["cron", "github", "watch"].map(unique);
    let names = [cron.clone(), github.clone(), watch.clone()];
    let _cleared = names.map(|name| Cleared(docker.clone(), name));
    let core = Core::on_loopback().await.unwrap();
    let install = async |name: &str, package: &str, settings: &[(&str, &str)]| {
        let image = Image::of(&docker, package, "").await;
        let settings = settings.iter().copied();
        let installed = within(core.install_image(name, &image.name, settings)).await.unwrap();
        (image, installed)
    };

    // There is no database of time zones in the image.
    let (_image, cron) = install(&cron, "cron", &[]).await;
    let berlin = [("expression", "30 2 * * * *"), ("timezone", "Europe/Berlin")];
    within(cron.subscribe("ops/nightly", "l", berlin)).await.unwrap();
    let unknown = [("expression", "30 2 * * * *"), ("timezone", "Europe/Atlantis")];
    let refused = within(cron.subscribe("ops/nightly", "m", unknown)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter, "{refused}");

    let key = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=";
    let app = [
        ("app_id", "1"),
        ("app_installation", "1"),
        ("app_key", key),
        ("app_webhook_secret", "hunter2"),
    ];
    let (_image, github) = install(&github, "github", &app).await;
    let pushes = [("repository", "tea/kettle"), ("event_filter", "push")];
    within(github.subscribe("ops/pushed", "l", pushes)).await.unwrap();
    let push = r#"{"ref":"refs/heads/main","repository":{"full_name":"tea/kettle"}}"#;
    let post = async |signature: &str| {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("X-Hub-Signature-256", signature),
        ];
        within(github.post(headers, push)).await
    };
    let refused = post(&"0".repeat(64)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    // Made with `printf … | openssl dgst -sha256 -hmac hunter2`.
    post("4ed60ab3f3f14207856b4b3755c57ccea06febacb0a0fd8526cc918d93845c80").await.unwrap();
    assert_eq!(core.runs("ops/pushed").len(), 1);

    let (_image, watch) = install(&watch, "watch", &[]).await;
    within(watch.subscribe("ops/after", "l", [("pipeline", "ops/pushed")])).await.unwrap();
    let run = Run::because("it is to be watched");
    within(core.client().start_run("ops/pushed", "", run)).await.unwrap();
    runs(&core, "ops/after", 1).await;
}

/// The files of an image's layers, which are archives within an archive.
fn list(saved: &[u8], files: &mut Vec<String>) {
    for entry in tar::Archive::new(saved).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if content.get(257..262) != Some(b"ustar") {
            continue;
        }
        for file in tar::Archive::new(&*content).entries().unwrap() {
            let file = file.unwrap();
            if file.header().entry_type().is_file() {
                files.push(file.path().unwrap().display().to_string());
            }
        }
    }
}

#[tokio::test]
async fn an_extension_in_a_container_is_called_updated_killed_and_stopped_like_any_other() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let other = Image::of(&docker, "interval", "LABEL version=2").await;
    let name = unique("lives");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();
    let extension = install(&core, &name, &image.name).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    further_runs(&core, "default/nightly", 2).await;

    // Another configuration, and then another image.
    let first = container(&docker, &name).await;
    within(extension.update([("min_interval", "900ms")])).await.unwrap();
    let second = container(&docker, &name).await;
    assert_ne!(first, second);
    further_runs(&core, "default/nightly", 2).await;
    let request = embedded::UpdateExtensionRequest {
        name: name.clone(),
        image: other.name.clone(),
        ..Default::default()
    };
    let mut embedded = EmbeddedCoreClient::new(core.client().transport());
    within(embedded.update_extension(request)).await.unwrap();
    let third = container(&docker, &name).await;
    assert_ne!(second, third);
    let runs_of = within(docker.inspect_container(&third, None)).await.unwrap();
    let runs = runs_of.config.unwrap().image.unwrap();
    // With Podman, its full name.
    assert_eq!(runs.trim_start_matches("docker.io/"), other.name);
    further_runs(&core, "default/nightly", 2).await;

    // Gofer goes away and comes back at an address that the container reaches.
    core.close_api().await;
    core.reopen_api().await.unwrap();
    further_runs(&core, "default/nightly", 2).await;

    within(docker.kill_container(&third, None::<KillContainerOptions>)).await.unwrap();
    let status = within(extension.wait_for(|status| status.restarts == 1)).await;
    assert!(status.reason.contains("signal 9"), "{}", status.reason);
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    assert_ne!(container(&docker, &name).await, third);
    further_runs(&core, "default/nightly", 2).await;

    within(core.stop()).await;
    assert_eq!(containers(&docker, &name).await, []);
}

#[tokio::test]
async fn a_container_has_the_environment_of_the_contract_and_few_privileges() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let name = unique("environment");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();
    let extension = install(&core, &name, &image.name).await;
    let made = container(&docker, &name).await;
    let inspected = within(docker.inspect_container(&made, None)).await.unwrap();
    let prefix = "GOFER_EXTENSION_SYSTEM_";
    let environment = inspected.config.unwrap().env.unwrap();
    let variable = |name: &str| {
        let start = format!("{prefix}{name}=");
        environment.iter().find_map(|it| it.strip_prefix(&*start)).map(str::to_owned)
    };
    let count = environment.iter().filter(|variable| variable.starts_with(prefix)).count();
    assert_eq!(count, 8, "{}", environment.len());
    assert_eq!(variable("NAME").as_deref(), Some(&*name));
    assert_eq!(variable("HOST").as_deref(), Some("0.0.0.0:8082"));
    let host = inspected.host_config.unwrap();
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    let published = host.port_bindings.unwrap().remove("8082/tcp").flatten().unwrap();
    assert_eq!(published[0].host_ip.as_deref(), Some("127.0.0.1"));
    // Each launch has its own key.
    let key = variable("KEY").unwrap();
    within(extension.restart()).await.unwrap();
    let made = container(&docker, &name).await;
    let inspected = within(docker.inspect_container(&made, None)).await.unwrap();
    let again = inspected.config.unwrap().env.unwrap();
    assert!(!again.contains(&format!("{prefix}KEY={key}")));
    within(core.stop()).await;
}

#[tokio::test]
async fn the_output_of_a_container_becomes_log_events() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let name = unique("writes");
    let _cleared = Cleared(docker.clone(), name.clone());
    // For the whole process: a thread without a subscriber that reaches an event first would
    // disable that event for all threads.
    let written = Written::default();
    let subscriber = tracing_subscriber::Registry::default().with(written.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let core = Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .log_level(gofer_sdk::LogLevel::Debug)
        .start()
        .await
        .unwrap();
    install(&core, &name, &image.name).await;
    within(core.stop()).await;
    let written = written.0.lock().unwrap();
    let of_it = written.iter().filter(|line| line.contains(&format!("extension={name:?}"))).count();
    assert!(of_it >= 2, "{written:?}");
}

/// The log events of containers, with their fields.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Written {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "gofer_core::output" {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

/// The core under test's store, and the image and name that it installs.
const STORE: &str = "GOFER_TEST_STORE";
const IMAGE: &str = "GOFER_TEST_IMAGE";
const NAME: &str = "GOFER_TEST_NAME";

/// A core that is killed. Not a test of its own.
#[tokio::test]
#[ignore = "started by the tests of this file"]
async fn core_under_test() {
    let (Ok(image), Ok(name)) = (std::env::var(IMAGE), std::env::var(NAME)) else { return };
    #[cfg_attr(not(feature = "store"), expect(unused_mut, reason = "only a store changes it"))]
    let mut builder = Core::builder().listen(([127, 0, 0, 1], 0));
    #[cfg(feature = "store")]
    if let Some(store) = std::env::var_os(STORE) {
        builder = builder.store(store);
    }
    let core = builder.start().await.unwrap();
    let extension = install(&core, &name, &image).await;
    extension.subscribe("default/nightly", "l", ONE_SECOND).await.unwrap();
    println!("installed");
    std::future::pending::<()>().await;
}

/// A core in its own process, which is killed when this is dropped.
struct CoreProcess(Child);

impl CoreProcess {
    /// Starts a core and waits until it has installed its extension.
    async fn start(image: &Image, name: &str, store: Option<PathBuf>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "core_under_test", "--ignored", "--nocapture"])
            .env(IMAGE, &image.name)
            .env(NAME, name)
            .stdout(Stdio::piped());
        if let Some(store) = store {
            command.env(STORE, store);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let this = Self(child);
        let installed = tokio::task::spawn_blocking(move || {
            lines.any(|line| line.unwrap().contains("installed"))
        });
        assert!(within(installed).await.unwrap(), "it ended");
        this
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for CoreProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(feature = "store")]
#[tokio::test]
async fn orphans_of_a_killed_core_are_removed_by_the_next_one_on_its_store() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let name = unique("orphans");
    let _cleared = Cleared(docker.clone(), name.clone());
    let directory = Directory::new("orphans");
    let store = directory.0.join("gofer.redb");
    CoreProcess::start(&image, &name, Some(store.clone())).await.kill();
    let orphan = container(&docker, &name).await;
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).store(&store).start().await.unwrap();
    // The same extension, with its subscription, in a new container.
    further_runs(&core, "default/nightly", 2).await;
    assert_ne!(container(&docker, &name).await, orphan);
    within(core.stop()).await;
    assert_eq!(containers(&docker, &name).await, []);
}

#[tokio::test]
async fn containers_of_dead_cores_are_removed_and_those_of_live_cores_are_not() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let [dead, living, own] = ["dead", "living", "own"].map(unique);
    let _cleared = [&dead, &living, &own].map(|name| Cleared(docker.clone(), name.clone()));
    let doomed = CoreProcess::start(&image, &dead, None).await;
    let lives = CoreProcess::start(&image, &living, None).await;
    let of_the_living = container(&docker, &living).await;
    doomed.kill();
    container(&docker, &dead).await;
    let core = Core::on_loopback().await.unwrap();
    install(&core, &own, &image.name).await;
    assert_eq!(containers(&docker, &dead).await, []);
    assert_eq!(container(&docker, &living).await, of_the_living);
    within(core.stop()).await;
    drop(lives);
}

#[tokio::test]
async fn a_stop_leaves_no_orphans_even_of_an_extension_that_is_being_installed() {
    let Some(docker) = engine().await else { return };
    let image = Image::interval(&docker).await;
    let name = unique("installing");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();
    let installing = {
        let (core, name, image) = (core.clone(), name.clone(), image.name.clone());
        tokio::spawn(async move { core.install_image(&name, &image, NO_SETTINGS).await })
    };
    within(async {
        while containers(&docker, &name).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within(core.stop()).await;
    let _ = within(installing).await;
    drop(core);
    within(async {
        while !containers(&docker, &name).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unavailable_engine_does_not_count_as_the_end_of_a_container() {
    let Some(docker) = engine().await else { return };
    let Some(mut proxy) = Proxy::new().await else { return };
    let image = Image::interval(&docker).await;
    let name = unique("cut-off");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .container_engine(format!("tcp://{}", proxy.address))
        .start()
        .await
        .unwrap();
    let extension = install(&core, &name, &image.name).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    let made = container(&docker, &name).await;
    proxy.cut().await;
    further_runs(&core, "default/nightly", 2).await;
    let status = extension.status().unwrap();
    assert_eq!((status.state, status.restarts), (ExtensionState::Running, 0), "{status:?}");
    assert_eq!(container(&docker, &name).await, made);

    proxy.mend().await;
    within(docker.kill_container(&made, None::<KillContainerOptions>)).await.unwrap();
    within(extension.wait_for(|status| status.restarts == 1)).await;
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    within(core.stop()).await;
    assert_eq!(containers(&docker, &name).await, []);
}

#[tokio::test]
async fn an_image_that_cannot_be_started_is_refused_with_a_reason_and_leaves_no_orphan() {
    let Some(docker) = engine().await else { return };
    let image = Image::of(&docker, "interval", "ENTRYPOINT [\"/nothing\"]").await;
    let name = unique("broken");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();
    let refused = within(core.install_image(&name, &image.name, NO_SETTINGS)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(refused.to_string().contains("cannot be started"), "{refused}");
    assert!(refused.to_string().contains("/nothing"), "{refused}");
    assert_eq!(containers(&docker, &name).await, []);
    // Containers can only reach a core that listens.
    let alone = Core::in_memory().await.unwrap();
    let refused = within(alone.install_image(&name, &image.name, NO_SETTINGS)).await.unwrap_err();
    assert!(refused.to_string().contains("CoreBuilder::listen"), "{refused}");
    within(core.stop()).await;
}

fn installation(name: &str, image: &str, pass: &str) -> proto::InstallExtensionRequest {
    proto::InstallExtensionRequest {
        name: name.to_owned(),
        image: image.to_owned(),
        user: registry::USER.to_owned(),
        pass: pass.to_owned(),
        ..Default::default()
    }
}

/// Waits until an installation reports that this many layers are there.
async fn until_pulled<T: Debug>(
    core: &Core,
    name: &str,
    layers: &str,
    installing: &mut JoinHandle<T>,
) {
    let mut embedded = EmbeddedCoreClient::new(core.client().transport());
    within(async {
        loop {
            let request = embedded::ListExtensionStatesRequest { name: name.to_owned() };
            let states = embedded.list_extension_states(request).await.unwrap().into_inner();
            if states.extensions.iter().any(|it| it.reason.contains(layers)) {
                break;
            }
            assert!(!installing.is_finished(), "it was not pulled: {:?}", installing.await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_image_is_pulled_with_credentials_and_progress() {
    let Some(docker) = engine().await else { return };
    let program = std::fs::read(static_program("interval")).unwrap();
    let layers = vec![
        archive(&[("etc/first", b"1")]),
        archive(&[("extension", &program)]),
        archive(&[("etc/last", b"3")]),
    ];
    let registry = Registry::serve(layers).await;
    let image = Image::named(&docker, format!("{}/extension:1", registry.address));
    let name = unique("pulled");
    let _cleared = Cleared(docker.clone(), name.clone());
    let core = Core::on_loopback().await.unwrap();

    let mut api = core.client().api();
    let wrong = "not-the-password";
    let refused =
        within(api.install_extension(installation(&name, &image.name, wrong))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("does not accept the user and the password"), "{refused}");
    assert!(!refused.message().contains(wrong), "{refused}");
    let absent = format!("{}/nothing:1", registry.address);
    let refused =
        within(api.install_extension(installation(&name, &absent, registry::PASSWORD))).await;
    let refused = refused.unwrap_err();
    assert!(refused.message().contains("no image with this name and tag"), "{refused}");

    let mut installing = {
        let request = installation(&name, &image.name, registry::PASSWORD);
        tokio::spawn(async move { api.install_extension(request).await })
    };
    until_pulled(&core, &name, "2 of 3 layers", &mut installing).await;
    registry.release();
    within(installing).await.unwrap().unwrap();
    within(core.stop()).await;
    assert_eq!(containers(&docker, &name).await, []);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_pull() {
    let Some(docker) = engine().await else { return };
    let registry = Registry::serve(vec![archive(&[("etc/held-back", b"1")])]).await;
    let image = Image::named(&docker, format!("{}/extension:1", registry.address));
    let core = Core::on_loopback().await.unwrap();
    let name = unique("held-back");
    let mut installing = {
        let mut api = core.client().api();
        let request = installation(&name, &image.name, registry::PASSWORD);
        tokio::spawn(async move { api.install_extension(request).await })
    };
    until_pulled(&core, &name, "0 of 1 layers", &mut installing).await;
    within(core.stop()).await;
    within(installing).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn if_no_engine_answers_the_error_lists_what_was_tried_and_what_to_do() {
    let core = Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .container_engine("unix:///nonexistent/docker.sock")
        .start()
        .await
        .unwrap();
    let refused = within(core.install_image("a", "interval:1", NO_SETTINGS)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    for part in
        ["unix:///nonexistent/docker.sock", "Start Docker or Podman", "DOCKER_HOST", "exec:<path>"]
    {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    within(core.stop()).await;
}

#[tokio::test]
async fn an_engine_that_hangs_counts_as_one_that_does_not_answer() {
    let directory = Directory::new("hangs");
    let socket = directory.0.join("docker.sock");
    let _hangs = tokio::net::UnixListener::bind(&socket).unwrap();
    let core = Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .container_engine(format!("unix://{}", socket.display()))
        .start()
        .await
        .unwrap();
    let refused = within(core.install_image("a", "interval:1", NO_SETTINGS)).await.unwrap_err();
    assert!(refused.to_string().contains("did not answer within"), "{refused}");
    within(core.stop()).await;
}

#[tokio::test]
async fn invalid_images_are_refused_without_an_engine() {
    let core = Core::on_loopback().await.unwrap();
    for image in ["./interval", "/usr/bin/interval", "Interval", "a b", "a:b:c", "exec:", "a//b"] {
        let refused = within(core.install_image("a", image, NO_SETTINGS)).await.unwrap_err();
        assert!(
            refused.to_string().contains("exec:"),
            "the error for `{image}` must say how to install a program: {refused}"
        );
    }
    within(core.stop()).await;
}

/// Started with its own environment. Not a test of its own.
#[tokio::test]
#[ignore = "started by a test of this file"]
async fn core_with_docker_host() {
    if std::env::var("DOCKER_HOST").as_deref() != Ok("unix:///nonexistent") {
        return;
    }
    let core = Core::on_loopback().await.unwrap();
    let refused = within(core.install_image("a", "interval:1", NO_SETTINGS)).await.unwrap_err();
    assert!(refused.to_string().contains("tried `unix:///nonexistent` ("), "{refused}");
    core.stop().await;
}

#[test]
fn docker_host_is_the_address_of_the_engine() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "core_with_docker_host", "--ignored"])
        .env("DOCKER_HOST", "unix:///nonexistent")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
