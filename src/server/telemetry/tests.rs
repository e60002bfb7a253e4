use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::*;

/// Keeps what is written, call by call.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<String>>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(level: LogLevel, log: impl FnOnce()) -> Vec<Value> {
    let writes = Writes::default();
    let output = writes.clone();
    let subscriber = subscriber(level, "interval", move || output.clone());
    tracing::subscriber::with_default(subscriber, log);
    let lines = std::mem::take(&mut *writes.0.lock().unwrap());
    let parse = |line: &String| {
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
        serde_json::from_str(line).unwrap()
    };
    lines.iter().map(parse).collect()
}

#[test]
fn a_line_is_json_with_gofers_level_and_the_extensions_name() {
    let lines = logged(LogLevel::Info, || {
        tracing::debug!("too much detail");
        tracing::warn!(pipeline = "a/b", runs = 3, level = 7, "a \"quoted\"\nmessage");
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["level"], "warn");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    assert_eq!(line["extension"], "interval");
    assert_eq!(line["message"], "a \"quoted\"\nmessage");
    assert_eq!((&line["pipeline"], &line["runs"]), (&"a/b".into(), &3.into()));
    assert_eq!(line["field_level"], 7);
    assert!(line["target"].as_str().unwrap().starts_with("gofer_sdk"), "{line}");
}

#[test]
fn a_line_has_the_fields_of_its_spans() {
    let lines = logged(LogLevel::Info, || {
        let _outer = tracing::info_span!("outer", pipeline = "a/b", attempt = 1).entered();
        let _inner = tracing::info_span!("inner", attempt = 2).entered();
        tracing::info!("started");
    });
    assert_eq!((&lines[0]["pipeline"], &lines[0]["attempt"]), (&"a/b".into(), &2.into()));
}

#[test]
fn fields_have_their_names_and_types() {
    let lines = logged(LogLevel::Info, || {
        let span = tracing::info_span!("span", first = 1, later = tracing::field::Empty);
        let _entered = span.enter();
        span.record("later", "a \"quoted\"\nvalue");
        span.record("first", 2);
        let error = io::Error::other("it is full");
        let error: &dyn std::error::Error = &error;
        tracing::info!(r#type = "push", ratio = 0.5, done = true, less = -1, list = ?[1, 2], error);
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let expected = serde_json::json!({
        "first": 2,
        "later": "a \"quoted\"\nvalue",
        "type": "push",
        "ratio": 0.5,
        "done": true,
        "less": -1,
        "list": "[1, 2]",
        "error": "it is full",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name}: {line}");
    }
}

#[test]
fn a_span_without_fields_adds_none() {
    let lines = logged(LogLevel::Info, || {
        let _entered = tracing::info_span!("span").entered();
        tracing::info!(attempt = 1, "started");
    });
    assert_eq!((&lines[0]["attempt"], &lines[0]["message"]), (&1.into(), &"started".into()));
}

#[test]
fn transport_crates_log_warnings_and_nothing_below() {
    let lines = logged(LogLevel::Debug, || {
        tracing::debug!(target: "h2::codec", "a frame");
        tracing::info!(target: "hyper", "a connection");
        tracing::warn!(target: "rustls::conn", "an alert");
        tracing::debug!(target: "tower_defense", "a detail");
        tracing::trace!("even more");
    });
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["an alert", "a detail"]);
}

#[test]
fn levels_beyond_error_still_show_errors() {
    for level in [LogLevel::Error, LogLevel::Fatal, LogLevel::Panic] {
        assert_eq!(filter(level), LevelFilter::ERROR);
    }
    assert_eq!(filter(LogLevel::Debug), LevelFilter::DEBUG);
}

#[test]
fn trace_shows_everything_and_disabled_nothing() {
    let log = || {
        tracing::trace!("a detail");
        tracing::error!("a failure");
    };
    let lines = logged(LogLevel::Trace, log);
    assert_eq!((&lines[0]["level"], &lines[1]["level"]), (&"trace".into(), &"error".into()));
    assert!(logged(LogLevel::Disabled, log).is_empty());
}

#[test]
fn the_global_level_is_what_is_logged_at_most() {
    for level in [LogLevel::Trace, LogLevel::Info, LogLevel::Error, LogLevel::Disabled] {
        let subscriber = subscriber(level, "interval", io::sink);
        assert_eq!(subscriber.max_level_hint(), Some(filter(level)));
    }
}
