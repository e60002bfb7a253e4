//! A command that executes runs: started once for each run, with the run's variables in its
//! environment. Its exit code is the outcome.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{ChildOutput, Source};
use super::store::Ending;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::RunInfo;
use gofer_sdk::internal::PREFIX;

/// The variables that a command inherits from the core: those that programs need to find each other
/// and to choose a language, and none with secrets of the core.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ"];

/// Prefix of the variables that the core sets.
const RESERVED_PREFIX: &str = "GOFER_";

/// Prefix of the variables that extensions describe a run with; those of an extension's own
/// environment have [`PREFIX`] and are none of them.
const EXTENSION_PREFIX: &str = "GOFER_EXTENSION_";

/// Prefixes of variables that decide which code a program loads or a shell executes.
const LOADER_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "BASH_"];

/// Other variables of that kind.
const LOADER_NAMES: [&str; 5] = ["ENV", "BASHOPTS", "SHELLOPTS", "PS4", "GCONV_PATH"];

pub(super) struct RunCommand {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl RunCommand {
    /// Runs the command. If the future is dropped, the command is killed with its children.
    pub(super) async fn execute(&self, run: &RunInfo) -> Ending {
        for (name, value) in run.variables() {
            if let Some(why) = refusal(name, value) {
                let what = format!("the command was not started: the variable `{name}` {why}");
                return Ending::failure(Reason::FailedPrecondition, &what);
            }
        }
        let started = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(run.variables())
            .envs(run_variables(run))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // In its own process group, to be killed with its children, and so that Ctrl-C only
            // reaches the core.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut group = match started {
            Ok(mut child) => {
                // A program that it leaves behind may go on writing.
                ChildOutput::follow(&mut child, source(run)).detach();
                ProcessGroup(child)
            }
            Err(error) => {
                let what = format!("the command cannot be started: {error}");
                return Ending::failure(Reason::SchedulerError, &what);
            }
        };
        match group.0.wait().await {
            Ok(status) if status.success() => Ending::success(),
            Ok(status) => Ending::failure(Reason::AbnormalExit, &describe(status)),
            Err(error) => {
                let what = format!("the command cannot be watched: {error}");
                Ending::failure(Reason::SchedulerError, &what)
            }
        }
    }
}

/// Why a run must not set a variable. A caller that starts a run is not the one that chose the
/// command: it may pass values, but not other code to execute.
fn refusal(name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) {
        Some("must have a non-empty name without `=` or NUL")
    } else if value.contains('\0') {
        Some("must not contain NUL in its value")
    } else if is_reserved(name) || INHERITED.contains(&name) {
        Some("is set by the core; choose another name")
    } else if LOADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || LOADER_NAMES.contains(&name)
    {
        Some("controls which code is loaded and cannot be set by a run; choose another name")
    } else {
        None
    }
}

fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
        && (!name.starts_with(EXTENSION_PREFIX) || name.starts_with(PREFIX))
}

fn run_variables(run: &RunInfo) -> [(&'static str, String); 5] {
    let pipeline = run.pipeline();
    // Chosen by callers; a NUL is not possible in an environment.
    let text = |text: &str| text.replace('\0', "");
    [
        ("GOFER_NAMESPACE", pipeline.namespace().to_owned()),
        ("GOFER_PIPELINE", pipeline.pipeline().to_owned()),
        ("GOFER_RUN_ID", run.id().to_string()),
        ("GOFER_INITIATOR", text(run.initiator())),
        ("GOFER_REASON", text(run.reason())),
    ]
}

fn source(run: &RunInfo) -> Source {
    Source::Run { pipeline: run.pipeline().to_string(), run: run.id() }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command exited with code {code}"),
        (None, Some(signal)) => format!("the command was killed by signal {signal}"),
        (None, None) => format!("the command ended: {status}"),
    }
}

/// A process that leads its own process group. It is killed with its group when this is dropped.
pub(super) struct ProcessGroup(pub(super) Child);

impl ProcessGroup {
    /// Waits until the leader has ended, and ends what is left of its group with it.
    ///
    /// The leader is only waited for after that: until then its ID, and so the group's, is given to
    /// no other process.
    pub(super) async fn end(&mut self) -> io::Result<ExitStatus> {
        let id = self.id();
        let mut children = signal(SignalKind::child())?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Some(id) = id
            && waitid(WaitId::Pid(id), options)?.is_none()
        {
            children.recv().await;
        }
        self.kill();
        self.0.wait().await
    }

    /// `None` once the leader has been waited for: its ID may have been reused by then.
    fn id(&self) -> Option<Pid> {
        self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    /// Kills the group; does nothing if its leader has been waited for.
    pub(super) fn kill(&self) {
        if let Some(id) = self.id() {
            // Fails if all of them have just ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
