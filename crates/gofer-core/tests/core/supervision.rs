//! Supervision of extensions in their own processes: one that crashes or hangs is restarted and its
//! subscriptions restored, one that does not come up does not delay others, and an update leaves no
//! gap.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::caller::Caller;
use crate::files::write_script;
use crate::log::observe;
use crate::metronome;
use gofer_core::{Core, ExtensionState, Installed, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::embedded;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::{ErrorKind, Extension, Gofer, NoConfig, NoParams, Result, Subscription};

/// Far longer than anything here takes, even on a busy machine: only a hang takes so long.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A subscription that starts runs as often as [`install`] allows.
const OFTEN: [(&str, &str); 1] = [("every", "100ms")];

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("it hangs")
}

fn signal(process: u32, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    assert!(sent.unwrap().success());
}

fn exists(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

async fn core() -> Core {
    Core::builder()
        .listen(([127, 0, 0, 1], 0))
        .health_check_period(Duration::from_millis(200))
        .allow_programs()
        .start()
        .await
        .unwrap()
}

async fn install(core: &Core, name: &str, program: &Path) -> Installed {
    within(core.install_program(name, program, [("min_interval", "100ms")])).await.unwrap()
}

/// Waits until a pipeline has this many runs.
async fn runs(core: &Core, pipeline: &str, enough: usize) {
    within(async {
        while core.runs(pipeline).len() < enough {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A program in its own directory, which is removed when this is dropped.
struct Script(PathBuf);

impl Script {
    /// Runs the metronome, or fails while the file `broken` exists.
    fn breakable(name: &str) -> Self {
        let script = Self::directory(name);
        script.set(&format!(
            "[ -e '{}' ] && exit 3\nexec '{}'",
            script.broken().display(),
            metronome::program().display()
        ));
        script
    }

    /// Writes its process ID to a file and then runs `then`.
    fn with_pid_file(name: &str, then: &str) -> Self {
        let script = Self::directory(name);
        let file = script.pid_file().display().to_string();
        script.set(&format!("echo $$ > '{file}.new'\nmv '{file}.new' '{file}'\n{then}"));
        script
    }

    fn directory(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("gofer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn set(&self, text: &str) {
        write_script(&self.program(), text);
    }

    fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// Waits for the process ID in its file.
    async fn process(&self) -> u32 {
        within(async {
            loop {
                if let Ok(text) = std::fs::read_to_string(self.pid_file()) {
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

    fn repair_it(&self) {
        std::fs::remove_file(self.broken()).unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_killed_extension_is_restarted_and_its_subscriptions_restored() {
    let core = core().await;
    let extension = install(&core, "metronome", &metronome::program()).await;
    within(extension.subscribe("default/nightly", "l", OFTEN)).await.unwrap();
    runs(&core, "default/nightly", 1).await;
    let killed = extension.process_id().unwrap();
    signal(killed, "KILL");
    let down = within(extension.wait_for(|status| status.restarts >= 1)).await;
    assert!(down.reason.contains("signal: 9"), "{}", down.reason);
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    assert_ne!(extension.process_id(), Some(killed));
    let so_far = core.runs("default/nightly").len();
    runs(&core, "default/nightly", so_far + 2).await;
    // The API reports the same.
    let request = embedded::ListExtensionStatesRequest::default();
    let states = EmbeddedCoreClient::new(core.client().transport())
        .list_extension_states(request)
        .await
        .unwrap();
    let state = &states.get_ref().extensions[0];
    assert!(state.name == "metronome" && state.restarts >= 1);
    assert_eq!(state.state(), embedded::extension_state::State::Running);
    core.stop().await;
}

#[tokio::test]
async fn an_extension_that_hangs_is_killed_with_its_children_and_restarted() {
    let core = core().await;
    let script = Script::directory("children");
    let file = script.pid_file().display().to_string();
    // Only the first instance has a child.
    script.set(&format!(
        "if [ ! -e '{file}' ]; then\nsleep 1000 &\necho $! > '{file}.new'\nmv '{file}.new' '{file}'\nfi\nexec '{}'",
        metronome::program().display()
    ));
    let extension = install(&core, "metronome", &script.program()).await;
    within(extension.subscribe("default/nightly", "l", OFTEN)).await.unwrap();
    let child = script.process().await;
    assert!(is_running(child));
    let hanging = extension.process_id().unwrap();
    signal(hanging, "STOP");
    let down = within(extension.wait_for(|status| status.restarts >= 1)).await;
    assert!(down.reason.contains("health check"), "{}", down.reason);
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    assert!(!exists(hanging), "the hanging process is an orphan");
    within(async {
        while is_running(child) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    runs(&core, "default/nightly", 1).await;
    core.stop().await;
}

#[tokio::test]
async fn an_extension_that_does_not_come_up_is_retried_and_does_not_delay_others() {
    let core = core().await;
    let script = Script::breakable("does-not-delay");
    let broken = install(&core, "broken", &script.program()).await;
    let healthy = install(&core, "healthy", &metronome::program()).await;
    within(broken.subscribe("default/one", "l", OFTEN)).await.unwrap();
    within(healthy.subscribe("default/two", "l", OFTEN)).await.unwrap();
    script.break_it();
    signal(broken.process_id().unwrap(), "KILL");
    signal(healthy.process_id().unwrap(), "KILL");
    let down = within(broken.wait_for(|status| status.restarts >= 3)).await;
    assert_eq!(down.state, ExtensionState::Restarting);
    assert!(down.reason.contains("exit status: 3"), "{}", down.reason);
    within(healthy.wait_for(|status| status.state == ExtensionState::Running)).await;
    runs(&core, "default/two", 1).await;
    // Its last words are for managers.
    let client = proto::CreateTokenRequest {
        kind: proto::create_token_request::Kind::Client.into(),
        namespaces: vec![".*".to_owned()],
        expires: "24h".to_owned(),
        ..Default::default()
    };
    let client = core.client().api().create_token(client).await.unwrap().into_inner().token;
    let client = Caller::of(&core).await.with(&client);
    let request = embedded::ListExtensionStatesRequest { name: "broken".to_owned() };
    let states = EmbeddedCoreClient::new(client.0).list_extension_states(request).await.unwrap();
    let [state] = &states.into_inner().extensions[..] else { panic!() };
    assert_eq!(state.reason, "it failed; a management token shows the reason");
    // Meanwhile, calls are refused.
    let refused = broken.subscribe("default/one", "other", OFTEN).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("being started again"), "{refused}");
    assert!(!refused.to_string().contains("exit status"), "{refused}");
    script.repair_it();
    within(broken.wait_for(|status| status.state == ExtensionState::Running)).await;
    let so_far = core.runs("default/one").len();
    runs(&core, "default/one", so_far + 1).await;
    core.stop().await;
}

#[tokio::test]
async fn an_extension_that_is_restarting_can_be_disabled_enabled_and_uninstalled() {
    let core = core().await;
    let script = Script::breakable("restarting");
    let extension = install(&core, "breaks", &script.program()).await;
    let mut api = core.client().api();
    let name = || "breaks".to_owned();
    script.break_it();
    signal(extension.process_id().unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 2)).await;
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    let status = extension.status().unwrap();
    assert_eq!((status.state, status.restarts), (ExtensionState::Stopped, 0));
    // It stays disabled if enabling it fails.
    let request = || proto::EnableExtensionRequest { name: name() };
    let refused = within(api.enable_extension(request())).await.unwrap_err();
    assert!(refused.message().contains("exit status: 3"), "{refused}");
    assert_eq!(extension.status().unwrap().state, ExtensionState::Stopped);
    script.repair_it();
    within(api.enable_extension(request())).await.unwrap();
    assert_eq!(extension.status().unwrap().state, ExtensionState::Running);
    script.break_it();
    signal(extension.process_id().unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 2)).await;
    // Enabling it while it is restarting retries immediately, and the supervisor goes on retrying.
    within(api.enable_extension(request())).await.unwrap_err();
    assert_eq!(extension.status().unwrap().state, ExtensionState::Restarting);
    within(extension.uninstall()).await.unwrap();
    assert_eq!(extension.status().unwrap_err().kind(), ErrorKind::NotFound);
    core.stop().await;
}

#[tokio::test]
async fn an_update_takes_over_and_keeps_the_subscriptions() {
    let core = core().await;
    let extension = install(&core, "metronome", &metronome::program()).await;
    within(extension.subscribe("default/nightly", "l", OFTEN)).await.unwrap();
    let old = extension.process_id().unwrap();
    within(extension.update([("MIN_INTERVAL", "50ms")])).await.unwrap();
    assert_ne!(extension.process_id(), Some(old));
    assert!(!exists(old), "the old process is an orphan");
    assert_eq!(extension.info().await.unwrap().registered, ["default/nightly"]);
    let so_far = core.runs("default/nightly").len();
    runs(&core, "default/nightly", so_far + 2).await;
    // The new configuration is in effect, also after a restart.
    extension.subscribe("default/nightly", "half", [("every", "50ms")]).await.unwrap();
    within(extension.restart()).await.unwrap();
    extension.subscribe("default/nightly", "other", [("every", "50ms")]).await.unwrap();
    core.stop().await;
}

#[tokio::test]
async fn an_update_reports_how_many_subscriptions_the_new_one_refused() {
    let core = core().await;
    let extension = install(&core, "metronome", &metronome::program()).await;
    within(extension.subscribe("default/nightly", "often", OFTEN)).await.unwrap();
    within(extension.subscribe("default/nightly", "seldom", [("every", "1h")])).await.unwrap();
    let request = embedded::UpdateExtensionRequest {
        name: "metronome".to_owned(),
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
async fn an_update_that_fails_leaves_the_old_extension_running() {
    let core = core().await;
    let extension = install(&core, "metronome", &metronome::program()).await;
    within(extension.subscribe("default/nightly", "l", OFTEN)).await.unwrap();
    let old = extension.process_id();
    let refused = within(extension.update([("min_interval", "soon")])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter);
    let script = Script::breakable("update");
    script.break_it();
    let mut request = embedded::UpdateExtensionRequest {
        name: "metronome".to_owned(),
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
    // It is still supervised, with its old configuration.
    signal(old.unwrap(), "KILL");
    within(extension.wait_for(|status| status.restarts >= 1)).await;
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    request.image = String::new();
    request.removed = vec!["nothing".to_owned()];
    let refused = within(embedded.update_extension(request)).await.unwrap_err();
    assert!(refused.message().contains("`nothing`"), "{refused}");
    core.stop().await;
}

/// Whether a process exists and has not ended.
fn is_running(process: u32) -> bool {
    std::fs::read(format!("/proc/{process}/environ")).is_ok_and(|it| !it.is_empty())
}

#[tokio::test]
async fn a_stop_leaves_no_orphans_even_of_extensions_that_are_restarting() {
    let core = core().await;
    let script = Script::breakable("stop");
    // Unique on the machine: the program may be running several times.
    let name = format!("restarting-at-the-stop-{}", std::process::id());
    let (one, other) = (
        install(&core, "one", &metronome::program()).await,
        install(&core, &name, &script.program()).await,
    );
    let processes = [one.process_id().unwrap(), other.process_id().unwrap()];
    script.break_it();
    signal(processes[1], "KILL");
    within(other.wait_for(|status| status.restarts >= 1)).await;
    within(core.stop()).await;
    assert!(!processes.into_iter().any(exists));
    assert_eq!(launched_as(&name), 0);
}

/// How many processes were launched as the extension of this name.
fn launched_as(name: &str) -> usize {
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
async fn a_stop_does_not_wait_for_an_installation_and_leaves_no_orphan() {
    let core = core().await;
    let script = Script::with_pid_file("never-answers", "exec sleep 1000");
    let installing = tokio::spawn({
        let (core, program) = (core.clone(), script.program());
        async move { core.install_program("silent", &program, NO_SETTINGS).await.map(drop) }
    });
    let process = script.process().await;
    within(core.stop()).await;
    assert!(!is_running(process), "it is an orphan");
    within(installing).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_stop_ends_conversations_with_installers() {
    use proto::run_extension_installer_client_message::{Init, MessageType};
    let core = core().await;
    let script =
        Script::with_pid_file("installer", &format!("exec '{}'", metronome::program().display()));
    let image = format!("exec:{}", script.program().display());
    let init = proto::RunExtensionInstallerClientMessage {
        message_type: Some(MessageType::Init(Init { image, ..Default::default() })),
    };
    // It asks a question that is not answered.
    let (answers, receiver) = tokio::sync::mpsc::channel(1);
    answers.send(init).await.unwrap();
    let receiver = tonic::codegen::tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut api = core.client().api();
    let mut messages = within(api.run_extension_installer(receiver)).await.unwrap().into_inner();
    within(messages.message()).await.unwrap().unwrap();
    let process = script.process().await;
    within(core.stop()).await;
    assert!(!is_running(process), "it is an orphan");
}

/// The path of a file: while it exists, [`Hanging`] hangs.
const HANGS: &str = "GOFER_TEST_HANGS";

/// Hangs when it validates a subscription while the file of [`HANGS`] exists.
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

/// Set for [`Dying`].
const DIES: &str = "GOFER_TEST_DIES";

/// Ends when it is initialized, before it has answered.
struct Dying;

impl Extension for Dying {
    type Config = NoConfig;
    type Params = NoParams;

    #[allow(clippy::exit, reason = "it is in its own process")]
    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        std::process::exit(9)
    }
}

#[tokio::test]
async fn the_reason_of_an_extension_that_ends_in_init_is_how_it_ended() {
    let core = core().await;
    let script = Script::directory("dies");
    script.set(&format!(
        "export {DIES}=1\nexec '{}' --exact supervision::extension_under_test --ignored --nocapture >/dev/null",
        std::env::current_exe().unwrap().display()
    ));
    let program = script.program();
    let refused = within(core.install_program("dies", &program, NO_SETTINGS)).await.unwrap_err();
    assert!(refused.to_string().contains("ended before it answered"), "{refused}");
    assert!(refused.to_string().contains("exit status: 9"), "{refused}");
    within(core.stop()).await;
}

/// An extension in its own process. Not a test of its own.
#[tokio::test]
#[ignore = "started by a test of this file"]
async fn extension_under_test() {
    if std::env::var_os(DIES).is_some() {
        gofer_sdk::run::<Dying>().await.unwrap();
    }
    if std::env::var_os(HANGS).is_some() {
        gofer_sdk::run::<Hanging>().await.unwrap();
    }
}

#[tokio::test]
async fn an_extension_that_hangs_while_it_is_restored_is_restarted_and_keeps_its_subscriptions() {
    let core = core().await;
    let script = Script::directory("hangs");
    script.set(&format!(
        "export {HANGS}='{}'\nexec '{}' --exact supervision::extension_under_test --ignored --nocapture >/dev/null",
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
    script.repair_it();
    within(async {
        while !extension.info().await.is_ok_and(|info| info.registered == ["default/nightly"]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    core.stop().await;
}

/// How far the test of [`Late`] is.
struct Gate {
    /// Subscriptions are blocked.
    closed: bool,
    /// One is blocked.
    blocks: bool,
    /// The extension has been enabled, and the core has handled the response to the subscription.
    enabled: bool,
}

static GATE: std::sync::Mutex<Gate> =
    std::sync::Mutex::new(Gate { closed: false, blocks: false, enabled: false });

fn gate() -> std::sync::MutexGuard<'static, Gate> {
    GATE.lock().unwrap()
}

/// While the gate is closed, accepts a subscription only once it is being stopped.
struct Late;

impl Extension for Late {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, _: &NoParams) -> Result<()> {
        while gate().closed {
            gate().blocks = true;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }

    async fn shutdown(&self) {
        let was_closed = std::mem::take(&mut gate().closed);
        while was_closed && !gate().enabled {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disable_during_an_enable_wins_and_loses_no_subscription() {
    let core = Core::in_memory().await.unwrap();
    let extension = core.install::<Late>("late", NO_SETTINGS).await.unwrap();
    within(extension.subscribe("default/nightly", "l", NO_SETTINGS)).await.unwrap();
    let name = || "late".to_owned();
    let mut api = core.client().api();
    api.disable_extension(proto::DisableExtensionRequest { name: name() }).await.unwrap();
    gate().closed = true;
    let enabling = tokio::spawn({
        let mut api = api.clone();
        async move {
            let request = proto::EnableExtensionRequest { name: name() };
            let outcome = api.enable_extension(request).await;
            gate().enabled = true;
            outcome
        }
    });
    within(async {
        while !gate().blocks {
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

#[cfg(feature = "store")]
mod orphans {
    use std::io::{BufRead as _, BufReader, Write as _};

    use super::*;

    /// The path of the store of the core under test.
    const STORE: &str = "GOFER_TEST_STORE";

    /// The program that it installs.
    const PROGRAM: &str = "GOFER_TEST_PROGRAM";

    /// A core that is killed. Not a test of its own.
    #[tokio::test]
    #[ignore = "started by a test of this file"]
    async fn core_under_test() {
        let Some(store) = std::env::var_os(STORE) else { return };
        let program = PathBuf::from(std::env::var_os(PROGRAM).unwrap());
        let core = start(Path::new(&store)).await;
        let extension = install(&core, "metronome", &program).await;
        println!("process {}", extension.process_id().unwrap());
        // Nothing is written to the store until it is asked for.
        for line in std::io::stdin().lines() {
            assert_eq!(line.unwrap(), "subscribe");
            extension.subscribe("default/nightly", "l", OFTEN).await.unwrap();
            println!("subscribed");
        }
    }

    async fn start(store: &Path) -> Core {
        Core::builder().listen(([127, 0, 0, 1], 0)).store(store).start().await.unwrap()
    }

    /// A core in another process, which is killed with this.
    struct Other {
        process: std::process::Child,
        lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
        /// Of its extension.
        extension: u32,
    }

    impl Other {
        fn start(store: &Path, program: &Path) -> Self {
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "supervision::orphans::core_under_test", "--ignored"])
                .arg("--nocapture")
                .env(STORE, store)
                .env(PROGRAM, program)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let mut process_id =
                || lines.find_map(|it| it.unwrap().strip_prefix("process ")?.parse().ok());
            let extension = process_id().unwrap();
            Self { process, lines, extension }
        }

        fn subscribe(&mut self) {
            writeln!(self.process.stdin.as_mut().unwrap(), "subscribe").unwrap();
            assert!(self.lines.any(|line| line.unwrap() == "subscribed"));
        }

        fn kill(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.kill();
        }
    }

    async fn ended(process: u32) {
        within(async {
            while is_running(process) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn orphans_of_a_killed_core_are_killed_by_the_next_one() {
        let script = Script::breakable("orphans");
        let store = script.0.join("gofer.redb");
        let mut other = Other::start(&store, &metronome::program());
        other.subscribe();
        let orphan = other.extension;
        other.kill();
        assert!(is_running(orphan), "it ended by itself");
        let core = start(&store).await;
        assert!(!is_running(orphan), "the orphan was not killed");
        runs(&core, "default/nightly", 2).await;
        within(core.stop()).await;
    }

    /// Of a shell's group: one that has the extension's environment, and one that has none.
    #[tokio::test]
    async fn what_a_wrapper_that_has_ended_has_started_is_an_orphan() {
        let script = Script::directory("wrapper");
        let file = |name: &str| script.0.join(name);
        let write = |name| format!("echo $! > '{0}.new'\nmv '{0}.new' '{0}'", file(name).display());
        script.set(&format!(
            "env -i sleep 987654 &\n{}\n'{}' &\n{}\nwait",
            write("bare"),
            metronome::program().display(),
            write("child")
        ));
        let store = script.0.join("gofer.redb");
        let mut other = Other::start(&store, &script.program());
        let of = async |name| {
            within(async {
                loop {
                    if let Ok(text) = std::fs::read_to_string(file(name)) {
                        return text.trim().parse::<u32>().unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
        };
        let (bare, child) = (of("bare").await, of("child").await);
        let bare_runs = || exists(bare) && !stat(bare).contains(") Z ");
        other.kill();
        signal(other.extension, "KILL");
        ended(other.extension).await;
        assert!(is_running(child) && bare_runs(), "they ended by themselves");
        let core = start(&store).await;
        assert!(!is_running(child), "the orphan was not killed");
        within(async {
            while bare_runs() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        within(core.stop()).await;
    }

    /// Empty once the process is gone.
    fn stat(process: u32) -> String {
        std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default()
    }

    /// Copies a store with its key while nothing is written to it.
    fn copy(store: &Path, to: &Path) {
        for suffix in ["", ".key"] {
            let with = |path: &Path| format!("{}{suffix}", path.display());
            std::fs::copy(with(store), with(to)).unwrap();
        }
    }

    #[tokio::test]
    async fn on_a_copy_of_a_store_what_has_a_living_core_is_left_alone() {
        let script = Script::breakable("copy");
        let (store, copied) = (script.0.join("gofer.redb"), script.0.join("copy.redb"));
        let mut other = Other::start(&store, &metronome::program());
        copy(&store, &copied);
        let core = start(&copied).await;
        assert!(is_running(other.extension), "it was killed, and has a core");
        within(core.stop()).await;
        assert!(is_running(other.extension), "it was killed, and has a core");
        // Once it has none any more, it is an orphan of the copy as well.
        other.kill();
        assert!(is_running(other.extension), "it ended by itself");
        let core = start(&copied).await;
        assert!(!is_running(other.extension), "the orphan was not killed");
        within(core.stop()).await;
    }

    #[tokio::test]
    async fn two_cores_of_a_process_leave_the_extensions_of_each_other_alone() {
        let script = Script::breakable("two");
        let (store, copied) = (script.0.join("gofer.redb"), script.0.join("copy.redb"));
        let one = start(&store).await;
        let extension = install(&one, "metronome", &metronome::program()).await;
        let process = extension.process_id().unwrap();
        copy(&store, &copied);
        let two = start(&copied).await;
        assert!(is_running(process), "it was killed, and has a core");
        assert_eq!(extension.process_id(), Some(process));
        within(two.stop()).await;
        within(one.stop()).await;
    }
}

#[tokio::test]
async fn a_supervisor_that_panics_is_a_failure_of_the_core() {
    let core = core().await;
    let extension = install(&core, "metronome", &metronome::program()).await;
    // As a subscriber did that could not write.
    let _panics_at_restart = observe(
        |metadata| metadata.target().ends_with("::supervisor"),
        |event| assert!(*event.metadata().level() > tracing::Level::WARN, "the subscriber panics"),
    );
    let mut failure = std::pin::pin!(core.failure());
    // Not before.
    assert!(tokio::time::timeout(Duration::ZERO, &mut failure).await.is_err());
    signal(extension.process_id().unwrap(), "KILL");
    let failure = within(failure).await;
    assert!(failure.to_string().contains("the supervision of an extension"), "{failure}");
    // Later calls return it too.
    within(core.failure()).await;
    within(core.stop()).await;
}

#[tokio::test]
async fn the_helpers_of_an_extension_end_with_it_however_it_ends() {
    let core = core().await;
    let script = Script::directory("helpers");
    let metronome = metronome::program();
    script.set(&format!(
        "sleep 987654 &\necho $! > '{file}.new'\nmv '{file}.new' '{file}'\nexec '{}'",
        metronome.display(),
        file = script.pid_file().display(),
    ));
    // Each helper is another one.
    let helper = async || {
        let helper = script.process().await;
        std::fs::remove_file(script.pid_file()).unwrap();
        assert!(is_running(helper));
        helper
    };
    let gone = async |helper, how| {
        let end = async {
            while is_running(helper) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(TIMEOUT, end).await.is_ok(), "{how}: its helper is left");
    };
    let name = "helpers".to_owned();
    let mut api = core.client().api();
    let extension = install(&core, &name, &script.program()).await;
    let first = helper().await;
    signal(extension.process_id().unwrap(), "KILL");
    gone(first, "killed").await;
    let second = helper().await;
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    // It ends by itself, in order.
    signal(extension.process_id().unwrap(), "TERM");
    gone(second, "ended by itself").await;
    let third = helper().await;
    within(extension.wait_for(|status| status.state == ExtensionState::Running)).await;
    within(api.disable_extension(proto::DisableExtensionRequest { name: name.clone() }))
        .await
        .unwrap();
    gone(third, "disabled").await;
    within(api.enable_extension(proto::EnableExtensionRequest { name: name.clone() }))
        .await
        .unwrap();
    let fourth = helper().await;
    within(extension.update([("min_interval", "200ms")])).await.unwrap();
    gone(fourth, "updated").await;
    let fifth = helper().await;
    within(api.uninstall_extension(proto::UninstallExtensionRequest { name: name.clone() }))
        .await
        .unwrap();
    gone(fifth, "uninstalled").await;
    install(&core, &name, &script.program()).await;
    let sixth = helper().await;
    within(core.stop()).await;
    gone(sixth, "the core was stopped").await;
}

#[tokio::test]
async fn the_reason_of_an_extension_that_ended_includes_its_last_lines() {
    let core = core().await;
    let script = Script::directory("last-lines");
    script.set("echo 'on standard output'\necho 'no such device' >&2\nexit 7");
    let refused = within(core.install_program("ends", &script.program(), NO_SETTINGS)).await;
    let refused = refused.unwrap_err().to_string();
    for part in ["exit status: 7", "on standard output", "no such device"] {
        assert!(refused.contains(part), "{refused}");
    }
    within(core.stop()).await;
}
