//! `gofer event`. Events are printed as they arrive, without being buffered.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use serde_json::{Value, json};
use tonic::{Code, Streaming};

use crate::failure::Failure;
use crate::output::{moment, note, rfc3339, visible};
use crate::session::Session;

/// Between attempts to reconnect to a Gofer that went away.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(crate) enum EventCommand {
    /// List events, oldest first.
    #[command(after_help = "\
Example:
  gofer event list --follow
  gofer event list --reverse --limit 10
  gofer event list --follow --json | jq .type

--json prints an array; with --follow, one event per line.")]
    List(ListEvents),
    /// Show an event.
    #[command(after_help = "Example:\n  gofer event get 42")]
    Get {
        /// Number of the event.
        id: i64,
    },
}

#[derive(Args)]
pub(crate) struct ListEvents {
    /// Keep printing new events, even across an outage of Gofer.
    #[arg(long, short)]
    follow: bool,
    /// Show the newest first.
    #[arg(long, conflicts_with = "follow")]
    reverse: bool,
    /// Maximum number to show.
    #[arg(long)]
    limit: Option<usize>,
}

impl EventCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(list) => run_list(&list, session).await,
            Self::Get { id } => {
                let answer = session.api().get_event(proto::GetEventRequest { id }).await;
                let event = answer.map_err(|status| {
                    Failure::from(status).hint_on(
                        Code::NotFound,
                        "`gofer event list` shows the events that are kept",
                    )
                })?;
                let event = event.into_inner().event.unwrap_or_default();
                let lines = vec![
                    ("event", event.id.to_string().into()),
                    ("emitted", moment(event.emitted).into()),
                    ("type", event.r#type.clone().into()),
                    ("details", event.details.clone().into()),
                ];
                Ok(session.out.details(lines, &json_of(&event))?)
            }
        }
    }
}

/// Prints events, and remembers how many and which was the last.
struct EventPrinter {
    json: bool,
    follow: bool,
    count: usize,
    last: i64,
}

async fn run_list(list: &ListEvents, session: &Session) -> Result<(), Failure> {
    let mut shown = EventPrinter { json: session.out.json, follow: list.follow, count: 0, last: 0 };
    let limit = list.limit.unwrap_or(usize::MAX);
    shown.begin()?;
    let mut events = open(list, session).await?;
    while shown.count < limit {
        match events.message().await {
            Ok(Some(answer)) => {
                let Some(event) = answer.event else { continue };
                // After an outage the stream starts with the first event again.
                if !list.reverse && event.id <= shown.last {
                    continue;
                }
                shown.event(&event)?;
            }
            Ok(None) if !list.follow => break,
            Ok(None) => events = reopen(list, session, None).await?,
            Err(status) if list.follow => events = reopen(list, session, Some(status)).await?,
            Err(status) => return Err(status.into()),
        }
    }
    Ok(shown.end()?)
}

async fn open(
    list: &ListEvents,
    session: &Session,
) -> Result<Streaming<proto::ListEventsResponse>, tonic::Status> {
    let request = proto::ListEventsRequest { reverse: list.reverse, follow: list.follow };
    Ok(session.api().list_events(request).await?.into_inner())
}

/// Reconnects, and waits as long as that takes.
async fn reopen(
    list: &ListEvents,
    session: &Session,
    status: Option<tonic::Status>,
) -> Result<Streaming<proto::ListEventsResponse>, Failure> {
    // Trying again would not change these.
    let is_refusal = |status: &tonic::Status| {
        matches!(
            status.code(),
            Code::Unauthenticated
                | Code::PermissionDenied
                | Code::InvalidArgument
                | Code::Unimplemented
        )
    };
    if let Some(status) = status.filter(is_refusal) {
        return Err(status.into());
    }
    note("Lost the connection to Gofer; reconnecting.")?;
    loop {
        tokio::time::sleep(RECONNECT_DELAY).await;
        match open(list, session).await {
            Ok(events) => return Ok(events),
            Err(status) if is_refusal(&status) => return Err(status.into()),
            Err(_) => {}
        }
    }
}

fn json_of(event: &proto::Event) -> Value {
    // The details are JSON themselves, usually.
    let details = serde_json::from_str(&event.details);
    json!({
        "id": event.id,
        "type": event.r#type,
        "emitted": rfc3339(event.emitted),
        "details": details.unwrap_or_else(|_| Value::String(event.details.clone())),
    })
}

impl EventPrinter {
    fn begin(&self) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        match (self.json, self.follow) {
            (true, false) => write!(out, "["),
            (true, true) => Ok(()),
            (false, _) => {
                let bold = anstyle::Style::new().bold();
                writeln!(
                    out,
                    "{bold}{:<7} {:<20}  {:<32}  DETAILS{bold:#}",
                    "EVENT", "EMITTED", "TYPE"
                )
            }
        }
    }

    fn event(&mut self, event: &proto::Event) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        match (self.json, self.follow) {
            (true, true) => writeln!(out, "{}", json_of(event))?,
            (true, false) => {
                let comma = if self.count > 0 { "," } else { "" };
                write!(out, "{comma}\n{}", json_of(event))?;
            }
            (false, _) => writeln!(
                out,
                "{:<7} {:<20}  {:<32}  {}",
                event.id,
                moment(event.emitted),
                visible(&event.r#type),
                visible(&event.details),
            )?,
        }
        self.count += 1;
        self.last = event.id;
        // A follower wants to see it at once.
        if self.follow { out.flush() } else { Ok(()) }
    }

    fn end(&self) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        if self.json && !self.follow {
            writeln!(out, "{}]", if self.count > 0 { "\n" } else { "" })?;
        }
        out.flush()
    }
}
