//! A core whose log cannot be written, or that nobody reads, goes on as if it could.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::shell::{GOFER, Machine, TIMEOUT, interval};

/// A core and its commands, each in a process of its own.
struct Core {
    machine: Machine,
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Core {
    fn start(name: &str, flags: &[&str], log: impl Into<Stdio>) -> Self {
        let machine = Machine::new(name);
        let mut child = Command::new(GOFER)
            .args(["--json", "service", "start", "--listen", "127.0.0.1:0", "--allow-programs"])
            .args(flags)
            .current_dir(machine.file(""))
            .env("GOFER_CONFIG", machine.file("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        // Once it is there, the token is too.
        let mut line = String::new();
        while !line.starts_with('}') {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it did not start");
        }
        Self { machine, child, output }
    }

    fn gofer(&self, args: &[&str]) -> String {
        let output = Command::new(GOFER)
            .args(args)
            .env("GOFER_CONFIG", self.machine.file("config.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn extension(&self, name: &str) -> Value {
        serde_json::from_str(&self.gofer(&["--json", "extension", "get", name])).unwrap()
    }

    /// The processes that it has started.
    fn children(&self) -> Vec<u32> {
        let id = self.child.id();
        let list = format!("/proc/{id}/task");
        let tasks = std::fs::read_dir(list).unwrap().flatten();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                text.split_whitespace().map(|it| it.parse().unwrap()).collect::<Vec<_>>()
            })
            .collect()
    }

    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Stops it in order, and returns its exit code.
    fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        eventually(|| self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is found, as soon as it is.
fn eventually<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "it does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_gone(process: u32) -> bool {
    std::fs::read(format!("/proc/{process}/environ")).map_or(true, |it| it.is_empty())
}

fn image(program: &Path) -> String {
    format!("exec:{}", program.display())
}

/// Extensions start runs, are restarted when they end, and end with the core.
fn goes_on(mut core: Core) {
    core.gofer(&["pipeline", "create", "nightly"]);
    core.gofer(&["extension", "install", "interval", &image(&interval()), "-c", "min_interval=1s"]);
    core.gofer(&["extension", "sub", "interval", "l", "--pipeline", "nightly", "-s", "every=1s"]);
    let [process] = core.children()[..] else { panic!("{:?}", core.children()) };
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success());
    let restarted = || {
        let extension = core.extension("interval");
        let runs = extension["state"] == "running";
        (extension["restarts"].as_u64() >= Some(1) && runs).then_some(())
    };
    eventually(restarted);
    let runs = || core.gofer(&["--json", "run", "list", "nightly"]);
    let count = || serde_json::from_str::<Value>(&runs()).unwrap().as_array().unwrap().len();
    let before = count();
    eventually(|| (count() > before).then_some(()));
    let children = core.children();
    assert!(!children.is_empty());
    assert_eq!(core.stop(), Some(0));
    assert!(children.into_iter().all(is_gone), "an extension is left behind");
}

#[test]
fn a_core_whose_log_has_no_reader_goes_on() {
    let (reader, log) = std::io::pipe().unwrap();
    let core = Core::start("log-pipe", &[], log);
    drop(reader);
    goes_on(core);
}

#[test]
fn a_core_whose_log_has_a_reader_that_does_not_read_goes_on() {
    let (reader, log) = std::io::pipe().unwrap();
    // Nothing more fits.
    let mut writer = log.try_clone().unwrap();
    let filling = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut writer, &vec![b'\n'; 1 << 22]);
    });
    goes_on(Core::start("log-full-pipe", &[], log));
    drop(reader);
    filling.join().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_core_whose_log_is_on_a_full_disk_goes_on() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    goes_on(Core::start("log-full-disk", &[], full));
}

#[test]
fn a_second_signal_stops_at_once_and_leaves_no_extension_behind() {
    let mut core = Core::start("second-signal", &[], Stdio::null());
    core.gofer(&["extension", "install", "interval", &image(&interval())]);
    let [process] = core.children()[..] else { panic!("{:?}", core.children()) };
    // It neither answers Shutdown nor ends.
    assert!(Command::new("kill").args(["-STOP", &process.to_string()]).status().unwrap().success());
    core.signal("TERM");
    eventually(|| {
        // Signals merge until they are handled.
        core.signal("INT");
        core.child.try_wait().unwrap()
    });
    eventually(|| is_gone(process).then_some(()));
}

/// A program of the machine's, which becomes the interval extension.
fn script(core: &Core, text: &str) -> String {
    let program = core.machine.file("program");
    // Written by another process, since this one may start a child that has it open for writing.
    let text = format!("#!/bin/sh\n{text}\nexec '{}'\n", interval().display());
    let write = format!("cat > '{0}'; chmod +x '{0}'", program.display());
    let mut writer = Command::new("sh").args(["-c", &write]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    image(&program)
}

fn started_on_a_file(name: &str, flags: &[&str]) -> (Core, PathBuf) {
    let log = std::env::temp_dir().join(format!("gofer-{}-{name}.log", std::process::id()));
    let core = Core::start(name, flags, File::create(&log).unwrap());
    (core, log)
}

#[test]
fn what_an_extension_writes_is_in_the_log_and_not_in_the_standard_output_of_the_core() {
    let (mut core, log) = started_on_a_file("talks", &[]);
    let image = script(
        &core,
        "head -c 200000 /dev/zero | tr '\\0' x\nprintf '\\377\\000\\033[2J\\nplain\\n'\n\
         echo to the other >&2\n# It goes on without.\nexec >&-",
    );
    core.gofer(&["extension", "install", "talks", &image]);
    assert_eq!(core.stop(), Some(0));
    let mut more = String::new();
    core.output.read_to_string(&mut more).unwrap();
    assert_eq!(more, "", "it is in the standard output");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().all(|line| line.len() < 9000 && !line.contains('\u{1b}')), "{log:.200}");
    for text in ["xxxxxxxx", "plain", "to the other"] {
        let line = log.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("extension=\"talks\""), "{line:.200}");
    }
}

#[test]
fn all_of_the_log_has_one_format_and_no_frames_of_http_2() {
    let flags = ["--log-level", "debug", "--run-command", "sh", "-c", "echo out; echo err >&2"];
    let (mut core, log) = started_on_a_file("format", &flags);
    core.gofer(&["pipeline", "create", "nightly"]);
    core.gofer(&["extension", "install", "interval", &image(&interval())]);
    core.gofer(&["run", "start", "nightly"]);
    let shown = || std::fs::read_to_string(&log).unwrap();
    let all = ["out pipeline=\"default/nightly\" run=1", "err pipeline=", "extension=\"interval\""];
    eventually(|| all.iter().all(|text| shown().contains(text)).then_some(()));
    assert_eq!(core.stop(), Some(0));
    let log = shown();
    for line in log.lines().filter(|line| !line.starts_with("Stop")) {
        let mut words = line.split_whitespace();
        let (time, level, target) = (words.next(), words.next(), words.next());
        assert!(time.is_some_and(|it| it.starts_with("20") && it.ends_with('Z')), "{line}");
        assert!(level.is_some_and(|it| ["DEBUG", "INFO", "WARN", "ERROR"].contains(&it)), "{line}");
        assert!(target.is_some_and(|it| it.starts_with("gofer")), "{line}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_killed_core_leaves_is_ended_by_the_next_one_with_its_helpers() {
    let mut core = Core::start("killed", &[], Stdio::null());
    let helpers = core.machine.file("helpers");
    let image = script(
        &core,
        &format!(
            "sleep 987654 & echo $! >> '{0}'\nsetsid sleep 987654 & echo $! >> '{0}'",
            helpers.display()
        ),
    );
    core.gofer(&["extension", "install", "helps", &image]);
    let text = std::fs::read_to_string(helpers).unwrap();
    let helpers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let [leader] = core.children()[..] else { panic!("{:?}", core.children()) };
    core.child.kill().unwrap();
    core.child.wait().unwrap();
    // It ended by itself.
    assert!(Command::new("kill").args(["-9", &leader.to_string()]).status().unwrap().success());
    assert!(helpers.len() == 2 && !helpers.iter().any(|helper| is_gone(*helper)));
    core.machine.shown_until(
        "gofer service start --listen 127.0.0.1:0 --store gofer.redb",
        "Gofer listens on",
    );
    eventually(|| helpers.iter().all(|helper| is_gone(*helper)).then_some(()));
}
