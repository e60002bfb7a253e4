//! Logs as JSON lines on standard error, with Gofer's levels and the extension's name on each line.
//!
//! Installed by [`run`](crate::run) alone. The library itself only emits `tracing` events; an
//! author that brings a subscriber uses [`Server`](crate::Server), which installs none.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write as _};

use gofer_net::log::{LogWriter, is_transport};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::Record;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{FormatEvent, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

use super::system_config::LogLevel;

/// Logs for the rest of the process, unless a subscriber is installed already. A log that cannot
/// be written, or whose reader is slow, holds up nothing.
pub(crate) fn install(level: LogLevel, extension: &str) -> LogWriter {
    let log = LogWriter::stderr(left_out);
    let lines = log.clone();
    // A subscriber that is already there is the author's, and is kept.
    let _ = tracing::subscriber::set_global_default(subscriber(level, extension, move || {
        lines.clone()
    }));
    log
}

fn left_out(lines: u64) -> String {
    let message = "lines of the log could not be written and are left out";
    format!("{}\n", serde_json::json!({ "level": "warn", "message": message, "lines": lines }))
}

fn subscriber<W>(level: LogLevel, extension: &str, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = filter(level);
    let transport = level.min(LevelFilter::WARN);
    let filter = filter_fn(move |metadata| {
        *metadata.level() <= if is_transport(metadata.target()) { transport } else { level }
    })
    // Otherwise the whole process would produce events that no line shows.
    .with_max_level_hint(level);
    // The layer writes each line with one call, so that lines of several threads do not mix. An
    // error of the writer is not reported, which would be another write to the same place.
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(JsonObject)
        .event_format(JsonLines { extension: extension.to_owned() })
        .log_internal_errors(false)
        .with_writer(writer);
    // For the one layer there is, a filter of all costs each span less than one of the layer's own.
    Registry::default().with(lines).with(filter)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        // What ends the process is logged as an error.
        LogLevel::Error | LogLevel::Fatal | LogLevel::Panic => LevelFilter::ERROR,
        LogLevel::Disabled => LevelFilter::OFF,
    }
}

/// One object for each event: its fields, those of the spans it is in (the inner ones win), and the
/// keys of every line.
struct JsonLines {
    extension: String,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonObject> for JsonLines {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonObject>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonObject>>() {
                add(&mut line, fields);
            }
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        add(&mut line, &fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        for (key, value) in [
            ("level", name(*metadata.level())),
            ("time", &time),
            ("extension", &self.extension),
            ("target", metadata.target()),
        ] {
            line.insert(key.to_owned(), value.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Fields as one JSON object, written as they come: the span of a subscription is made each time that
/// it is polled, and the formatter of tracing-subscriber takes twice as long.
struct JsonObject;

impl<'writer> FormatFields<'writer> for JsonObject {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        // Written at once, so that what keeps it is allocated once. `try_with`: a thread that ends
        // may log.
        let mut text = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let mut object = Object { text: &mut text, is_empty: true, outcome: Ok(()) };
        fields.record(&mut object);
        let outcome = object.end().and_then(|()| writer.write_str(&text));
        if text.capacity() <= MAX_SCRATCH_BYTES {
            text.clear();
            let _ = SCRATCH.try_with(|scratch| scratch.set(text));
        }
        outcome
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let mut added = String::new();
        self.format_fields(Writer::new(&mut added), fields)?;
        let mut object = parse(current);
        object.extend(parse(&added));
        current.fields = Value::Object(object).to_string();
        Ok(())
    }
}

/// A longer one is not kept.
const MAX_SCRATCH_BYTES: usize = 1024;

thread_local! {
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

struct Object<'text> {
    text: &'text mut String,
    is_empty: bool,
    outcome: fmt::Result,
}

impl Object<'_> {
    fn add(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        let writer = &mut *self.text;
        self.outcome = self.outcome.and_then(|()| {
            writer.write_char(if self.is_empty { '{' } else { ',' })?;
            // The prefix is how Rust writes a name that is a keyword.
            let name = field.name();
            quote(writer, name.strip_prefix("r#").unwrap_or(name))?;
            writer.write_char(':')?;
            value(writer)
        });
        self.is_empty = false;
    }

    fn end(self) -> fmt::Result {
        self.outcome?;
        self.text.write_str(if self.is_empty { "{}" } else { "}" })
    }
}

/// Writes text as JSON.
fn quote(writer: &mut String, text: &str) -> fmt::Result {
    let is_escaped = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().any(is_escaped) {
        return write!(writer, "{}", Value::from(text));
    }
    writer.write_char('"')?;
    writer.write_str(text)?;
    writer.write_char('"')
}

impl Visit for Object<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Null, if it is no number.
        self.add(field, |writer| write!(writer, "{}", Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |writer| quote(writer, value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, |writer| quote(writer, &value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, |writer| quote(writer, &format!("{value:?}")));
    }
}

fn parse(fields: &str) -> Map<String, Value> {
    serde_json::from_str(fields).unwrap_or_default()
}

/// Adds an object's fields. The keys of every line are not theirs to set.
fn add(line: &mut Map<String, Value>, fields: &str) {
    line.extend(parse(fields).into_iter().map(|(name, value)| match &*name {
        "level" | "time" | "extension" | "target" => (format!("field_{name}"), value),
        _ => (name, value),
    }));
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests;
