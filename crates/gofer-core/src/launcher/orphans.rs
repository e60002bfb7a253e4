//! Kills orphans: processes of extensions that outlived an earlier core, which was killed.
//!
//! They are identified by the key in their environment, whose digest is in the store, so a process
//! that merely reuses the ID is left alone. What an extension has started has the same environment
//! unless it was given another one, and is found whether the extension itself is still there or not;
//! all of its process group goes with it. On systems without `/proc/<pid>/environ`, and where
//! `/proc` is that of another PID namespace, no orphans are found.
//!
//! Whatever has a core that may be running is no orphan.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process, kill_process_group};

use super::recorded::Recorded;
use gofer_net::auth::sha256;
use gofer_sdk::internal::PREFIX;

/// How long killed orphans may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two searches.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What is left of a launch in processes that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// They were killed and have not ended yet.
    Killed,
    /// They were left alone, since their core may be running.
    Owned,
}

/// Kills the processes of these launches that are orphans, and waits until they have ended and
/// released their ports and files.
pub(crate) async fn end_orphans(launches: Vec<Recorded>) -> Vec<(Recorded, Left)> {
    if launches.is_empty() {
        return Vec::new();
    }
    let digests: Arc<HashSet<_>> = Arc::new(launches.iter().map(|it| it.digest).collect());
    let owned: HashSet<_> =
        launches.iter().filter(|it| it.may_have_owner()).map(|it| it.digest).collect();
    let mut found = HashMap::new();
    let mut killed = HashSet::new();
    let all = async {
        loop {
            let digests = Arc::clone(&digests);
            // Blocking: reads a file for each process of the system.
            let search = tokio::task::spawn_blocking(move || find(&digests));
            found = search.await.unwrap_or_default();
            let orphans = found.iter().filter(|(_, digest)| !owned.contains(*digest));
            let mut none = true;
            for (id, _) in orphans {
                none = false;
                if killed.insert(*id) {
                    end(*id);
                }
            }
            if none {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    if tokio::time::timeout(GONE_TIMEOUT, all).await.is_err() {
        tracing::warn!("orphaned processes of a killed core have not ended");
    }
    let found: HashSet<_> = found.into_values().collect();
    let left = |digest: &[u8; 32]| match (found.contains(digest), owned.contains(digest)) {
        (false, _) => Left::Nothing,
        (true, false) => Left::Killed,
        (true, true) => Left::Owned,
    };
    launches.into_iter().map(|it| (left(&it.digest), it)).map(|(left, it)| (it, left)).collect()
}

/// Those that have not ended yet, with the digest of their key.
fn find(digests: &HashSet<[u8; 32]>) -> HashMap<Pid, [u8; 32]> {
    find_in(Path::new("/proc"), digests)
}

fn find_in(proc: &Path, digests: &HashSet<[u8; 32]>) -> HashMap<Pid, [u8; 32]> {
    let this = std::fs::read_link(proc.join("self"));
    // In that of another PID namespace, IDs belong to other processes than here.
    let is_ours = this.is_ok_and(|it| it.as_os_str() == &*std::process::id().to_string());
    let Ok(processes) = std::fs::read_dir(proc) else { return HashMap::new() };
    if !is_ours {
        return HashMap::new();
    }
    let digest_of = |id: Pid| {
        let environment = environment_of(&proc.join(id.as_raw_nonzero().to_string()));
        let digest = sha256(key_in(&environment)?);
        digests.contains(&digest).then_some((id, digest))
    };
    processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter_map(digest_of)
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
fn environment_of(process: &Path) -> Vec<u8> {
    std::fs::read(process.join("environ")).unwrap_or_default()
}

/// The extension's key in the content of an `environ` file.
fn key_in(environment: &[u8]) -> Option<&[u8]> {
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(PREFIX.as_bytes())?.strip_prefix(b"KEY="))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::tests::Scratch;

    #[test]
    fn processes_of_another_pid_namespace_are_not_found() {
        let proc = Scratch::new();
        let process = proc.path("4321");
        std::fs::create_dir(&process).unwrap();
        std::fs::write(process.join("environ"), format!("A=b\0{PREFIX}KEY=the key\0")).unwrap();
        let digests = HashSet::from([sha256(b"the key")]);
        let found = |this: u32| {
            let link = proc.path("self");
            let _ = std::fs::remove_file(&link);
            symlink(this.to_string(), &link).unwrap();
            find_in(process.parent().unwrap(), &digests).into_values().collect::<HashSet<_>>()
        };
        assert_eq!(found(std::process::id()), digests);
        assert_eq!(found(std::process::id() + 1), HashSet::new());
    }
}
