//! Durability: a core that is killed at any instant comes back with everything that it had
//! acknowledged, and no half-finished changes.
//!
//! The core under test is another process: this test program, with the path of a store in its
//! environment. It puts load on its own API and prints a line for everything that was acknowledged.
//! The test kills it at a random instant, opens the store and compares.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::files::Directory;
use crate::metronome;
use gofer_core::{Core, NO_SETTINGS};
use gofer_proto as proto;
use tonic::Code;

/// The variable with the path of the store of the core under test.
const STORE: &str = "GOFER_TEST_STORE";

/// How often a core is killed, on all stores together.
const KILLS: usize = 200;

/// Stores on which cores are killed side by side.
const STORES: usize = 8;

/// Concurrent loads, each with its own pipeline and names.
const LOADS: usize = 8;

/// Prints one whole line: what is printed is acknowledged.
fn acknowledge(line: &str) {
    let mut out = std::io::stdout().lock();
    // The reader may be gone.
    let _ = out.write_all(format!("ack {line}\n").as_bytes());
    let _ = out.flush();
}

/// What the killed process does. Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests of this file"]
async fn core_under_test() {
    let Some(store) = std::env::var_os(STORE) else { return };
    let core = Core::builder().store(store).start().await.unwrap();
    let mut loads = tokio::task::JoinSet::new();
    for n in 0..LOADS {
        loads.spawn(load(core.clone(), n));
    }
    let follower = core.clone();
    loads.spawn(async move {
        let mut events = follower.client().follow_events().await.unwrap();
        while let Some(event) = events.next().await.unwrap() {
            acknowledge(&format!("event {} {}", event.id, event.details));
        }
    });
    // An error is a failure of the core: printed, and found by the test.
    let ended = loads.join_next().await;
    acknowledge(&format!("failure {ended:?}"));
}

async fn load(core: Core, n: usize) {
    let pipeline = format!("pipeline-{n}");
    let mut api = core.client().api();
    let config = || proto::UserPipelineConfig { id: pipeline.clone(), ..Default::default() };
    let mut tokens: Vec<String> = Vec::new();
    // Names that no earlier process on the same store used.
    for step in 0.. {
        let name = format!("{n}-{}-{step}", std::process::id());
        match step % 8 {
            0 => {
                let request = proto::RegisterPipelineConfigRequest {
                    pipeline_config: Some(config()),
                    ..Default::default()
                };
                let pipeline = api.register_pipeline_config(request).await.unwrap().into_inner();
                let version = pipeline.pipeline.unwrap().config.unwrap().version;
                acknowledge(&format!("config {n} {version}"));
            }
            1 => {
                let request =
                    proto::CreateNamespaceRequest { id: name.clone(), ..Default::default() };
                api.create_namespace(request).await.unwrap();
                acknowledge(&format!("namespace {name}"));
                if step % 16 == 1 {
                    acknowledge(&format!("doomed-namespace {name}"));
                    api.delete_namespace(proto::DeleteNamespaceRequest { id: name.clone() })
                        .await
                        .unwrap();
                    acknowledge(&format!("no-namespace {name}"));
                }
            }
            2 => {
                let request = proto::CreateTokenRequest {
                    kind: proto::token::Kind::Management.into(),
                    expires: "24h".to_owned(),
                    ..Default::default()
                };
                let token = api.create_token(request).await.unwrap().into_inner().token;
                acknowledge(&format!("token {token}"));
                tokens.push(token);
            }
            3 if tokens.len() > 4 => {
                let token = tokens.remove(0);
                acknowledge(&format!("doomed-token {token}"));
                api.delete_token(proto::DeleteTokenRequest { token: token.clone() }).await.unwrap();
                acknowledge(&format!("no-token {token}"));
            }
            _ => {
                let request = proto::StartRunRequest {
                    pipeline_id: pipeline.clone(),
                    variables: HashMap::from([("NAME".to_owned(), name.clone())]),
                    initiator: Some(proto::Initiator {
                        name: "durable".to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                let run = api.start_run(request).await.unwrap().into_inner().run.unwrap();
                acknowledge(&format!("run {n} {} {name}", run.id));
            }
        }
    }
}

/// Whether something that is created and deleted again exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Yes,
    /// It was being deleted.
    Maybe,
    No,
}

impl Expected {
    fn parse(what: &str) -> Self {
        match what.split_once('-') {
            None => Self::Yes,
            Some(("doomed", _)) => Self::Maybe,
            Some(_) => Self::No,
        }
    }

    #[track_caller]
    fn check<T>(self, what: &str, found: &Result<T, tonic::Status>) {
        match self {
            Self::Yes => assert!(found.is_ok(), "the acknowledged {what} is lost"),
            Self::Maybe => {}
            Self::No => {
                let code = found.as_ref().err().map(tonic::Status::code);
                assert_eq!(code, Some(Code::NotFound), "the deleted {what} is back");
            }
        }
    }
}

/// Everything acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    configs: BTreeMap<usize, i64>,
    namespaces: BTreeMap<String, Expected>,
    tokens: BTreeMap<String, Expected>,
    /// By load and number: the name that it was started with.
    runs: BTreeMap<(usize, i64), String>,
    events: BTreeMap<i64, String>,
    lines: usize,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let (what, rest) = line.split_once(' ').unwrap();
        let numbers = || {
            let mut parts = rest.splitn(3, ' ');
            let load: usize = parts.next().unwrap().parse().unwrap();
            let number: i64 = parts.next().unwrap().parse().unwrap();
            (load, number, parts.next().unwrap_or_default().to_owned())
        };
        self.lines += 1;
        match what {
            "config" => {
                let (load, version, _) = numbers();
                self.configs.insert(load, version);
            }
            "namespace" | "doomed-namespace" | "no-namespace" => {
                self.namespaces.insert(rest.to_owned(), Expected::parse(what));
            }
            "token" | "doomed-token" | "no-token" => {
                self.tokens.insert(rest.to_owned(), Expected::parse(what));
            }
            "run" => {
                let (load, id, name) = numbers();
                assert_eq!(self.runs.insert((load, id), name), None, "run {id} was given twice");
            }
            "event" => {
                let (id, details) = rest.split_once(' ').unwrap();
                let known = self.events.insert(id.parse().unwrap(), details.to_owned());
                // Followers begin with the oldest event, so most are received again.
                assert!(known.is_none_or(|known| known == details), "event {id} has changed");
            }
            _ => panic!("unexpected output: {line}"),
        }
    }

    /// Compares with what a store holds.
    async fn check(&self, store: &Path) {
        let core = Core::builder().store(store).start().await.expect("the store opens");
        let mut api = core.client().api();
        for (load, version) in &self.configs {
            let request = proto::GetPipelineConfigRequest {
                pipeline_id: format!("pipeline-{load}"),
                version: *version,
                ..Default::default()
            };
            api.get_pipeline_config(request).await.expect("an acknowledged configuration");
        }
        for (id, expected) in &self.namespaces {
            let found = api.get_namespace(proto::GetNamespaceRequest { id: id.clone() }).await;
            expected.check("namespace", &found);
        }
        for (token, expected) in &self.tokens {
            let found = api.get_token(proto::GetTokenRequest { token: token.clone() }).await;
            expected.check("token", &found);
        }
        // No half-finished changes: events have no gaps, and each run has exactly its two.
        let mut events = core.client().events().await.unwrap();
        let (mut last, mut started, mut completed) = (0, BTreeSet::new(), BTreeSet::new());
        let mut namespaces = BTreeSet::new();
        while let Some(event) = events.next().await.unwrap() {
            assert_eq!(event.id, last + 1, "a gap in the events");
            last = event.id;
            if let Some(known) = self.events.get(&last) {
                assert_eq!(event.details, *known, "event {last} was received and has changed");
            }
            let details: serde_json::Value = serde_json::from_str(&event.details).unwrap();
            let run = || {
                let pipeline = details["pipeline_id"].as_str().unwrap().to_owned();
                (pipeline, details["run_id"].as_i64().unwrap())
            };
            match &*event.kind {
                "RUN_STARTED" => assert!(started.insert(run())),
                "RUN_COMPLETED" => assert!(completed.insert(run())),
                "NAMESPACE_CREATED" => {
                    namespaces.insert(details["namespace_id"].as_str().unwrap().to_owned());
                }
                _ => {}
            }
        }
        assert!(
            self.events.keys().next_back().is_none_or(|received| *received <= last),
            "events are lost"
        );
        for id in self.namespaces.keys() {
            assert!(namespaces.contains(id), "the event of {id} is lost");
        }
        assert_eq!(started, completed, "a half-recorded run");
        let mut found = BTreeSet::new();
        for load in 0..LOADS {
            let pipeline = format!("pipeline-{load}");
            for run in core.runs(&*pipeline) {
                if let Some(name) = self.runs.get(&(load, run.id())) {
                    assert_eq!(run.variable("NAME"), Some(&**name), "another run of that number");
                }
                found.insert((pipeline.clone(), run.id()));
            }
        }
        assert_eq!(found, started, "runs and their events");
        for (load, id) in self.runs.keys() {
            assert!(found.contains(&(format!("pipeline-{load}"), *id)), "run {id} is lost");
        }
        core.stop().await;
    }
}

/// Runs the core under test, kills it at a random instant, and reads what it had acknowledged by
/// then.
fn run_and_kill(store: &Path, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durable::core_under_test", "--ignored", "--nocapture"])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, received) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = lines.map_while(Result::ok).filter(|line| line.starts_with("ack "));
        let seen = lines.inspect(|_| {
            // Nobody waits any more if enough has been seen.
            let _ = sender.send(());
        });
        seen.collect::<Vec<_>>()
    });
    // Some are killed while they are starting, the others amid their work, however slow it is.
    let (done, longest) =
        if fastrand::u8(0..4) == 0 { (0, 250_000) } else { (fastrand::usize(1..=80), 10_000) };
    for _ in 0..done {
        // The end of the core is found by the check.
        if received.recv_timeout(Duration::from_secs(60)).is_err() {
            break;
        }
    }
    std::thread::sleep(Duration::from_micros(fastrand::u64(0..longest)));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut lines = reader.join().unwrap();
    // The last one may have been cut off.
    if let Some(last) = lines.last()
        && last.split(' ').count() < 3
    {
        lines.pop();
    }
    for line in lines {
        acknowledged.note(line.strip_prefix("ack ").unwrap());
    }
}

#[test]
fn a_core_killed_at_any_instant_comes_back_with_all_that_was_acknowledged() {
    // Several stores, since comparing takes longer the more one holds, and since most of the time
    // is spent waiting for the instant of the kill.
    let stores: Vec<_> =
        (0..STORES).map(|store| std::thread::spawn(move || kill_repeatedly(store))).collect();
    let lines: usize = stores.into_iter().map(|store| store.join().unwrap()).sum();
    assert!(lines > KILLS, "the core under test did next to nothing");
}

/// Kills a core on one store and compares, again and again; how many changes it acknowledged.
fn kill_repeatedly(store: usize) -> usize {
    let directory = Directory::new(&format!("kill-{store}"));
    let store = directory.0.join("store.redb");
    let mut acknowledged = Acknowledged::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..KILLS / STORES {
        run_and_kill(&store, &mut acknowledged);
        runtime.block_on(acknowledged.check(&store));
    }
    acknowledged.lines
}

#[tokio::test]
async fn extensions_and_their_subscriptions_are_restored() {
    let directory = Directory::new("extensions");
    let store = directory.0.join("store.redb");
    let program = metronome::program();
    let start = || Core::builder().listen(([127, 0, 0, 1], 0)).store(&store).start();
    let core = start().await.unwrap();
    let config = [("min_interval", "1s")];
    let extension = core.install_program("metronome", &program, config).await.unwrap();
    core.install_program("idle", &program, NO_SETTINGS).await.unwrap();
    extension.subscribe("default/nightly", "often", [("every", "1s")]).await.unwrap();
    let mut api = core.client().api();
    api.disable_extension(proto::DisableExtensionRequest { name: "idle".to_owned() })
        .await
        .unwrap();
    core.stop().await;
    let runs = core.runs("nightly").len();
    drop(core);

    let core = start().await.unwrap();
    let until = Instant::now() + Duration::from_secs(5 * 60);
    while core.runs("nightly").len() < runs + 2 {
        assert!(Instant::now() < until, "it starts no runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut api = core.client().api();
    let get = proto::GetExtensionRequest { name: "idle".to_owned() };
    let idle = api.get_extension(get).await.unwrap().into_inner().extension.unwrap();
    assert_eq!(idle.status(), proto::extension::ExtensionStatus::Disabled);
    assert_eq!(idle.state(), proto::extension::ExtensionState::Exited);
    core.stop().await;
}
