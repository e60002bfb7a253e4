//! A command that executes runs: started once for each, with the run's variables
//! in its environment, and its exit code for the outcome.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::store::Ending;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::RunInfo;

/// What a command sees of the core's own environment: what programs need to find
/// each other and to speak to people, and none of the core's own secrets.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ"];

/// What the names of our own variables begin with.
const OURS: &str = "GOFER_";

/// What the names of variables begin with that say which code a program loads, or
/// a shell executes.
const LOADERS: [&str; 3] = ["LD_", "DYLD_", "BASH_"];

/// Others of that kind.
const HEEDED: [&str; 5] = ["ENV", "BASHOPTS", "SHELLOPTS", "PS4", "GCONV_PATH"];

pub(super) struct RunCommand {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
}

impl RunCommand {
    /// Runs the command. Dropped, it kills it with all that it started.
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
            .envs(ours(run))
            .stdin(Stdio::null())
            // This process's own output may be for a program to read.
            .stdout(std::io::stderr())
            // A group of its own, to be killed as one; and Ctrl-C is for the core.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut group = match started {
            Ok(child) => Group(child),
            Err(error) => {
                let what = format!("the command cannot be started: {error}");
                return Ending::failure(Reason::SchedulerError, &what);
            }
        };
        match group.0.wait().await {
            Ok(status) if status.success() => Ending::success(),
            Ok(status) => Ending::failure(Reason::AbnormalExit, &told(status)),
            Err(error) => {
                let what = format!("the command cannot be watched: {error}");
                Ending::failure(Reason::SchedulerError, &what)
            }
        }
    }
}

/// Why a run must not set a variable. Runs are started by others than the one
/// who chose the command: they give it values, and no other code to execute.
fn refusal(name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) {
        Some("has a name that no environment can hold")
    } else if value.contains('\0') {
        Some("has a NUL character in its value, which no environment can hold")
    } else if name.starts_with(OURS) || INHERITED.contains(&name) {
        Some("is one that the core sets; choose another name")
    } else if LOADERS.iter().any(|prefix| name.starts_with(prefix)) || HEEDED.contains(&name) {
        Some("says which code is loaded, which a run may not; choose another name")
    } else {
        None
    }
}

fn ours(run: &RunInfo) -> [(&'static str, String); 5] {
    let pipeline = run.pipeline();
    // Texts of others, which an environment holds up to a NUL.
    let text = |text: &str| text.replace('\0', "");
    [
        ("GOFER_NAMESPACE", pipeline.namespace().to_owned()),
        ("GOFER_PIPELINE", pipeline.pipeline().to_owned()),
        ("GOFER_RUN_ID", run.id().to_string()),
        ("GOFER_INITIATOR", text(run.initiator())),
        ("GOFER_REASON", text(run.reason())),
    ]
}

fn told(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command ended with the exit code {code}"),
        (None, Some(signal)) => format!("the command was ended by the signal {signal}"),
        (None, None) => format!("the command ended: {status}"),
    }
}

/// A process that leads a group of its own, with all that it started. Dropped,
/// it is killed with them.
pub(super) struct Group(pub(super) Child);

impl Group {
    /// Kills all of them; nothing where the leader has been waited for.
    pub(super) fn kill(&self) {
        // `None` once it has been waited for: its number may be another's then.
        let id = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            // Fails where all of them have just ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
