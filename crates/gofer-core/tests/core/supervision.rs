//! Extensions in processes of their own are kept up: what crashes or hangs is
//! started again and subscribed again, what cannot come up delays nobody, and an
//! update takes over without a gap.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gofer_core::{Core, ExtensionState, Installed, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::embedded;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::{ErrorKind, Extension, Gofer, NoConfig, NoParams, Result, Subscription};

/// Far above what anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

const ONE_SECOND: [(&str, &str); 1] = [("every", "1s")];

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

/// Built by `cargo test` beside the tests.
fn interval() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples/interval")
}

fn signal(process: u32, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    assert!(sent.unwrap().success());
}

fn is_there(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

async fn core() -> Core {
    Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .health_check_period(Duration::from_millis(200))
        .start()
        .await
        .unwrap()
}

async fn install(core: &Core, name: &str, program: &Path) -> Installed {
    within(core.install_program(name, program, [("min_interval", "1s")])).await.unwrap()
}

/// Waits until a pipeline has had so many runs.
async fn runs(core: &Core, pipeline: &str, enough: usize) {
    within(async {
        while core.runs(pipeline).len() < enough {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A program in a file of its own, which is removed with it.
struct Script(PathBuf);

impl Script {
    /// Runs `interval` as long as its file `broken` is not there.
    fn breakable(name: &str) -> Self {
        let script = Self::directory(name);
        script.does(&format!(
            "[ -e '{}' ] && exit 3\nexec '{}'",
            script.broken().display(),
            interval().display()
        ));
        script
    }

    /// Notes its own number and then does something.
    fn noting(name: &str, then: &str) -> Self {
        let script = Self::directory(name);
        let noted = script.noted().display().to_string();
        script.does(&format!("echo $$ > '{noted}.new'\nmv '{noted}.new' '{noted}'\n{then}"));
        script
    }

    fn directory(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("gofer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn does(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.program(), format!("#!/bin/sh\n{text}\n")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.program(), executable).unwrap();
    }

    fn noted(&self) -> PathBuf {
        self.0.join("noted")
    }

    /// The number that it noted.
    async fn process(&self) -> u32 {
        within(async {
            loop {
                if let Ok(text) = std::fs::read_to_string(self.noted()) {
                    return text.trim().parse().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    fn program(&self) -> PathBuf {
        self.0.join("program")
    }

    fn broken(&self) -> PathBuf {
        self.0.join("broken")
    }

    fn break_it(&self) {
        std::fs::write(self.broken(), "").unwrap();
    }

    fn mend_it(&self) {
        std::fs::remove_file(self.broken()).unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_killed_extension_is_started_and_subscribed_again() {
    let core = core().await;
    let extension = install(&core, "interval", &interval()).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    runs(&core, "default/nightly", 1).await;
    let killed = extension.process_id().unwrap();
    signal(killed, "KILL");
    let down = within(extension.wait_for(|status| status.restarts >= 1)).await;
    assert!(down.reason.contains("signal: 9"), "{}", down.reason);
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    assert_ne!(extension.process_id(), Some(killed));
    let so_far = core.runs("default/nightly").len();
    runs(&core, "default/nightly", so_far + 2).await;
    // What is shown over the API is the same.
    let request = embedded::ListExtensionStatesRequest::default();
    let states = EmbeddedCoreClient::new(core.client().transport())
        .list_extension_states(request)
        .await
        .unwrap();
    let state = &states.get_ref().extensions[0];
    assert!(state.name == "interval" && state.restarts >= 1);
    assert_eq!(state.state(), embedded::extension_state::State::Running);
    core.stop().await;
}

#[tokio::test]
async fn an_extension_that_hangs_is_started_again() {
    let core = core().await;
    let extension = install(&core, "interval", &interval()).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    let hanging = extension.process_id().unwrap();
    signal(hanging, "STOP");
    let down = within(extension.wait_for(|status| status.restarts >= 1)).await;
    assert!(down.reason.contains("health check"), "{}", down.reason);
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    assert!(!is_there(hanging), "what hangs was left behind");
    runs(&core, "default/nightly", 1).await;
    core.stop().await;
}

#[tokio::test]
async fn one_that_does_not_come_up_is_tried_again_and_delays_nobody() {
    let core = core().await;
    let script = Script::breakable("delays-nobody");
    let broken = install(&core, "broken", &script.program()).await;
    let well = install(&core, "well", &interval()).await;
    within(broken.subscribe("default/one", "l", ONE_SECOND)).await.unwrap();
    within(well.subscribe("default/two", "l", ONE_SECOND)).await.unwrap();
    script.break_it();
    signal(broken.process_id().unwrap(), "KILL");
    signal(well.process_id().unwrap(), "KILL");
    let down = within(broken.wait_for(|status| status.restarts >= 3)).await;
    assert_eq!(down.state, ExtensionState::Restarting);
    assert!(down.reason.contains("exit status: 3"), "{}", down.reason);
    within(well.wait_for(|status| status.state == ExtensionState::Running)).await;
    runs(&core, "default/two", 1).await;
    // Meanwhile, who asks is told why.
    let refused = broken.subscribe("default/one", "other", ONE_SECOND).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("being started again"), "{refused}");
    script.mend_it();
    within(broken.wait_for(|status| status.state == ExtensionState::Running)).await;
    let so_far = core.runs("default/one").len();
    runs(&core, "default/one", so_far + 1).await;
    core.stop().await;
}

#[tokio::test]
async fn an_extension_on_its_way_up_can_be_disabled_enabled_and_uninstalled() {
    let core = core().await;
    let script = Script::breakable("on-its-way");
    let extension = install(&core, "breaks", &script.program()).await;
    let mut api = core.client().api();
    let name = || "breaks".to_owned();
    script.break_it();
    signal(extension.process_id().unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 2)).await;
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    let status = extension.status().unwrap();
    assert_eq!((status.state, status.restarts), (ExtensionState::Stopped, 0));
    // It stays disabled where enabling it does not work.
    let request = || proto::EnableExtensionRequest { name: name() };
    let refused = within(api.enable_extension(request())).await.unwrap_err();
    assert!(refused.message().contains("exit status: 3"), "{refused}");
    assert_eq!(extension.status().unwrap().state, ExtensionState::Stopped);
    script.mend_it();
    within(api.enable_extension(request())).await.unwrap();
    assert_eq!(extension.status().unwrap().state, ExtensionState::Running);
    script.break_it();
    signal(extension.process_id().unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 2)).await;
    // Enabling what is on its way up tries at once, and goes on trying.
    within(api.enable_extension(request())).await.unwrap_err();
    assert_eq!(extension.status().unwrap().state, ExtensionState::Restarting);
    within(extension.uninstall()).await.unwrap();
    assert_eq!(extension.status().unwrap_err().kind(), ErrorKind::NotFound);
    core.stop().await;
}

#[tokio::test]
async fn an_update_takes_over_and_keeps_the_subscriptions() {
    let core = core().await;
    let extension = install(&core, "interval", &interval()).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    let old = extension.process_id().unwrap();
    within(extension.update([("MIN_INTERVAL", "500ms")])).await.unwrap();
    assert_ne!(extension.process_id(), Some(old));
    assert!(!is_there(old), "the old one was left behind");
    assert_eq!(extension.info().await.unwrap().registered, ["default/nightly"]);
    let so_far = core.runs("default/nightly").len();
    runs(&core, "default/nightly", so_far + 2).await;
    // The new configuration holds, and still does after a restart.
    extension.subscribe("default/nightly", "half", [("every", "500ms")]).await.unwrap();
    within(extension.restart()).await.unwrap();
    extension.subscribe("default/nightly", "other", [("every", "500ms")]).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn an_update_tells_how_many_subscriptions_the_new_one_refused() {
    let core = core().await;
    let extension = install(&core, "interval", &interval()).await;
    within(extension.subscribe("default/nightly", "often", ONE_SECOND)).await.unwrap();
    within(extension.subscribe("default/nightly", "seldom", [("every", "1h")])).await.unwrap();
    let request = embedded::UpdateExtensionRequest {
        name: "interval".to_owned(),
        variables: [("min_interval".to_owned(), "1m".to_owned())].into(),
        ..Default::default()
    };
    let mut embedded = EmbeddedCoreClient::new(core.client().transport());
    let answer = within(embedded.update_extension(request)).await.unwrap();
    assert_eq!(answer.get_ref().refused, 1);
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        pipeline_id: "nightly".to_owned(),
        ..Default::default()
    };
    let mut api = core.client().api();
    let subscriptions = api.list_pipeline_extension_subscriptions(request).await.unwrap();
    let refused: Vec<_> = subscriptions
        .get_ref()
        .subscriptions
        .iter()
        .filter(|it| it.status() == proto::pipeline_extension_subscription::Status::Error)
        .collect();
    assert_eq!(refused.len(), 1);
    let reason = refused[0].status_reason.as_ref().unwrap();
    assert!(reason.description.contains("at least 1m0s"), "{}", reason.description);
    core.stop().await;
}

#[tokio::test]
async fn an_update_that_does_not_come_up_leaves_the_old_one_serving() {
    let core = core().await;
    let extension = install(&core, "interval", &interval()).await;
    within(extension.subscribe("default/nightly", "l", ONE_SECOND)).await.unwrap();
    let old = extension.process_id();
    let refused = within(extension.update([("min_interval", "soon")])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter);
    let script = Script::breakable("update");
    script.break_it();
    let mut request = embedded::UpdateExtensionRequest {
        name: "interval".to_owned(),
        image: format!("exec:{}", script.program().display()),
        ..Default::default()
    };
    let mut embedded = EmbeddedCoreClient::new(core.client().transport());
    within(embedded.update_extension(request.clone())).await.unwrap_err();
    let status = extension.status().unwrap();
    assert_eq!(status.state, ExtensionState::Running);
    assert!(status.reason.contains("the update failed"), "{}", status.reason);
    assert_eq!(extension.process_id(), old);
    runs(&core, "default/nightly", 1).await;
    // It is still supervised, with what it was installed with.
    signal(old.unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 1)).await;
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    request.image = String::new();
    request.removed = vec!["nothing".to_owned()];
    let refused = within(embedded.update_extension(request)).await.unwrap_err();
    assert!(refused.message().contains("`nothing`"), "{refused}");
    core.stop().await;
}

/// Where the core under test keeps its store.
const STORE: &str = "GOFER_TEST_STORE";

/// A core that is killed. Not a test of its own.
#[tokio::test]
#[ignore = "started by a test of this file"]
async fn core_under_test() {
    let Some(store) = std::env::var_os(STORE) else { return };
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).store(store).start().await.unwrap();
    let extension = install(&core, "interval", &interval()).await;
    extension.subscribe("default/nightly", "l", ONE_SECOND).await.unwrap();
    println!("process {}", extension.process_id().unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_a_killed_core_left_behind_is_ended_by_the_next_one() {
    let script = Script::breakable("left-behind");
    let store = script.0.join("gofer.redb");
    let mut killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "supervision::core_under_test", "--ignored", "--nocapture"])
        .env(STORE, &store)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    let left = lines.find_map(|line| line.unwrap().strip_prefix("process ")?.parse().ok()).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(runs_something(left), "it ended by itself");
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).store(&store).start().await.unwrap();
    assert!(!runs_something(left), "the old process was left behind");
    runs(&core, "default/nightly", 2).await;
    within(core.stop()).await;
}

/// Whether there is such a process that has not ended.
fn runs_something(process: u32) -> bool {
    std::fs::read(format!("/proc/{process}/environ")).is_ok_and(|it| !it.is_empty())
}

#[tokio::test]
async fn a_stop_leaves_no_process_behind_not_even_of_those_on_their_way_up() {
    let core = core().await;
    let script = Script::breakable("stop");
    let (one, other) = (
        install(&core, "one", &interval()).await,
        install(&core, "on-its-way-at-the-stop", &script.program()).await,
    );
    let processes = [one.process_id().unwrap(), other.process_id().unwrap()];
    script.break_it();
    signal(processes[1], "KILL");
    within(other.wait_for(|status| status.restarts >= 1)).await;
    within(core.stop()).await;
    assert!(!processes.into_iter().any(is_there));
    assert_eq!(started_as("on-its-way-at-the-stop"), 0);
}

/// Processes that were started as the extension of this name.
fn started_as(name: &str) -> usize {
    let variable = format!("GOFER_EXTENSION_SYSTEM_NAME={name}");
    let is_one = |environment: Vec<u8>| {
        environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
        .filter(|environment| is_one(environment.clone()))
        .count()
}

#[tokio::test]
async fn what_a_hanging_extension_started_ends_with_it() {
    let core = core().await;
    let script = Script::directory("children");
    let noted = script.noted().display().to_string();
    script.does(&format!(
        "sleep 1000 &\necho $! > '{noted}.new'\nmv '{noted}.new' '{noted}'\nexec '{}'",
        interval().display()
    ));
    let extension = install(&core, "interval", &script.program()).await;
    let child = script.process().await;
    assert!(runs_something(child));
    signal(extension.process_id().unwrap(), "STOP");
    within(extension.wait_for(|status| status.restarts >= 1)).await;
    within(async {
        while runs_something(child) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    core.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_is_being_installed_and_leaves_nothing_of_it() {
    let core = core().await;
    let script = Script::noting("never-answers", "exec sleep 1000");
    let installing = tokio::spawn({
        let (core, program) = (core.clone(), script.program());
        async move { core.install_program("silent", &program, NO_SETTINGS).await.map(drop) }
    });
    let process = script.process().await;
    within(core.stop()).await;
    assert!(!runs_something(process), "it was left behind");
    within(installing).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_stop_ends_conversations_with_installers() {
    use proto::run_extension_installer_client_message::{Init, MessageType};
    let core = core().await;
    let script = Script::noting("installer", &format!("exec '{}'", interval().display()));
    let image = format!("exec:{}", script.program().display());
    let init = proto::RunExtensionInstallerClientMessage {
        message_type: Some(MessageType::Init(Init { image, ..Default::default() })),
    };
    // It asks something, and nobody answers.
    let (answers, receiver) = tokio::sync::mpsc::channel(1);
    answers.send(init).await.unwrap();
    let receiver = tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut api = core.client().api();
    let mut said = within(api.run_extension_installer(receiver)).await.unwrap().into_inner();
    within(said.message()).await.unwrap().unwrap();
    let process = script.process().await;
    within(core.stop()).await;
    assert!(!runs_something(process), "it was left behind");
}

/// Where one that hangs looks whether it is to hang.
const HANGS: &str = "GOFER_TEST_HANGS";

/// Hangs while it is asked about a subscription, as long as there is a file.
struct Hanging;

impl Extension for Hanging {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, _: &NoParams) -> Result<()> {
        while std::env::var_os(HANGS).is_some_and(|file| Path::new(&file).exists()) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// An extension in a process of its own. Not a test of its own.
#[tokio::test]
#[ignore = "started by a test of this file"]
async fn extension_under_test() {
    if std::env::var_os(HANGS).is_some() {
        gofer_sdk::run::<Hanging>().await.unwrap();
    }
}

#[tokio::test]
async fn one_that_hangs_while_it_is_subscribed_again_is_started_again_and_loses_nothing() {
    let core = core().await;
    let script = Script::directory("hangs");
    script.does(&format!(
        "export {HANGS}='{}'\nexec '{}' --exact supervision::extension_under_test --ignored --nocapture",
        script.broken().display(),
        std::env::current_exe().unwrap().display()
    ));
    let program = script.program();
    let extension = within(core.install_program("hangs", &program, NO_SETTINGS)).await.unwrap();
    within(extension.subscribe("default/nightly", "l", NO_SETTINGS)).await.unwrap();
    script.break_it();
    signal(extension.process_id().unwrap(), "KILL");
    let down = within(extension.wait_for(|status| status.restarts >= 2)).await;
    assert!(down.reason.contains("health check"), "{}", down.reason);
    script.mend_it();
    within(async {
        while !extension.info().await.is_ok_and(|info| info.registered == ["default/nightly"]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    core.stop().await;
}

/// Whether those who are subscribed wait, and whether one does.
static GATE: std::sync::Mutex<(bool, bool)> = std::sync::Mutex::new((false, false));

fn gate() -> std::sync::MutexGuard<'static, (bool, bool)> {
    GATE.lock().unwrap()
}

/// Says yes to a subscription only once it is being stopped, where it is told to.
struct Late;

impl Extension for Late {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, _: &NoParams) -> Result<()> {
        while gate().0 {
            gate().1 = true;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }

    async fn shutdown(&self) {
        gate().0 = false;
        // For the answer to be on its way: nothing waits for it.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disable_in_the_middle_of_an_enable_has_the_last_word_and_loses_nothing() {
    let core = Core::in_memory().await.unwrap();
    let extension = core.install::<Late>("late", NO_SETTINGS).await.unwrap();
    within(extension.subscribe("default/nightly", "l", NO_SETTINGS)).await.unwrap();
    let name = || "late".to_owned();
    let mut api = core.client().api();
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    gate().0 = true;
    let enabling = tokio::spawn({
        let mut api = api.clone();
        async move { api.enable_extension(proto::EnableExtensionRequest { name: name() }).await }
    });
    within(async {
        while !gate().1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    within(api.disable_extension(proto::DisableExtensionRequest { name: name() })).await.unwrap();
    within(enabling).await.unwrap().unwrap();
    let request = proto::GetExtensionRequest { name: name() };
    let shown = api.get_extension(request).await.unwrap().into_inner().extension.unwrap();
    assert_eq!(shown.status(), proto::extension::ExtensionStatus::Disabled);
    api.enable_extension(proto::EnableExtensionRequest { name: name() }).await.unwrap();
    assert_eq!(extension.info().await.unwrap().registered, ["default/nightly"]);
    core.stop().await;
}
