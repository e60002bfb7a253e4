//! `gofer service`: a core of one's own, and the Gofer that is talked to.

pub(crate) mod start;

use clap::Subcommand;
use gofer_proto as proto;
use serde_json::json;

use crate::failure::Failure;
use crate::session::Session;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Starts a Gofer core and keeps it running until it is stopped.
    #[command(after_help = "\
Example:
  gofer service start --listen 127.0.0.1:8080 --store /var/lib/gofer/gofer.redb
  gofer service start --external-events 127.0.0.1:8081 --run-command ./on-run.sh --quiet

It stops in order on SIGINT (Ctrl-C) and SIGTERM, its extensions first. The key
that its secrets are encrypted with is in GOFER_ENCRYPTION_KEY, 64 hexadecimal
digits, or in a file beside the store that is made where there is none.")]
    Start(Box<start::Start>),
    /// Shows which Gofer is talked to.
    #[command(after_help = "Example:\n  gofer service info")]
    Info,
    /// Has Gofer ignore what starts runs, or heed it again.
    #[command(after_help = "Example:\n  gofer service toggle-events")]
    ToggleEvents,
}

impl Command {
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
            Self::ToggleEvents => {
                let request = proto::ToggleEventIngressRequest {};
                let answer = session.api().toggle_event_ingress(request).await?;
                let ignores = answer.into_inner().value;
                let sentence = if ignores {
                    "Gofer ignores what starts runs: none can be started."
                } else {
                    "Gofer heeds what starts runs."
                };
                Ok(session.out.done(sentence, &json!({ "ignores": ignores }))?)
            }
        }
    }
}
