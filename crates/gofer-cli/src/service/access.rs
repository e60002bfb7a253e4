//! How the user who starts a core gets access to it: its first management token is kept for them.

use std::path::{Path, PathBuf};

use clap::Args;
use gofer_core::Core;
use gofer_net::log::LogWriter;
use tokio::task::block_in_place;

use super::start::StartCore;
use crate::cores::{self, StartedCore, StartedCores};
use crate::failure::Failure;
use crate::output::say;
use crate::settings::{Connection, Settings};

/// Who may do what, apart from tokens.
#[derive(Args)]
pub(crate) struct AccessArgs {
    /// Let management tokens install programs of this machine, as images `exec:<path>`. They run
    /// as the user that the core runs as.
    #[arg(long)]
    pub(super) allow_programs: bool,
    /// Let the first client that connects to --listen create the first management token, with
    /// `BootstrapToken`, instead of keeping one for you.
    #[arg(long)]
    pub(super) allow_bootstrap: bool,
    /// Create a management token and print it, in case the last one was lost.
    #[arg(long)]
    pub(super) new_token: bool,
}

#[derive(Default)]
pub(super) struct Access {
    /// The file that the first token was kept in by this start.
    kept: Option<Kept>,
    /// Why it could not be.
    problem: Option<String>,
    in_memory: bool,
}

struct Kept {
    file: PathBuf,
    token: String,
    /// Why commands do not use it.
    overridden: Option<String>,
}

impl Access {
    /// Keeps the first token, if this is the first start; the core goes on if that fails.
    /// `address` is where clients on this machine reach the core.
    pub(super) async fn of(
        start: &StartCore,
        core: &Core,
        address: String,
        connection: &Connection,
        log: &LogWriter,
    ) -> Self {
        let mut access = Self { in_memory: start.in_memory, ..Self::default() };
        let keeping = access.keep(start, core, address, connection, log).await;
        access.problem = keeping.err().map(|failure| failure.message().to_owned());
        access
    }

    async fn keep(
        &mut self,
        start: &StartCore,
        core: &Core,
        address: String,
        connection: &Connection,
        log: &LogWriter,
    ) -> Result<(), Failure> {
        // It exists by now, and has one name whatever it was called.
        let store = (!start.in_memory).then(|| std::fs::canonicalize(&start.store)).transpose()?;
        if let (Some(store), Ok(configuration)) = (&store, connection.file()) {
            let file = cores::file(&configuration);
            let again = || again(&file, store, &address, core.certificate());
            if let Err(failure) = block_in_place(again) {
                say(log, &format!("{}; commands may not find this core.", failure.message()));
            }
        }
        if start.access.allow_bootstrap {
            return Ok(());
        }
        let mut kept = None;
        let keep = |token: &str| {
            let file = cores::file(&connection.file()?);
            let core = StartedCore {
                address: address.clone(),
                store,
                token: token.to_owned(),
                certificate: core.certificate().to_owned(),
            };
            block_in_place(|| StartedCores::save(&file, core))?;
            kept = Some((file, token.to_owned()));
            Ok::<_, Failure>(())
        };
        core.make_first_token(keep).await?;
        self.kept = kept.map(|(file, token)| Kept {
            overridden: overridden(connection, &token, &address),
            file,
            token,
        });
        Ok(())
    }

    /// The file with the first token, if it was made by this start.
    pub(super) fn kept_in(&self) -> Option<String> {
        self.kept.as_ref().map(|kept| kept.file.display().to_string())
    }

    pub(super) fn overridden(&self) -> Option<&str> {
        self.kept.as_ref()?.overridden.as_deref()
    }

    /// Says so if nobody has a token.
    pub(super) fn warn(&self, log: &LogWriter) {
        if let Some(problem) = &self.problem {
            say(
                log,
                &format!(
                    "The first management token could not be kept: {problem}. Set another configuration \
                 file with GOFER_CONFIG, or have a token printed with --new-token."
                ),
            );
        }
    }

    /// Removes the token of a core in memory, with which it ends.
    pub(super) fn forget(&self) {
        if let (true, Some(kept)) = (self.in_memory, &self.kept) {
            // It is useless, and does no harm.
            let _ = block_in_place(|| StartedCores::remove(&kept.file, &kept.token));
        }
    }
}

/// Only if there is a file: one is not made for this.
fn again(file: &Path, store: &Path, address: &str, certificate: &str) -> Result<(), Failure> {
    if file.exists() {
        StartedCores::started_again(file, store, address, certificate)?;
    }
    Ok(())
}

/// What to do to use this core, if commands use another address or token.
fn overridden(connection: &Connection, token: &str, address: &str) -> Option<String> {
    let settings = Settings::resolve(connection).ok()?;
    if settings.token.as_deref() == Some(token) {
        return None;
    }
    let file = connection.file().ok()?.display().to_string();
    Some(if settings.address == address {
        format!(
            "They use another token, which {file} or the environment sets: `gofer config unset \
             token` removes it from the file."
        )
    } else {
        format!(
            "They use {}, which {file} or the environment sets: `--address {address}` is this core.",
            settings.address
        )
    })
}
