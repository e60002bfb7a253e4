//! What is shown of an extension's options.

use super::*;

fn row(options: Option<ExtensionOptions>) -> ExtensionRow {
    let state = ExtensionState { options, ..Default::default() };
    ExtensionRow { extension: Extension::default(), state: Some(state) }
}

fn shown(row: &ExtensionRow) -> Vec<(&'static str, String)> {
    let names = ["memory", "processes", "writable root", "start timeout", "stop timeout"];
    let details = row.details().into_iter().map(|(name, cell)| (name, cell.text));
    details.filter(|(name, text)| names.contains(name) && !text.is_empty()).collect()
}

#[test]
fn limits_and_timeouts_are_shown_as_they_are_written_in_flags() {
    let options = ExtensionOptions {
        memory: Some(512 << 20),
        processes: Some(99),
        writable_root: Some(false),
        start_timeout: Some(90_000),
        stop_timeout: Some(500),
        ..Default::default()
    };
    let row = row(Some(options));
    let expected = [
        ("memory", "512MiB"),
        ("processes", "99"),
        ("writable root", "no"),
        ("start timeout", "1m30s"),
        ("stop timeout", "500ms"),
    ];
    assert_eq!(shown(&row), expected.map(|(name, text)| (name, text.to_owned())));
    let json = row.json();
    assert_eq!(json["memory"], 512 << 20);
    assert_eq!(json["processes"], 99);
    assert_eq!(json["writable_root"], false);
    assert_eq!(json["start_timeout"], "1m30s");
    assert_eq!(json["call_timeout"], Value::Null);
}

#[test]
fn what_a_gofer_does_not_report_is_not_shown() {
    let row = row(None);
    assert_eq!(shown(&row), []);
    assert_eq!(row.json()["memory"], Value::Null);
    assert_eq!(row.json()["start_timeout"], Value::Null);
}
