//! The interval extension as Gofer starts it: a process of its own, told by its
//! environment, stopped by Shutdown or a signal. And as a person starts it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Connection, IDENTITY, TOKEN, bearer};

/// The example, built by `cargo test` beside the tests.
fn interval() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/interval");
    assert!(path.exists(), "build it first: cargo build --example interval");
    path
}

/// A running extension; killed where a test fails before it ends by itself.
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
    let mut command = Command::new(interval());
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
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Connection::open(self.address, [bearer(TOKEN)]).await
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended, and how long that took.
    async fn ended(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

/// A watch of health, which never ends by itself, and a TLS handshake that is
/// never finished.
async fn hold_connections_open(
    extension: &Extension,
) -> (tonic::Streaming<tonic_health::pb::HealthCheckResponse>, TcpStream) {
    let connection = extension.connect().await;
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let mut watch = connection.health().watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    (watch, TcpStream::connect(extension.address).unwrap())
}

/// Well above what a stop takes, and below what Docker waits before it kills.
const BOUND: Duration = Duration::from_secs(9);

#[tokio::test]
async fn shutdown_is_answered_and_then_the_process_ends_with_status_0() {
    let mut extension = Extension::start();
    let _held = hold_connections_open(&extension).await;
    let client = crate::support::Client::new(extension.connect().await);
    client.init(&[]).await.unwrap();
    client.subscribe("nightly", &[("every", "1h")]).await.unwrap();
    client.shutdown().await.unwrap();
    let (status, took) = extension.ended().await;
    assert!(status.success(), "{status}: {}", extension.log());
    assert!(took < BOUND, "{took:?}");
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_process_with_status_0() {
    for name in ["TERM", "INT"] {
        let mut extension = Extension::start();
        let _held = hold_connections_open(&extension).await;
        extension.signal(name);
        let (status, took) = extension.ended().await;
        assert!(status.success(), "SIG{name}: {status}: {}", extension.log());
        assert!(took < BOUND, "SIG{name}: {took:?}");
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
    assert!(output.stdout.is_empty(), "it must not fall back to development mode");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("GOFER_EXTENSION_SYSTEM_KEY is not set"), "{error}");
    assert!(error.contains("GOFER_EXTENSION_SYSTEM_HOST must be an address"), "{error}");
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

/// The lines that development mode prints.
fn develop(args: &[&str]) -> (Child, std::io::Lines<BufReader<std::process::ChildStdout>>) {
    let mut child = Command::new(interval())
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
fn started_by_a_person_it_shows_itself_and_stops_cleanly_on_ctrl_c() {
    let (mut child, mut lines) = develop(&["--every", "1s"]);
    let mut seen = Vec::new();
    while seen.iter().filter(|line: &&String| line.contains("  run ")).count() < 2 {
        seen.push(lines.next().expect("it ended").unwrap());
    }
    assert!(seen.iter().any(|line| line.contains("every = 1s")), "{seen:?}");
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
fn development_mode_explains_itself_and_refuses_what_it_does_not_know() {
    let (mut child, lines) = develop(&["--help"]);
    let help: Vec<_> = lines.map(Result::unwrap).collect();
    let help = help.join("\n");
    assert!(help.contains("--every") && help.contains("--min_interval"), "{help}");
    assert!(child.wait().unwrap().success());
    for args in [["--evry", "2s"], ["every", "2s"], ["--every", "1ms"]] {
        let output = Command::new(interval()).args(args).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn ten_seconds_of_ticks_while_gofer_is_away_become_one_run() -> gofer_sdk::Result<()> {
    let core = gofer_core::Core::on_loopback().await?;
    let extension = core.install_program("interval", &interval(), [("min_interval", "1s")]).await?;
    extension.subscribe("default/nightly", "l", [("every", "1s")]).await?;
    let wait = |seconds| tokio::time::sleep(Duration::from_secs_f64(seconds));
    wait(2.5).await;
    assert_eq!(core.runs("default/nightly").len(), 2);
    core.go_away().await;
    wait(10.0).await;
    assert_eq!(core.runs("default/nightly").len(), 2);
    core.come_back().await?;
    // The pause between attempts is at most two seconds.
    let before = Instant::now();
    while core.runs("default/nightly").len() < 3 {
        assert!(before.elapsed() < Duration::from_secs(30), "no run came");
        wait(0.01).await;
    }
    let late = core.runs("default/nightly")[0].started();
    wait(3.1).await;
    let runs = core.runs("default/nightly");
    let after: Vec<_> = runs
        .iter()
        .filter(|run| run.started() > late)
        .map(|run| run.started().duration_since(runs[runs.len() - 1].started()).unwrap())
        .map(|since| i64::try_from(since.as_millis()).unwrap())
        .collect();
    assert_eq!(after.len(), 3, "one run for all that was missed, then the cadence: {after:?}");
    for start in after {
        // The very first run also waited for the connection.
        let off = (start + 500).rem_euclid(1000) - 500;
        assert!(off.abs() < 300, "off its cadence: {start} ms");
    }
    core.stop().await;
    Ok(())
}
