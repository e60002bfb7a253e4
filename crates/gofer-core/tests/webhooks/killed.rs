//! Webhooks while the extension and the core are killed at random instants: each one that was answered
//! with success has its runs, one for each subscription, however often it was sent.
//!
//! The core is another process, this test program with the path of a store in its environment. It
//! kills its extension, a process too, again and again, and is killed by the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS};
use gofer_sdk::{
    Error, ErrorKind, Extension, ExternalEvent, Gofer, NoConfig, NoParams, Result, Run,
    Subscriptions, SystemConfig,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::files::{Directory, write_script};
use crate::sender::{Sender, within};

/// The variable with the path of the store of the core under test.
const STORE: &str = "GOFER_TEST_STORE";

/// The variable with how often the core is killed; more than a hundred would have more runs than the
/// core keeps of a pipeline.
const KILLS: &str = "KILLS";

const SENDERS: usize = 4;

const PIPELINES: [&str; 2] = ["ops/one", "ops/two"];

struct Inbox;

impl Extension for Inbox {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    /// Some are restored later than others, so that webhooks arrive in between.
    fn validate(&self, _: &NoParams) -> Result<()> {
        if fastrand::bool() { Ok(()) } else { Err(Error::unavailable("not yet")) }
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<NoParams>,
    ) -> Result<()> {
        let missing = || Error::new(ErrorKind::InvalidParameter, "`X-Id` is missing");
        let id = event.header("x-id").ok_or_else(missing)?;
        subscriptions.start_runs(|_| Some(Run::because("a webhook").key(id))).await.map(drop)
    }
}

/// The extension's process. Not a test of its own.
#[tokio::test]
#[ignore = "started by other tests"]
async fn extension_under_test() {
    if SystemConfig::is_in_env() {
        gofer_sdk::run::<Inbox>().await.unwrap();
    }
}

/// The core's process. Not a test of its own.
#[tokio::test]
#[ignore = "started by other tests"]
async fn core_under_test() {
    let Some(store) = std::env::var_os(STORE) else { return };
    let builder = Core::builder().listen(([127, 0, 0, 1], 0)).store(&store);
    let core = builder.external_events(([127, 0, 0, 1], 0)).start().await.unwrap();
    let inbox = if let Ok(inbox) = core.installed("inbox") {
        inbox
    } else {
        let program = Path::new(&store).with_file_name("inbox");
        let tests = std::env::current_exe().unwrap();
        let test = "killed::extension_under_test --ignored --nocapture";
        write_script(&program, &format!("exec '{}' --exact {test} >/dev/null", tests.display()));
        let inbox = core.install_program("inbox", &program, NO_SETTINGS).await.unwrap();
        for pipeline in PIPELINES {
            while let Err(error) = inbox.subscribe(pipeline, "x", NO_SETTINGS).await {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
        }
        inbox
    };
    let address = core.external_events_address().unwrap();
    let _ = std::io::stdout().write_all(format!("\nlistens {address}\n").as_bytes());
    let mut killed = None;
    loop {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..800))).await;
        // Once each, since the number of one that has ended may be another's.
        let process = inbox.process_id().filter(|process| Some(*process) != killed);
        if let Some(process) = process {
            let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
            killed = Some(process);
        }
    }
}

/// What all senders share.
#[derive(Default)]
struct Sent {
    /// Of the core that runs.
    address: Mutex<Option<SocketAddr>>,
    next: AtomicUsize,
    accepted: Mutex<Vec<usize>>,
    stop: AtomicBool,
}

/// Sends webhooks, each until it is accepted or, as many senders do, three times; then one of them
/// again.
async fn send(sent: Arc<Sent>) {
    while !sent.stop.load(Ordering::Relaxed) {
        let id = sent.next.fetch_add(1, Ordering::Relaxed);
        let mut attempts = 0;
        while attempts < 3 && !sent.stop.load(Ordering::Relaxed) {
            let address = *sent.address.lock().unwrap();
            let Some(address) = address else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            attempts += 1;
            let status = within(post(address, id)).await;
            if status == Some(200) {
                sent.accepted.lock().unwrap().push(id);
                if !id.is_multiple_of(8) {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    }
}

/// The status of the answer, if there is one.
async fn post(address: SocketAddr, id: usize) -> Option<u16> {
    use tokio::io::AsyncWriteExt;
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let mut sender = Sender(tokio::io::BufReader::new(stream));
    let request = format!(
        "POST /external/inbox HTTP/1.1\r\nHost: x\r\nX-Id: {id}\r\nContent-Length: 0\r\n\r\n"
    );
    sender.0.write_all(request.as_bytes()).await.ok()?;
    sender.next_answer().await.map(|answer| answer.status)
}

/// A core on a store, once it listens for webhooks.
fn start_core(store: &Path) -> (Child, SocketAddr) {
    let mut core = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::core_under_test", "--ignored", "--nocapture"])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(core.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(std::io::Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("listens ")?.parse().ok());
    // It writes nothing more that matters.
    std::thread::spawn(move || lines.for_each(drop));
    (core, address.expect("the core did not start"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_webhook_that_was_accepted_is_without_its_runs() {
    let kills = std::env::var(KILLS).map_or(3, |kills| kills.parse().unwrap());
    let directory = Directory::new("killed-webhooks");
    let store = directory.0.join("store.redb");
    let sent = Arc::new(Sent::default());
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(send(Arc::clone(&sent)));
    }
    for _ in 0..kills {
        let path = store.clone();
        let (mut core, address) =
            tokio::task::spawn_blocking(move || start_core(&path)).await.unwrap();
        *sent.address.lock().unwrap() = Some(address);
        // Until it has accepted some.
        let before = sent.accepted.lock().unwrap().len();
        let accepted = async {
            while sent.accepted.lock().unwrap().len() < before + 50 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(50..400))).await;
            }
        };
        within(accepted).await;
        *sent.address.lock().unwrap() = None;
        core.kill().unwrap();
        core.wait().unwrap();
    }
    sent.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    // With no one to kill: nothing is on its way any more.
    let core = Core::builder().store(&store).start().await.unwrap();
    let accepted = sent.accepted.lock().unwrap().clone();
    assert!(accepted.len() < 10_000, "the first are not kept any more");
    for pipeline in PIPELINES {
        let mut runs: HashMap<String, usize> = HashMap::new();
        for run in core.runs(pipeline) {
            *runs.entry(run.key().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = runs.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{pipeline}: {twice:?}");
        let lost: Vec<_> =
            accepted.iter().filter(|id| !runs.contains_key(&id.to_string())).collect();
        assert!(lost.is_empty(), "{pipeline}: {lost:?} of {} that were accepted", accepted.len());
    }
    let sent = sent.next.load(Ordering::Relaxed);
    println!("{kills} cores were killed; of {sent} webhooks, {} were accepted", accepted.len());
    core.stop().await;
}
