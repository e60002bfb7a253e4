//! Answers that are secret, on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::full_gofer::{FullGofer, Step};
use crate::shell::Machine;
use crate::support::TOKEN;

/// When a test gives up on a command: far more than any takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A command on a terminal of its own, and what that shows. Killed if a test fails before it ends.
struct Terminal {
    /// The side of whoever types and reads.
    user: File,
    /// The side of the command.
    command: File,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let path = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        let side = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(OwnedFd::from(side.try_clone().unwrap()));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let user = File::from(user);
        let (mut from, shown) = (user.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let to = Arc::clone(&shown);
        // Ends with the command's side, at the latest.
        std::thread::spawn(move || {
            let mut some = [0; 1024];
            while let Ok(length) = from.read(&mut some) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..length]));
            }
        });
        Self { user, command: side, child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until a text has been shown.
    fn until(&self, text: &str) {
        let until = Instant::now() + TIMEOUT;
        while !self.shown().contains(text) {
            assert!(Instant::now() < until, "`{text}` is not in:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.command).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.user, "{line}").unwrap();
    }

    fn interrupt(&self) {
        let line = format!("kill -INT {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn machine(gofer: &FullGofer, name: &str) -> Machine {
    gofer.state().conversation = vec![
        Step::Ask("host: The host. (text, required)"),
        Step::SetAnswer("host"),
        Step::Ask("What is the token? (secret)"),
        Step::SetAnswer("token"),
        Step::Ask("more: What else? (text)"),
    ];
    let mut machine = Machine::new(name);
    machine.connect_to(&gofer.address.to_string(), TOKEN);
    machine
}

const INSTALL: &str = "exec gofer extension install chat example.com/chat -i";

#[tokio::test]
async fn a_secret_answer_is_not_shown_while_it_is_typed() {
    let gofer = FullGofer::start();
    let machine = machine(&gofer, "typed");
    let typing = tokio::task::spawn_blocking(move || {
        let mut terminal = Terminal::start(machine.shell(INSTALL));
        terminal.until("The host.");
        terminal.type_line("chat.example");
        terminal.until("(not shown) ");
        assert!(!terminal.shows_what_is_typed());
        terminal.type_line("hunter2");
        terminal.until("What else?");
        terminal.type_line("nothing");
        terminal.until("Installed chat.");
        assert!(terminal.ended().success());
        assert!(terminal.shows_what_is_typed(), "the terminal is as it was");
        terminal.shown()
    });
    let shown = typing.await.unwrap();
    assert!(shown.contains("chat.example") && !shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("token is set"), "{shown}");
    assert_eq!(gofer.state().settings[0]["token"], "hunter2");
}

#[tokio::test]
async fn a_terminal_shows_what_is_typed_again_after_an_interrupt() {
    let gofer = FullGofer::start();
    let machine = machine(&gofer, "interrupted");
    let typing = tokio::task::spawn_blocking(move || {
        let mut terminal = Terminal::start(machine.shell(INSTALL));
        terminal.until("The host.");
        terminal.type_line("chat.example");
        terminal.until("(not shown) ");
        terminal.interrupt();
        assert_eq!(terminal.ended().code(), Some(130));
        assert!(terminal.shows_what_is_typed());
    });
    typing.await.unwrap();
    assert!(gofer.state().settings.is_empty());
}

#[test]
fn a_token_is_not_shown_while_it_is_typed() {
    let mut machine = Machine::new("typed-token");
    machine.connect_to("127.0.0.1:1", TOKEN);
    for (line, status) in [("exec gofer config set token -", 0), ("exec gofer token delete", 6)] {
        let mut terminal = Terminal::start(machine.shell(line));
        terminal.until("Token (not shown): ");
        assert!(!terminal.shows_what_is_typed());
        terminal.type_line("hunter2");
        assert_eq!(terminal.ended().code(), Some(status), "{}", terminal.shown());
        assert!(terminal.shows_what_is_typed());
    }
    let file = std::fs::read_to_string(machine.file("config.toml")).unwrap();
    assert!(file.contains("hunter2"), "{file}");
}
