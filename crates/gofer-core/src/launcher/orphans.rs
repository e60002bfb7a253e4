//! Kills orphans: processes of extensions that outlived an earlier core, which was killed.
//!
//! They are identified by the key in their environment, whose digest is in the store, so a process
//! that merely reuses the ID is left alone. What an extension has started has the same environment
//! unless it was given another one, and is found whether the extension itself is still there or not;
//! all of its process group goes with it. On systems without `/proc/<pid>/environ` no orphans are
//! found.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process, kill_process_group};

use gofer_net::auth::sha256;
use gofer_sdk::internal::PREFIX;

/// How long killed orphans may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two searches.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Kills the processes that were launched with keys of these digests, and waits until they have
/// ended and released their ports and files.
pub(crate) async fn end_orphans(digests: Vec<[u8; 32]>) {
    if digests.is_empty() {
        return;
    }
    let digests: Arc<HashSet<[u8; 32]>> = Arc::new(digests.into_iter().collect());
    let mut killed = HashSet::new();
    let all = async {
        loop {
            let digests = Arc::clone(&digests);
            // Blocking: reads a file for each process of the system.
            let search = tokio::task::spawn_blocking(move || find(&digests));
            let found = search.await.unwrap_or_default();
            if found.is_empty() {
                break;
            }
            for id in found.into_iter().filter(|id| killed.insert(*id)) {
                end(id);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    if tokio::time::timeout(GONE_TIMEOUT, all).await.is_err() {
        tracing::warn!("orphaned processes of a killed core have not ended");
    }
}

/// Those that have not ended yet.
fn find(digests: &HashSet<[u8; 32]>) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_orphan =
        |id: &Pid| key_in(&environment_of(*id)).is_some_and(|key| digests.contains(&sha256(key)));
    processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(is_orphan)
        .collect()
}

/// Kills a process and its group, which its extension leads or has led, or it does itself.
fn end(id: Pid) {
    let process = id.as_raw_nonzero();
    tracing::warn!(process, "killing an orphaned process of a killed core");
    let group = getpgid(Some(id)).ok().filter(|group| *group != getpgrp());
    if let Some(group) = group {
        // Fails if all of them have just ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
    match kill_process(id, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::warn!(process, %error, "an orphaned process cannot be killed"),
    }
}

/// Empty if it cannot be read, or the process has ended, even before it has been waited for.
fn environment_of(id: Pid) -> Vec<u8> {
    std::fs::read(format!("/proc/{}/environ", id.as_raw_nonzero())).unwrap_or_default()
}

/// The extension's key in the content of an `environ` file.
fn key_in(environment: &[u8]) -> Option<&[u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(PREFIX.as_bytes())?.strip_prefix(b"KEY="))
}
