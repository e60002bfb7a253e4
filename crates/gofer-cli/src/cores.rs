//! The cores that the user of this program has started, in the file `cores.toml` beside the
//! configuration file: where each listens, its certificate, and its first management token.
//!
//! `gofer service start` writes it, so that other commands need no login. They use it for an
//! address that the configuration file says nothing about. A token is only ever sent to whoever has
//! the key of the certificate beside it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output::note;
use crate::settings::invalid;

const FILE: &str = "cores.toml";

/// More than anyone uses at a time; those that were started last are kept.
const MOST: usize = 100;

/// How long to wait for another process that changes the file, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A core that was started with this program.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct StartedCore {
    /// Where clients on this machine reach it.
    pub(crate) address: String,
    /// None if it is in memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<PathBuf>,
    /// What it was made with: a management token.
    pub(crate) token: String,
    /// As PEM.
    pub(crate) certificate: String,
}

impl StartedCore {
    fn is_same(&self, store: Option<&Path>, address: &str) -> bool {
        match store {
            Some(store) => self.store.as_deref() == Some(store),
            None => self.store.is_none() && self.address == address,
        }
    }
}

/// All of them; the one that was started last is the first.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct StartedCores {
    #[serde(default, rename = "core")]
    cores: Vec<StartedCore>,
}

/// The file beside a configuration file.
pub(crate) fn file(configuration: &Path) -> PathBuf {
    configuration.with_file_name(FILE)
}

impl StartedCores {
    /// None if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        toml::from_str(&text).map_err(|error| {
            let why = invalid(&error);
            Failure::usage(format!("`{}` is {why}", path.display())).hint(
                "`gofer service start` writes it; move it away, and start the core with \
                 --new-token for another token",
            )
        })
    }

    /// The one that was started last, at any address or at this one.
    pub(crate) fn last(&self, address: Option<&str>) -> Option<&StartedCore> {
        let is_there = |core: &&StartedCore| {
            address.is_none_or(|address| normal(&core.address) == normal(address))
        };
        self.cores.iter().find(is_there)
    }

    /// Adds or replaces a core, as the one that was started last.
    pub(crate) fn save(path: &Path, core: StartedCore) -> Result<(), Failure> {
        change(path, |cores| {
            cores.retain(|it| !it.is_same(core.store.as_deref(), &core.address));
            cores.insert(0, core);
            cores.truncate(MOST);
            true
        })
    }

    /// A core with a store was started again, perhaps at another address: it is the last one now,
    /// if it is in the file.
    pub(crate) fn started_again(
        path: &Path,
        store: &Path,
        address: &str,
        certificate: &str,
    ) -> Result<(), Failure> {
        change(path, |cores| {
            let known = cores.iter().position(|it| it.is_same(Some(store), address));
            let Some(at) = known else { return false };
            let mut core = cores.remove(at);
            address.clone_into(&mut core.address);
            certificate.clone_into(&mut core.certificate);
            cores.insert(0, core);
            true
        })
    }

    /// Removes a core in memory, whose token is gone with it.
    pub(crate) fn remove(path: &Path, token: &str) -> Result<(), Failure> {
        change(path, |cores| {
            let before = cores.len();
            cores.retain(|it| it.token != token);
            cores.len() < before
        })
    }
}

/// Host and port; a machine has several names for itself, and a core's certificate has all of them.
fn normal(address: &str) -> (&str, &str) {
    match address.rsplit_once(':') {
        Some(("localhost" | "127.0.0.1" | "[::1]", port)) => ("localhost", port),
        Some((host, port)) => (host, port),
        None => (address, ""),
    }
}

/// Changes the file, for its owner alone; whole or not at all, and one process after the other.
/// Blocks meanwhile.
fn change(path: &Path, change: impl FnOnce(&mut Vec<StartedCore>) -> bool) -> Result<(), Failure> {
    change_within(PATIENCE, path, change)
}

fn change_within(
    patience: Duration,
    path: &Path,
    change: impl FnOnce(&mut Vec<StartedCore>) -> bool,
) -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::file("write", path, &error);
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(refused)?;
    let _lock = lock(path, patience).map_err(refused)?;
    let mut all = StartedCores::read(path)?;
    if !change(&mut all.cores) {
        return Ok(());
    }
    let text = toml::to_string(&all).map_err(|error| {
        Failure::new(format!("`{}` cannot be written: {error}", path.display()))
    })?;
    gofer_core::internal::replace(path, text.as_bytes(), 0o600).map_err(refused)
}

/// Locks a file beside this one, which is itself replaced. It is one that only its owner can open,
/// since others could keep it locked. None if it stays locked, or if the file system has no locks:
/// then two cores that are started at once may lose one entry.
fn lock(path: &Path, patience: Duration) -> io::Result<Option<File>> {
    let path = path.with_extension("lock");
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if since.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                // Not worth failing for, if standard error is closed.
                let text = format!(
                    "`{}` is locked by another process; continuing without the lock.",
                    path.display()
                );
                let _ = note(&text);
                return Ok(None);
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
