//! The interval extension as Gofer starts it: a process of its own, configured by its environment,
//! stopped by Shutdown or a signal. And the examples as a user starts them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{Connection, IDENTITY, TOKEN, bearer, within};

/// An example, built by `cargo test` beside the tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "build it first: cargo build --example {name}");
    path
}

/// A running extension; killed if a test fails before it ends by itself.
struct Extension {
    child: Child,
    address: SocketAddr,
}

impl Drop for Extension {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(address: SocketAddr) -> Command {
    let mut command = Command::new(example("interval"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in [
        ("KEY", TOKEN),
        ("NAME", "interval"),
        ("TLS_CERT", &IDENTITY.certificate),
        ("TLS_KEY", &IDENTITY.key),
        ("HOST", &address.to_string()),
        ("GOFER_HOST", "127.0.0.1:1"),
    ] {
        command.env(format!("GOFER_EXTENSION_SYSTEM_{name}"), value);
    }
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Extension {
    fn start() -> Self {
        let address = free_address();
        let child = command(address).spawn().unwrap();
        Self { child, address }
    }

    /// A connection to it, once it listens.
    async fn connect(&self) -> Connection {
        let listening = async {
            while TcpStream::connect(self.address).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(listening).await;
        Connection::open(self.address, [bearer(TOKEN)]).await
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended. What prevents its end prevents it for ever, so no shorter timeout is needed.
    async fn ended(&mut self) -> ExitStatus {
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(sent.unwrap().success());
}

/// A watch of health, which never ends by itself, and a TLS handshake that is never finished.
async fn hold_connections_open(
    extension: &Extension,
) -> (tonic::Streaming<tonic_health::pb::HealthCheckResponse>, TcpStream) {
    let connection = extension.connect().await;
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut watch = connection.health().watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    (watch, TcpStream::connect(extension.address).unwrap())
}

#[tokio::test]
async fn shutdown_is_answered_and_then_the_process_ends_with_status_0() {
    let mut extension = Extension::start();
    let _held = hold_connections_open(&extension).await;
    let client = crate::support::Client::new(extension.connect().await);
    client.init(&[]).await.unwrap();
    client.subscribe("nightly", &[("every", "1h")]).await.unwrap();
    client.shutdown().await.unwrap();
    let status = extension.ended().await;
    assert!(status.success(), "{status}: {}", extension.log());
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_process_with_status_0() {
    for name in ["TERM", "INT"] {
        let mut extension = Extension::start();
        let _held = hold_connections_open(&extension).await;
        extension.signal(name);
        let status = extension.ended().await;
        assert!(status.success(), "SIG{name}: {status}: {}", extension.log());
    }
}

#[tokio::test]
async fn every_line_of_the_log_is_json_with_the_extensions_name() {
    let mut extension = Extension::start();
    let _connection = extension.connect().await;
    extension.signal("TERM");
    extension.ended().await;
    let log = extension.log();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["extension"], "interval");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(!log.contains(TOKEN));
}

#[tokio::test]
async fn an_incomplete_environment_is_an_error_that_lists_what_is_missing() {
    let mut command = command(free_address());
    command.env_remove("GOFER_EXTENSION_SYSTEM_KEY").env("GOFER_EXTENSION_SYSTEM_HOST", "here");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "it must not fall back to the demo");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("GOFER_EXTENSION_SYSTEM_KEY: is not set"), "{error}");
    assert!(error.contains("GOFER_EXTENSION_SYSTEM_HOST: must be an address"), "{error}");
    assert!(!error.contains("PRIVATE KEY"), "{error}");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = command(address).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}

/// Starts the demo of an example: the process, and the lines that it prints.
fn demo(
    name: &str,
    args: &[&str],
) -> (Child, std::io::Lines<BufReader<std::process::ChildStdout>>) {
    let mut child = Command::new(example(name))
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[test]
fn without_gofers_environment_it_runs_the_demo_and_stops_cleanly_on_ctrl_c() {
    let (mut child, mut lines) = demo("interval", &["--every", "1s"]);
    let mut seen = Vec::new();
    while seen.iter().filter(|line: &&String| line.contains("  run ")).count() < 2 {
        seen.push(lines.next().expect("it ended").unwrap());
    }
    assert!(seen.iter().any(|line| line.contains("(set: every)")), "{seen:?}");
    let run = seen.last().unwrap();
    for expected in ["run 2 of default/demo", "the interval elapsed", "ms late"] {
        assert!(run.contains(expected), "{run}");
    }
    let process = seen
        .iter()
        .find_map(|line| line.split_once("as process ")?.1.split(' ').next())
        .unwrap()
        .to_owned();
    signal(child.id(), "INT");
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("runs of default/demo in")), "{rest:?}");
    assert!(child.wait().unwrap().success());
    assert!(!PathBuf::from(format!("/proc/{process}")).exists(), "the extension is still there");
}

#[test]
fn the_demo_has_help_and_refuses_unknown_arguments() {
    let (mut child, lines) = demo("interval", &["--help"]);
    let help: Vec<_> = lines.map(Result::unwrap).collect();
    let help = help.join("\n");
    assert!(help.contains("--every") && help.contains("--min_interval"), "{help}");
    assert!(child.wait().unwrap().success());
    for (args, expected) in [
        (["--evry", "2s"], "Error: there is no `--evry`"),
        (["every", "2s"], "Error: write arguments"),
        (["--every", "2x"], "Error: parameter `every`"),
    ] {
        let output = Command::new(example("interval")).args(args).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn the_demo_of_a_schedule_says_when_the_first_run_is_due() {
    let (mut child, mut lines) = demo("cron", &["--expression", "0 0 1 1 * 2099"]);
    let due = lines
        .find_map(|line| line.unwrap().strip_prefix("The first run is due in ").map(str::to_owned));
    let due = due.unwrap();
    let hours: u64 = due.split_once('h').unwrap().0.parse().unwrap();
    assert!(hours > 600_000 && due.ends_with("s."), "{due}");
    signal(child.id(), "INT");
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.starts_with("0 runs of default/demo in")), "{rest:?}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_demo_of_a_webhook_sends_its_examples_and_listens_for_others() {
    let (mut child, mut lines) = demo("github", &["--send", "push", "--send=push"]);
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains("  run 1 of default/demo")) {
        seen.push(lines.next().expect("it ended").unwrap());
    }
    let run = seen.last().unwrap();
    assert!(run.ends_with("GitHub: push in octo-org/octo-repo"), "{run}");
    let sent = seen.iter().filter(|line| *line == "Sent the example `push`: accepted.");
    assert_eq!(sent.count(), 2, "{seen:?}");

    // What it shows for others works as it is written.
    let from = seen.iter().position(|line| line.starts_with("  curl http://127.0.0.1:")).unwrap();
    let to = from + seen[from..].iter().position(String::is_empty).unwrap();
    let shown = seen[from..to].join("\n").replace("72d3162e", "72d3162f");
    let address = shown.split(['/', ' ']).find(|it| it.starts_with("127.0.0.1:")).unwrap();
    let headers = shown.lines().filter_map(|line| line.trim().strip_prefix("-H '"));
    let headers = headers.map(|line| line.trim_end_matches(['\\', ' ', '\'']));
    let body = shown.split_once("--data-binary '").unwrap().1.strip_suffix('\'').unwrap();
    let request = format!(
        "POST /external/github HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        headers.collect::<Vec<_>>().join("\r\n"),
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let run = lines.next().unwrap().unwrap();
    assert!(run.contains("run 2 of default/demo"), "{run}");

    signal(child.id(), "INT");
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.starts_with("2 runs of default/demo in")), "{rest:?}");
    assert!(child.wait().unwrap().success());

    let (mut child, lines) = demo("github", &["--help"]);
    let help: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(help.iter().any(|line| line.trim() == "--send release"), "{help:?}");
    assert!(child.wait().unwrap().success());
    let output =
        Command::new(example("github")).args(["--send", "tea"]).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("Error: `--send` takes the name of an example"), "{error}");
}

#[test]
fn the_embedded_core_example_prints_its_runs_and_ends() {
    let output = Command::new(example("embedded_core")).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let run = |id| format!("run {id} of default/nightly: the interval elapsed");
    assert_eq!(printed.lines().collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(run));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// When each run of the pipeline started, oldest first.
fn starts(core: &gofer_core::Core) -> Vec<SystemTime> {
    core.runs("default/nightly").iter().rev().map(gofer_sdk::RunInfo::started).collect()
}

// How many runs there are at some moment depends on how busy the machine is, so the test compares
// when each was started. `interval.rs` has the same test on a paused clock.
#[tokio::test]
async fn ten_seconds_of_ticks_while_gofer_is_away_become_one_run() -> gofer_sdk::Result<()> {
    let core = gofer_core::Core::on_loopback().await?;
    let program = example("interval");
    let extension = core.install_program("interval", &program, [("min_interval", "1s")]).await?;
    extension.subscribe("default/nightly", "l", [("every", "1s")]).await?;
    let at_least = async |runs| {
        while starts(&core).len() < runs {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(at_least(2)).await;
    core.close_api().await;
    let before = starts(&core);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(starts(&core), before, "no run is started while Gofer is away");
    core.reopen_api().await?;
    within(at_least(before.len() + 4)).await;
    let after = starts(&core).split_off(before.len());
    // The first is for all that was missed, and each of the others for a tick that fell due after
    // it. Clocks of two processes are compared, in whole milliseconds.
    for (ticks, start) in after[1..].iter().enumerate() {
        let since = start.duration_since(after[0]).unwrap() + Duration::from_millis(10);
        let least = Duration::from_secs(u64::try_from(ticks).unwrap());
        assert!(since > least, "several runs for what was missed: {after:?}");
    }
    // Then it returns to the cadence. The first run of all was late: it waited for the connection.
    let on_cadence = |start: &&SystemTime| {
        before.iter().any(|earlier| {
            let off = start.duration_since(*earlier).unwrap().as_millis() % 1000;
            off.min(1000 - off) < 300
        })
    };
    within(async {
        while starts(&core)[before.len() + 1..].iter().filter(on_cadence).count() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    core.stop().await;
    Ok(())
}
