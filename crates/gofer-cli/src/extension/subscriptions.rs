//! Of each subscription of an extension: when it last fired, when it will next, and its last error.

use std::io::{self, Write as _};

use gofer_proto::embedded::{
    ListSubscriptionStatesRequest, ListSubscriptionStatesResponse, ListedSubscription,
    SubscriptionError, SubscriptionKey, SubscriptionState,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, note, rfc3339};
use crate::session::Session;

/// What people are shown; more than anyone reads.
const SHOWN: usize = 100;

/// A page of those in JSON.
const PAGE: usize = 1000;

/// A page of them; `None` if this Gofer does not report them.
async fn page(
    session: &Session,
    extension: &str,
    after: Option<SubscriptionKey>,
    limit: usize,
) -> Result<Option<ListSubscriptionStatesResponse>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(0);
    let extension_name = extension.to_owned();
    let request = ListSubscriptionStatesRequest { extension_name, after, limit };
    match session.embedded().list_subscription_states(request).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// A table of the first ones.
pub(super) async fn show(session: &Session, extension: &str) -> Result<(), Failure> {
    let Some(page) = page(session, extension, None, SHOWN).await? else { return Ok(()) };
    if page.subscriptions.is_empty() {
        return Ok(note(
            "No pipelines are subscribed to it; `gofer extension sub` subscribes one.",
        )?);
    }
    session.out.text("\n")?;
    session.out.list(&page.subscriptions, "")?;
    if page.has_more {
        let more = format!("There are more; `gofer extension get {extension} --json` lists all.");
        note(&more)?;
    }
    Ok(())
}

/// Writes a JSON object and, as its `subscriptions`, all of them, however many there are.
pub(super) async fn write_json(
    session: &Session,
    extension: &str,
    object: Value,
) -> Result<(), Failure> {
    // Before anything is written.
    let Some(mut page) = page(session, extension, None, PAGE).await? else {
        let mut object = object;
        object["subscriptions"] = Value::Null;
        return Ok(session.out.document(&object)?);
    };
    let mut document = Document::begin(&object)?;
    loop {
        let last = page.subscriptions.last().and_then(|it| it.key.clone());
        for subscription in &page.subscriptions {
            document.write(&subscription.json())?;
        }
        if !page.has_more || last.is_none() {
            return Ok(document.end()?);
        }
        page = self::page(session, extension, last, PAGE).await?.unwrap_or_default();
    }
}

/// A JSON object that is written while its array of subscriptions is read.
struct Document {
    out: io::BufWriter<io::Stdout>,
    /// What follows the array.
    rest: String,
    is_empty: bool,
}

impl Document {
    /// Keys are in alphabetical order, as in other documents.
    fn begin(object: &Value) -> io::Result<Self> {
        const KEY: &str = "subscriptions";
        let mut out = io::BufWriter::new(io::stdout());
        let mut rest = String::new();
        write!(out, "{{")?;
        let mut comma = "";
        for (key, value) in object.as_object().into_iter().flatten() {
            let property = format!("\n  {}: {}", json!(key), indented(value, 2));
            if key.as_str() < KEY {
                write!(out, "{comma}{property}")?;
                comma = ",";
            } else {
                rest = format!("{rest},{property}");
            }
        }
        write!(out, "{comma}\n  \"{KEY}\": [")?;
        Ok(Self { out, rest, is_empty: true })
    }

    fn write(&mut self, item: &Value) -> io::Result<()> {
        let comma = if std::mem::replace(&mut self.is_empty, false) { "" } else { "," };
        write!(self.out, "{comma}\n    {}", indented(item, 4))
    }

    fn end(mut self) -> io::Result<()> {
        let end = if self.is_empty { "]" } else { "\n  ]" };
        writeln!(self.out, "{end}{}\n}}", self.rest)?;
        self.out.flush()
    }
}

/// JSON whose further lines are indented by so many spaces.
fn indented(value: &Value, by: usize) -> String {
    // Line breaks in texts are escaped.
    format!("{value:#}").replace('\n', &format!("\n{:by$}", ""))
}

impl Row for ListedSubscription {
    const HEADER: &'static [&'static str] =
        &["PIPELINE", "LABEL", "STATE", "LAST TICK", "NEXT TICK", "LAST ERROR"];

    fn cells(&self) -> Vec<Cell> {
        let SubscriptionKey { namespace_id, pipeline_id, label } =
            self.key.clone().unwrap_or_default();
        let state = self.state.clone().unwrap_or_default();
        let time = |at: Option<i64>| Cell::from(at.map_or_else(|| "-".to_owned(), moment));
        vec![
            format!("{namespace_id}/{pipeline_id}").into(),
            label.into(),
            condition(self).into(),
            time(state.last_tick),
            time(state.next_tick),
            error(&self.problem, &state).into(),
        ]
    }

    fn json(&self) -> Value {
        let SubscriptionKey { namespace_id, pipeline_id, label } =
            self.key.clone().unwrap_or_default();
        let state = self.state.as_ref();
        let last_error = state.and_then(|it| it.last_error.as_ref());
        json!({
            "namespace": namespace_id,
            "pipeline": pipeline_id,
            "label": label,
            "state": condition(self),
            "last_tick": state.and_then(|it| it.last_tick).and_then(rfc3339),
            "next_tick": state.and_then(|it| it.next_tick).and_then(rfc3339),
            "last_error": last_error.map(|it| json!({
                "message": it.message,
                "at": rfc3339(it.at),
                "waiting": it.is_waiting,
                "restarts": it.restarts,
            })),
            // Why it is not in effect.
            "problem": Some(&self.problem).filter(|it| !it.is_empty()),
        })
    }
}

/// As it is documented for administrators.
fn condition(subscription: &ListedSubscription) -> &'static str {
    let ListedSubscription { state, problem, is_disabled, .. } = subscription;
    match state {
        _ if *is_disabled => "disabled",
        _ if !problem.is_empty() => "inactive",
        None => "unknown",
        Some(state) if state.last_error.as_ref().is_some_and(|it| it.is_waiting) => "failed",
        Some(state) if state.has_returned => "returned",
        Some(_) => "active",
    }
}

fn error(problem: &str, state: &SubscriptionState) -> String {
    if !problem.is_empty() {
        return problem.to_owned();
    }
    let Some(SubscriptionError { message, at, is_waiting, restarts }) = &state.last_error else {
        return "-".to_owned();
    };
    let waits = if *is_waiting { ", waits to be restarted" } else { "" };
    let restarted = match restarts {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        restarts => format!(", restarted {restarts} times"),
    };
    format!("{message} ({}{restarted}{waits})", moment(*at))
}
