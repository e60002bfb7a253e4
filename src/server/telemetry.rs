//! Logs as JSON lines on standard error, in Gofer's levels, with the
//! extension's name on each line.
//!
//! Installed by [`run`](crate::run) alone. The library itself only emits
//! `tracing` events; an author with a subscriber of his own uses
//! [`Server`](crate::Server) and never meets this.

use std::fmt;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::system_config::LogLevel;

/// Logs for the rest of the process, unless somebody already does.
pub(crate) fn install(level: LogLevel, extension: &str) {
    let lines = JsonLines { extension: extension.to_owned(), level: filter(level) };
    // A subscriber that is already there is the author's, and is kept.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(lines));
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        // What ends the process is logged as an error.
        LogLevel::Error | LogLevel::Fatal | LogLevel::Panic => LevelFilter::ERROR,
    }
}

/// Crates that tell of each frame and each record at level `debug`: an author
/// who looks for what an extension does would not find it among them.
fn is_transport(target: &str) -> bool {
    let of = target.split("::").next().unwrap_or_default();
    matches!(of, "h2" | "hyper" | "hyper_util" | "mio" | "rustls" | "tonic" | "tower")
}

struct JsonLines {
    extension: String,
    level: LevelFilter,
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let most = if is_transport(metadata.target()) {
            self.level.min(LevelFilter::WARN)
        } else {
            self.level
        };
        *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = self.line(event, SystemTime::now());
        // One write for one line: lines of several threads do not mix. Where
        // standard error is gone there is nobody left to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

impl JsonLines {
    fn line(&self, event: &Event<'_>, now: SystemTime) -> String {
        let mut line = Map::new();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        line.insert("level".to_owned(), name(*event.metadata().level()).into());
        line.insert("time".to_owned(), millis.into());
        line.insert("extension".to_owned(), self.extension.as_str().into());
        event.record(&mut Fields(&mut line));
        line.insert("target".to_owned(), event.metadata().target().into());
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        text
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // The line's own fields are not an event's to change.
        let name = match field.name() {
            taken @ ("level" | "time" | "extension" | "target") => format!("field_{taken}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    /// Keeps the lines instead of writing them.
    struct Kept(JsonLines, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn enabled(&self, metadata: &tracing::Metadata<'_>, context: Context<'_, S>) -> bool {
            self.0.enabled(metadata, context)
        }

        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = UNIX_EPOCH + Duration::from_millis(1_234);
            self.1.lock().unwrap().push(self.0.line(event, now));
        }
    }

    #[test]
    fn a_line_is_json_with_gofers_level_and_the_extensions_name() {
        let lines = Arc::default();
        let json = JsonLines { extension: "interval".to_owned(), level: filter(LogLevel::Info) };
        let subscriber = Registry::default().with(Kept(json, Arc::clone(&lines)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too much detail");
            tracing::warn!(pipeline = "a/b", runs = 3, "a \"quoted\"\nmessage");
        });
        let lines = lines.lock().unwrap();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["time"], 1_234);
        assert_eq!(line["extension"], "interval");
        assert_eq!(line["message"], "a \"quoted\"\nmessage");
        assert_eq!((&line["pipeline"], &line["runs"]), (&"a/b".into(), &3.into()));
    }

    #[test]
    fn levels_beyond_error_still_show_errors() {
        for level in [LogLevel::Error, LogLevel::Fatal, LogLevel::Panic] {
            assert_eq!(filter(level), LevelFilter::ERROR);
        }
        assert_eq!(filter(LogLevel::Debug), LevelFilter::DEBUG);
    }
}
