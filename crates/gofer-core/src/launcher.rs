//! Launches extensions: in this process, as child processes or as containers. Each gets exactly the
//! environment that the contract defines, and to all other modules it is a [`Process`], whatever it
//! runs in.

#[cfg_attr(not(feature = "containers"), path = "launcher/no_container.rs")]
mod container;
mod in_process;
mod orphans;
mod owner;
mod process;
mod program;
mod recorded;

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;
use tonic::Status;

pub(super) use container::Containers;
pub(super) use in_process::{CORE, InProcess};
pub(super) use orphans::{Left, end_orphans};
pub(super) use process::{LaunchProgress, Process};
pub(super) use program::ChildProcess;
pub(super) use recorded::{Recorded, UntilGone};

use super::certificates::Identity;
use super::limits::{ContainerLimits, Timeouts};
use gofer_net::{Backoff, Dial};
use gofer_sdk::internal::PREFIX;

/// Prefix of an image that is a program on this machine. A container image whose name is `exec`
/// must be written with its registry, as `docker.io/library/exec:tag`.
pub(super) const PROGRAM: &str = "exec:";

/// Prefix of an image that is a Rust type of this process.
pub(super) const IN_PROCESS: &str = "in-process:";

/// Between attempts to end an orphan.
pub(super) const RETRY_ORPHANS: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(60));

/// What is needed for one launch of an extension.
pub(super) struct LaunchSpec {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) identity: Identity,
    pub(super) log_level: String,
    /// The address of the core's API, as seen from this machine.
    pub(super) gofer_host: String,
    /// Credentials for the image's registry; empty for none.
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "only images need them"))]
    pub(super) user: String,
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "only images need them"))]
    pub(super) pass: String,
    #[cfg_attr(
        not(feature = "containers"),
        expect(dead_code, reason = "only containers have them")
    )]
    pub(super) limits: ContainerLimits,
    pub(super) timeouts: Timeouts,
    /// Where the launcher reports what it is doing.
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "only images take time"))]
    pub(super) progress: LaunchProgress,
    /// Tracks what the extension runs in, until it has ended.
    pub(super) processes: TaskTracker,
    /// Dropped once nothing of it is left, if the store records it.
    pub(super) until_gone: Option<UntilGone>,
}

impl LaunchSpec {
    /// `host` is the address that the extension listens on and `gofer_host` that of the core's API,
    /// both as seen from where the extension runs.
    fn environment(&self, host: &str, gofer_host: &str) -> Vec<(String, String)> {
        [
            ("KEY", self.key.as_str()),
            ("NAME", &self.name),
            ("TLS_CERT", &self.identity.certificate),
            ("TLS_KEY", &self.identity.key),
            ("LOG_LEVEL", &self.log_level),
            ("HOST", host),
            ("GOFER_HOST", gofer_host),
            // The core's certificate is self-signed.
            ("SKIP_TLS_VERIFY", "true"),
        ]
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .into()
    }
}

/// A launched extension; it may not be listening yet.
pub(super) struct Launched {
    pub(super) dial: Dial,
    pub(super) process: Process,
}

/// A way to launch extensions.
#[async_trait]
pub(super) trait Launcher: Send + Sync {
    async fn launch(&self, image: &str, spec: &LaunchSpec) -> Result<Launched, Status>;
}

/// Whether an image is a container's, rather than a program or a type of this process.
pub(super) fn is_container(image: &str) -> bool {
    !image.starts_with(PROGRAM) && !image.starts_with(IN_PROCESS)
}

/// Checks the syntax of an image.
///
/// # Errors
///
/// If it is neither a program nor a valid name of a container image.
pub(super) fn check_image(image: &str) -> Result<(), Status> {
    if let Some(program) = image.strip_prefix(PROGRAM) {
        return if program.is_empty() {
            Err(Status::invalid_argument("`exec:` must be followed by the path of a program"))
        } else {
            Ok(())
        };
    }
    if image.starts_with(IN_PROCESS) { Ok(()) } else { container::check_image_name(image) }
}
