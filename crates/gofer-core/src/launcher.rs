//! Starting an extension: in this process, as a child process or as a container.
//! What an extension is told is exactly the environment of the contract, whichever
//! way it is started, and what runs it is a [`Process`] to everybody else.

#[cfg_attr(not(feature = "containers"), path = "launcher/no_container.rs")]
mod container;
mod in_process;
mod left_behind;
mod process;
mod program;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use tonic::Status;

pub(super) use container::Containers;
pub(super) use in_process::InProcess;
pub(super) use left_behind::end_left_behind;
pub(super) use process::{Process, Progress};
pub(super) use program::ChildProcess;

use super::certificates::Identity;
use gofer_net::Dial;
use gofer_sdk::internal::PREFIX;

/// What an image begins with that is a program on this machine. Nothing that does
/// is taken for a container image: one that is named so is written with its
/// registry, as `docker.io/library/exec:tag`.
pub(super) const PROGRAM: &str = "exec:";

/// What an image begins with that is a Rust type of this process.
pub(super) const IN_PROCESS: &str = "in-process:";

/// What one start of an extension is told.
pub(super) struct Start {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) identity: Identity,
    pub(super) log_level: String,
    /// Where the core's API is, as seen from this machine.
    pub(super) gofer_host: String,
    /// Of the registry that the image comes from; empty for none.
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "programs need none"))]
    pub(super) user: String,
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "programs need none"))]
    pub(super) pass: String,
    /// Where the launcher tells what it is doing.
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "programs start at once"))]
    pub(super) progress: Progress,
    /// Where what runs the extension is counted, until it has ended.
    pub(super) lives: TaskTracker,
}

impl Start {
    /// `host` is where the extension listens, `gofer_host` where it finds the core's
    /// API: both as seen from where it runs.
    fn environment(&self, host: &str, gofer_host: &str) -> Vec<(String, String)> {
        [
            ("KEY", self.key.as_str()),
            ("NAME", &self.name),
            ("TLS_CERT", &self.identity.certificate),
            ("TLS_KEY", &self.identity.key),
            ("LOG_LEVEL", &self.log_level),
            ("HOST", host),
            ("GOFER_HOST", gofer_host),
            // The core's certificate is its own; nobody vouches for it.
            ("SKIP_TLS_VERIFY", "true"),
        ]
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .into()
    }
}

/// An extension that has been started; it may not be listening yet.
pub(super) struct Launched {
    pub(super) dial: Dial,
    pub(super) process: Process,
}

/// A way to start extensions.
#[async_trait]
pub(super) trait Launcher: Send + Sync {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status>;
}

/// Whether an image can be one at all, before anything is done about it.
///
/// # Errors
///
/// Where it is neither a program nor the name of a container image.
pub(super) fn check_image(image: &str) -> Result<(), Status> {
    if let Some(program) = image.strip_prefix(PROGRAM) {
        return if program.is_empty() {
            Err(Status::invalid_argument("`exec:` needs the path of a program after it"))
        } else {
            Ok(())
        };
    }
    if image.starts_with(IN_PROCESS) { Ok(()) } else { container::check(image) }
}
