//! `gofer event`: shown as they come, so that none has to be kept.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use serde_json::{Value, json};
use tonic::{Code, Streaming};

use crate::failure::Failure;
use crate::output::{moment, note, rfc3339, visible};
use crate::session::Session;

/// Between attempts to go on with the events of a Gofer that went away.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Lists what happened, oldest first.
    #[command(after_help = "\
Example:
  gofer event list --follow
  gofer event list --reverse --limit 10
  gofer event list --follow --json | jq .type

With --json it is one array; with --follow, one event per line.")]
    List(List),
    /// Shows one event.
    #[command(after_help = "Example:\n  gofer event get 42")]
    Get {
        /// What it is known by.
        id: i64,
    },
}

#[derive(Args)]
pub(crate) struct List {
    /// Go on with what happens from now on, across an outage of Gofer too.
    #[arg(long, short)]
    follow: bool,
    /// Newest first.
    #[arg(long, conflicts_with = "follow")]
    reverse: bool,
    /// How many at most.
    #[arg(long)]
    limit: Option<usize>,
}

impl Command {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(list) => run_list(&list, session).await,
            Self::Get { id } => {
                let answer = session.api().get_event(proto::GetEventRequest { id }).await;
                let event = answer.map_err(|status| {
                    Failure::from(status)
                        .hint_on(Code::NotFound, "`gofer event list` shows those that are kept")
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

/// What has been shown.
struct Shown {
    json: bool,
    follow: bool,
    count: usize,
    last: i64,
}

async fn run_list(list: &List, session: &Session) -> Result<(), Failure> {
    let mut shown = Shown { json: session.out.json, follow: list.follow, count: 0, last: 0 };
    let limit = list.limit.unwrap_or(usize::MAX);
    shown.begin()?;
    let mut events = open(list, session).await?;
    while shown.count < limit {
        match events.message().await {
            Ok(Some(answer)) => {
                let Some(event) = answer.event else { continue };
                // Gofer begins at the beginning again after an outage.
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
    list: &List,
    session: &Session,
) -> Result<Streaming<proto::ListEventsResponse>, tonic::Status> {
    let request = proto::ListEventsRequest { reverse: list.reverse, follow: list.follow };
    Ok(session.api().list_events(request).await?.into_inner())
}

/// Waits until Gofer is back, for as long as that takes.
async fn reopen(
    list: &List,
    session: &Session,
    status: Option<tonic::Status>,
) -> Result<Streaming<proto::ListEventsResponse>, Failure> {
    // A refusal will not become another answer.
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
    note("Gofer went away; waiting for it to come back.")?;
    loop {
        tokio::time::sleep(AGAIN).await;
        match open(list, session).await {
            Ok(events) => return Ok(events),
            Err(status) if is_refusal(&status) => return Err(status.into()),
            Err(_) => {}
        }
    }
}

fn json_of(event: &proto::Event) -> Value {
    // JSON inside of JSON, where it is any.
    let details = serde_json::from_str(&event.details);
    json!({
        "id": event.id,
        "type": event.r#type,
        "emitted": rfc3339(event.emitted),
        "details": details.unwrap_or_else(|_| Value::String(event.details.clone())),
    })
}

impl Shown {
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
        // Who follows wants to see it now.
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
