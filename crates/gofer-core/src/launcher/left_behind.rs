//! Ends the child processes that an earlier, killed core left behind.
//!
//! They are known by the key in their environment, of which the store has the
//! digest: a process that merely has the same number is left alone. Where the
//! system does not show the environment of processes as files, nothing is found.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use gofer_net::auth::sha256;
use gofer_sdk::internal::PREFIX;

/// How long they may take to be gone; they are killed.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at whether they are gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Kills the processes that were started with keys of these digests, and waits
/// for their end: what they listened on and wrote to is free then.
pub(crate) async fn end_left_behind(digests: Vec<[u8; 32]>) {
    if digests.is_empty() {
        return;
    }
    // It reads a file for each process there is.
    let find = move || -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let started_by_us = |id: &Pid| {
            key_in(&environment_of(*id)).is_some_and(|key| digests.contains(&sha256(key)))
        };
        processes
            .flatten()
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .filter(started_by_us)
            .collect()
    };
    let found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
    for id in &found {
        tracing::warn!(process = id.as_raw_nonzero(), "a process of a killed core is ended");
        // Each was made the leader of a group of its own.
        if let Err(error) = kill_process_group(*id, Signal::KILL) {
            tracing::warn!(process = id.as_raw_nonzero(), %error, "it cannot be ended");
        }
    }
    let gone = async {
        // Who has ended shows none, even before somebody has asked how.
        while found.iter().any(|id| !environment_of(*id).is_empty()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if tokio::time::timeout(GONE_TIMEOUT, gone).await.is_err() {
        tracing::warn!("processes of a killed core are still there");
    }
}

/// Empty where it cannot be seen.
fn environment_of(id: Pid) -> Vec<u8> {
    std::fs::read(format!("/proc/{}/environ", id.as_raw_nonzero())).unwrap_or_default()
}

/// The extension's key in an environment as the system shows it.
fn key_in(environment: &[u8]) -> Option<&[u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(PREFIX.as_bytes())?.strip_prefix(b"KEY="))
}
