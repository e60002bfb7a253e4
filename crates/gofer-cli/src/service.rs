//! `gofer service`: starting a core, and the Gofer that commands connect to.

mod access;
mod backup;
pub(crate) mod start;

use clap::Subcommand;
use gofer_proto as proto;
use serde_json::json;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum ServiceCommand {
    /// Run a Gofer core until it is stopped.
    #[command(after_help = "\
Example:
  gofer service start --listen 127.0.0.1:8080 --store /var/lib/gofer/gofer.redb
  gofer service start --external-events 127.0.0.1:8081 --run-command ./on-run.sh --quiet

At the first start of a store, its first management token is kept in cores.toml, in
the directory of the configuration file, for you alone. Your commands use it, and
the core that was started last, unless the environment or the file sets another.

SIGINT (Ctrl-C) and SIGTERM stop the extensions, then the core. Secrets are
encrypted with the key in GOFER_ENCRYPTION_KEY, 64 hexadecimal digits, or else
with one in a file next to the store, which is created if it does not exist.")]
    Start(Box<start::StartCore>),
    /// Show the address and version of the Gofer you are connected to.
    #[command(after_help = "Example:\n  gofer service info")]
    Info,
    /// Copy the store of a core while it goes on.
    #[command(after_help = "\
Example:
  gofer service backup /var/backups/gofer-monday.redb

Everything that was acknowledged before is in the copy, which is of one moment. It
is a store: to restore it, stop the core and put the files where --store points, or
start a core on them with --store FILE. Requires a management token, and a core
with a store in a file. If it fails, it leaves no file.

FILE.key is the key of the secrets in it: whoever has both can read them, and the
tokens of clients go on working. A key that was set with GOFER_ENCRYPTION_KEY is not
written, and is needed to start a core on the copy.")]
    Backup(backup::Backup),
    /// Stop Gofer from starting runs, or allow it again.
    #[command(after_help = "Example:\n  gofer service toggle-events")]
    ToggleEvents,
}

impl ServiceCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            // Needs no session; see `cli`.
            Self::Start(_) => Ok(()),
            Self::Info => {
                let answer = session.api().get_system_info(proto::GetSystemInfoRequest {}).await?;
                let info = answer.into_inner();
                let address = &session.settings.address;
                let json =
                    json!({ "address": address, "version": info.semver, "commit": info.commit });
                let lines = vec![
                    ("address", address.clone().into()),
                    ("version", info.semver.into()),
                    ("commit", info.commit.into()),
                ];
                Ok(session.out.details(lines, &json)?)
            }
            Self::Backup(command) => backup::run(session, command).await,
            Self::ToggleEvents => {
                let request = proto::ToggleEventIngressRequest {};
                let answer = session.api().toggle_event_ingress(request).await?;
                let ignores = answer.into_inner().value;
                let sentence = if ignores {
                    "Gofer starts no runs until you toggle this again."
                } else {
                    "Gofer starts runs again."
                };
                Ok(session.out.done(sentence, &json!({ "ignores": ignores }))?)
            }
        }
    }
}
