//! Kills orphans: child processes that outlived an earlier core, which was killed.
//!
//! They are identified by the key in their environment, whose digest is in the store, so a process
//! that merely reuses the ID is left alone. On systems without `/proc/<pid>/environ` no orphans are
//! found.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use gofer_net::auth::sha256;
use gofer_sdk::internal::PREFIX;

/// How long killed orphans may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two checks whether they are gone.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Kills the processes that were launched with keys of these digests, and waits until they have
/// ended and released their ports and files.
pub(crate) async fn end_orphans(digests: Vec<[u8; 32]>) {
    if digests.is_empty() {
        return;
    }
    // Blocking: reads a file for each process of the system.
    let find = move || -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let is_orphan = |id: &Pid| {
            key_in(&environment_of(*id)).is_some_and(|key| digests.contains(&sha256(key)))
        };
        processes
            .flatten()
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .filter(is_orphan)
            .collect()
    };
    let found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
    for id in &found {
        tracing::warn!(
            process = id.as_raw_nonzero(),
            "killing an orphaned process of a killed core"
        );
        // Each leads its own process group.
        if let Err(error) = kill_process_group(*id, Signal::KILL) {
            tracing::warn!(process = id.as_raw_nonzero(), %error, "an orphaned process cannot be killed");
        }
    }
    let gone = async {
        // Empty once a process has ended, even before it has been reaped.
        while found.iter().any(|id| !environment_of(*id).is_empty()) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    if tokio::time::timeout(GONE_TIMEOUT, gone).await.is_err() {
        tracing::warn!("orphaned processes of a killed core have not ended");
    }
}

/// Empty if it cannot be read.
fn environment_of(id: Pid) -> Vec<u8> {
    std::fs::read(format!("/proc/{}/environ", id.as_raw_nonzero())).unwrap_or_default()
}

/// The extension's key in the content of an `environ` file.
fn key_in(environment: &[u8]) -> Option<&[u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(PREFIX.as_bytes())?.strip_prefix(b"KEY="))
}
