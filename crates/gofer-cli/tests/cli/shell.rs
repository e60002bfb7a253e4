//! A new user's machine: an empty home with the programs in it, a shell, and a core that is started
//! from it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The address in the guide. A test uses a free port instead.
const ADDRESS: &str = "127.0.0.1:8080";

/// When a test gives up on a command: far more than any takes on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The program under test.
pub(crate) const GOFER: &str = env!("CARGO_BIN_EXE_gofer");

/// The example, which `cargo test` in the workspace's root builds with the tests.
pub(crate) fn interval() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("examples/interval");
    assert!(path.exists(), "build it first: cargo build -p gofer-sdk --example interval");
    path
}

/// Exit code, standard output and standard error of `gofer` with no settings.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(GOFER)
        .args(args)
        .env_clear()
        .env("GOFER_CONFIG", "/nonexistent/gofer.toml")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub(crate) struct Machine {
    home: PathBuf,
    /// Where the current core listens.
    address: Option<String>,
    /// A token for the environment, without a login.
    token: Option<String>,
    /// Variables that a test sets.
    variables: Vec<(String, String)>,
    core: Option<Process>,
    /// The exit code of the last command.
    last: Option<i32>,
}

impl Machine {
    pub(crate) fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("gofer-{}-{name}", std::process::id()));
        let examples = home.join("target/debug/examples");
        std::fs::create_dir_all(&examples).unwrap();
        std::fs::create_dir(home.join("bin")).unwrap();
        std::os::unix::fs::symlink(GOFER, home.join("bin/gofer")).unwrap();
        std::os::unix::fs::symlink(interval(), examples.join("interval")).unwrap();
        Self { home, address: None, token: None, variables: Vec::new(), core: None, last: None }
    }

    /// Types a block of a guide.
    pub(crate) fn type_block(&mut self, block: &str) {
        let mut lines: VecDeque<&str> = block.lines().collect();
        while let Some(line) = lines.pop_front() {
            let end = lines.iter().position(|line| line.starts_with("$ "));
            let expected: Vec<&str> = lines.drain(..end.unwrap_or(lines.len())).collect();
            match line.strip_prefix("$ ") {
                // Takes minutes, and has already been done.
                Some(line) if line.starts_with("cargo ") => {}
                Some("echo $?") => {
                    let code: i32 = expected[0].parse().unwrap();
                    assert_eq!(self.last, Some(code), "the exit code of the command before");
                }
                Some(line) if line.starts_with("gofer service start") => {
                    self.start_core(line, &expected);
                }
                Some(line) => match expected.iter().position(|line| *line == "^C") {
                    Some(end) => self.type_and_interrupt(line, &expected[..end]),
                    None => self.type_line(line, &expected),
                },
                None if line == "^C" => self.interrupt_core(&expected),
                None => panic!("neither a command nor an interrupt: {line}"),
            }
        }
    }

    /// Kills the core, which notices nothing of it.
    pub(crate) fn kill_core(&mut self) {
        drop(self.core.take().expect("a core runs"));
    }

    /// The exit status and the output of the core, which ends by itself.
    pub(crate) fn core_ended(&mut self) -> (ExitStatus, String) {
        self.core.take().expect("a core runs").ended("gofer service start")
    }

    /// Where the core listens.
    pub(crate) fn address(&self) -> &str {
        self.address.as_deref().expect("a core runs")
    }

    /// The exit status and the output of a line.
    pub(crate) fn outcome(&self, line: &str) -> (ExitStatus, String) {
        Process::start(self.shell(line), "").ended(line)
    }

    /// The same with this on standard input.
    pub(crate) fn outcome_with(&self, line: &str, input: &str) -> (ExitStatus, String) {
        Process::start(self.shell(line), input).ended(line)
    }

    /// Starts a line, to look at its output while it runs.
    pub(crate) fn start(&self, line: &str) -> Process {
        Process::start(self.shell(&format!("exec {line}")), "")
    }

    /// The output of a line until a text is in it; then the line is stopped.
    pub(crate) fn shown_until(&self, line: &str, text: &str) -> String {
        let process = self.start(line);
        process.wait_until(line, |shown| shown.contains(text));
        process.interrupt();
        process.ended(line).1
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Sets a variable of all commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// What the core has shown.
    pub(crate) fn core_output(&self) -> String {
        self.core.as_ref().expect("a core runs").shown()
    }

    /// Makes all commands connect to this Gofer, whatever its certificate.
    pub(crate) fn connect_to(&mut self, address: &str, token: &str) {
        self.address = Some(address.to_owned());
        self.token = Some(token.to_owned());
    }

    /// Without the environment of the test itself, apart from PATH.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut command = Command::new(if ignores_interrupts() { "env" } else { "sh" });
        if ignores_interrupts() {
            command.args(["--default-signal=INT", "sh"]);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", line])
            .current_dir(&self.home)
            .env_clear()
            .env("PATH", format!("{}:{path}", self.home.join("bin").display()))
            .env("HOME", &self.home)
            .env("GOFER_CONFIG", self.home.join("config.toml"))
            .env("RUST_BACKTRACE", "0")
            .envs(self.variables.iter().cloned());
        if let (Some(token), Some(address)) = (&self.token, &self.address) {
            command.env("GOFER_ADDRESS", address);
            command.env("GOFER_TOKEN", token).env("GOFER_SKIP_TLS_VERIFY", "true");
        }
        command
    }

    fn localized(&self, lines: &[&str]) -> Vec<String> {
        let address = self.address.as_deref().unwrap_or(ADDRESS);
        lines.iter().map(|line| line.replace(ADDRESS, address)).collect()
    }

    fn start_core(&mut self, line: &str, expected: &[&str]) {
        assert!(self.core.is_none(), "one core at a time");
        let line = line.replace(ADDRESS, "127.0.0.1:0");
        let process = Process::start(self.shell(&format!("exec {line}")), "");
        let address = |shown: &str| {
            let (_, rest) = shown.split_once("Gofer listens on ")?;
            Some(rest.split_once(".\n")?.0.to_owned())
        };
        process.wait_until(&line, |shown| address(shown).is_some());
        self.address = address(&process.shown());
        let expected = self.localized(expected);
        process.wait_until(&line, |shown| missing(&expected, shown).is_none());
        self.core = Some(process);
    }

    fn interrupt_core(&mut self, expected: &[&str]) {
        let core = self.core.take().expect("a core runs");
        core.interrupt();
        let (status, shown) = core.ended("gofer service start");
        assert!(status.success(), "{status}: {shown}");
        let expected = self.localized(expected);
        assert_eq!(missing(&expected, &shown), None, "the core showed:\n{shown}");
    }

    fn type_line(&mut self, line: &str, expected: &[&str]) {
        let answers: String =
            expected.iter().filter_map(|line| answer(line)).flat_map(|it| [it, "\n"]).collect();
        let shown: Vec<_> =
            expected.iter().filter(|line| answer(line).is_none()).copied().collect();
        let (line, expected) = (self.localized(&[line]).concat(), self.localized(&shown));
        let (status, shown) = Process::start(self.shell(&line), &answers).ended(&line);
        assert_eq!(missing(&expected, &shown), None, "`{line}` showed:\n{shown}");
        let fails = expected.iter().any(|line| line.starts_with("error:"));
        assert_eq!(status.success(), !fails, "`{line}`: {status}, and showed:\n{shown}");
        self.last = status.code();
    }

    fn type_and_interrupt(&mut self, line: &str, expected: &[&str]) {
        let expected = self.localized(expected);
        let process = Process::start(self.shell(&format!("exec {line}")), "");
        process.wait_until(line, |shown| missing(&expected, shown).is_none());
        process.interrupt();
        process.ended(line);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Cleanly if that is still possible, so that its extensions end too.
        if let Some(mut core) = self.core.take() {
            core.interrupt();
            let until = Instant::now() + TIMEOUT;
            while matches!(core.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn answer(line: &str) -> Option<&str> {
    line.strip_prefix('>').map(str::trim_start)
}

/// The first expected line that is missing from the output.
fn missing(expected: &[String], shown: &str) -> Option<String> {
    let shown: Vec<_> = shown.lines().map(words).collect();
    let mut at = 0;
    for line in expected {
        let line = words(line);
        if line.is_empty() || line == "…" {
            continue;
        }
        match shown[at..].iter().position(|shown| is_shown(&line, shown)) {
            Some(n) => at += n + 1,
            None => return Some(line),
        }
    }
    None
}

/// Without the width of columns, which depends on their content.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_shown(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…').map(str::trim);
    let Some(mut text) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        // The last part must end the line.
        let rest = match parts.peek() {
            None => text.ends_with(part).then_some(""),
            Some(_) => text.split_once(part).map(|(_, rest)| rest),
        };
        match rest {
            Some(rest) => text = rest,
            None => return false,
        }
    }
    text.is_empty()
}

/// Whether this process ignores interrupts, as one does that a script started in the background.
/// Its children inherit that, and a shell cannot undo it.
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 2 is the second bit.
    ignored.is_some_and(|set| u64::from_str_radix(set.trim(), 16).unwrap() & 0b10 != 0)
}

/// A process and its output. Killed if a test fails before it ends.
pub(crate) struct Process {
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command, input: &str) -> Self {
        // One pipe, like one terminal, so that the output has an order.
        let (output, terminal) = std::io::pipe().unwrap();
        command.stdin(Stdio::piped()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let mut child = command.spawn().unwrap();
        // It holds the pipe open.
        drop(command);
        // A command that needs no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let shown = Arc::new(Mutex::new(String::new()));
        let reader = Some(read(output, Arc::clone(&shown)));
        Self { child, shown, reader }
    }

    pub(crate) async fn until_shown(&self, text: &str) {
        let until = Instant::now() + TIMEOUT;
        while !self.shown().contains(text) {
            assert!(Instant::now() < until, "`{text}` is not in:\n{}", self.shown());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn wait_until(&self, what: &str, is_enough: impl Fn(&str) -> bool) {
        let until = Instant::now() + TIMEOUT;
        while !is_enough(&self.shown()) {
            assert!(Instant::now() < until, "`{what}` showed only:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn interrupt(&self) {
        let line = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    pub(crate) fn ended(mut self, what: &str) -> (ExitStatus, String) {
        let until = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "`{what}` does not end; it showed:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.shown())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Line by line, so that no test sees half of one.
fn read(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
