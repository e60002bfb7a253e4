use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use serde::Deserialize;

use crate::error::ErrorKind;
use crate::extension::{ExternalEvent, Parsed, Secret};

fn event(body: impl AsRef<[u8]>) -> ExternalEvent {
    ExternalEvent::new([b"POST / HTTP/1.1\r\n\r\n", body.as_ref()].concat()).unwrap()
}

/// Why a body is not a `T`; no part of it is printed, nor logged.
fn refusal<T: serde::de::DeserializeOwned + Debug>(body: impl AsRef<[u8]>) -> String {
    let error = event(body).json::<T>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.source().is_none());
    let logged = format!("{error:?}");
    assert!(!logged.contains("hunter") && !logged.contains("7331"), "{logged}");
    error.to_string()
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    #[serde(rename = "ref")]
    branch: String,
    #[serde(default)]
    count: u8,
}

const PUSH: &str = r#"{"ref":"main","count":3}"#;

#[test]
fn a_body_is_read_with_or_without_a_byte_order_mark() {
    let push = || Push { branch: "main".to_owned(), count: 3 };
    assert_eq!(event(PUSH).json::<Push>().unwrap(), push());
    assert_eq!(event(format!("\u{feff}{PUSH}")).json::<Push>().unwrap(), push());
    assert_eq!(event(format!(" \r\n\t{PUSH}\n")).json::<Push>().unwrap(), push());
    let twice = refusal::<Push>(format!("\u{feff}\u{feff}{PUSH}"));
    assert_eq!(twice, "the body cannot be read as JSON: expected value at line 1 column 1");
    assert_eq!(event("null").json::<Option<Push>>().unwrap(), None);
    assert_eq!(event("\"é\"").json::<String>().unwrap(), "é");
}

#[test]
fn a_body_that_is_not_json_is_refused_with_the_place() {
    for (body, why) in [
        ("hunter2", "expected value at line 1 column 1"),
        ("{\"ref\"", "EOF while parsing an object at line 1 column 6"),
        ("{\"ref\":\n  \"hunter2", "EOF while parsing a string at line 2 column 10"),
        ("{\"ref\" \"hunter2\"}", "expected `:` at line 1 column 8"),
        ("{\"ref\":\"a\"} hunter2", "trailing characters at line 1 column 13"),
        (
            "{\"ref\":\"hunter\t2\"}",
            "control character (\\u0000-\\u001F) found while parsing a \
            string at line 1 column 15",
        ),
        ("ref=hunter2", "expected value at line 1 column 1"),
        ("payload=%7B%22hunter2", "expected value at line 1 column 1"),
        ("\n\n", "EOF while parsing a value at line 3 column 0"),
    ] {
        let expected = format!("the body cannot be read as JSON: {why}");
        assert_eq!(refusal::<Push>(body), expected, "{body}");
    }
    let latin = refusal::<Push>(b"{\"ref\":\"hunter2 caf\xe9\"}");
    assert!(latin.contains("invalid unicode code point at line 1 column "), "{latin}");
    for body in ["", "\u{feff}"] {
        assert_eq!(refusal::<Push>(body), "the body is empty, and must be JSON");
    }
}

#[test]
fn a_body_of_another_form_is_refused_with_the_kind_of_mistake_and_the_place() {
    for (body, why) in [
        ("{\"count\":1}", "`ref` is missing at line 1 column 11"),
        ("{\"ref\":\"a\",\n\"ref\":\"hunter2\"}", "`ref` is given twice at line 2 column 5"),
        ("{\"ref\":7331}", "a value is of another type at line 1 column 11"),
        ("{\"ref\":[\"hunter2\"]}", "a value is of another type at line 1 column 7"),
        ("{\"ref\":\"a\",\"count\":\"hunter2\"}", "a value is of another type at line 1 column 28"),
        ("{\"ref\":\"a\",\"count\":-7331}", "a value is not acceptable at line 1 column 24"),
        ("{\"ref\":\"a\",\"hunter2\":1}", "there is an unknown field at line 1 column 20"),
        ("\"hunter2\"", "a value is of another type at line 1 column 9"),
        ("7331", "a value is of another type at line 1 column 4"),
    ] {
        let expected = format!("the JSON in the body is not as expected: {why}");
        assert_eq!(refusal::<Push>(body), expected, "{body}");
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Push,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[allow(dead_code, reason = "it is read, and nothing else")]
enum Either {
    Number(u8),
    Kind(Kind),
}

/// What quotes the value in its complaint.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Quoting;

impl TryFrom<String> for Quoting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Err(text)
    }
}

#[test]
fn no_type_gets_a_value_into_the_complaint() {
    let lead = "the JSON in the body is not as expected: ";
    for (why, expected) in [
        (refusal::<Kind>("\"hunter2\""), "a value is none of the choices at line 1 column 9"),
        (refusal::<Kind>("{\"hunter2\":1}"), "a value is none of the choices at line 1 column 10"),
        (refusal::<Either>("\"hunter2\""), "a value is none of the alternatives"),
        (refusal::<[Kind; 1]>("[]"), "a list is not of the right length at line 1 column 2"),
        (refusal::<char>("\"hunter2\""), "a value is not acceptable at line 1 column 9"),
        (refusal::<bool>("\"hunter2\""), "a value is of another type at line 1 column 9"),
        (refusal::<IpAddr>("\"hunter2\""), "a value is not acceptable at line 1 column 9"),
        (refusal::<Parsed<IpAddr>>("\"hunter2\""), "a value is not acceptable at line 1 column 9"),
        (refusal::<Secret>("\"\""), "a value is not acceptable at line 1 column 2"),
        (refusal::<Secret>("7331"), "a value is of another type at line 1 column 4"),
        (refusal::<Quoting>("\"hunter2\""), "a value is not acceptable"),
    ] {
        let complaint = why.strip_prefix(lead).unwrap_or_else(|| panic!("{why}"));
        assert_eq!(complaint, expected);
    }
    let keys = refusal::<BTreeMap<u8, u8>>("{\"hunter2\":1}");
    assert!(keys.contains("expected key to be a number in quotes at line 1 column 2"), "{keys}");
}

#[test]
fn a_value_that_looks_like_a_complaint_is_none() {
    for text in [
        "missing field `hunter 2`",
        "missing field `hunter2` and more",
        "missing field `hunter2",
        "duplicate field `hunter2\\u0000`",
        "unknown field `hunter2`, expected `x`",
        "invalid type: hunter2, expected hunter2",
        "hunter2 at line 1 column 1",
        "invalid value: hunter2 at line 1 column x",
    ] {
        let why = refusal::<Quoting>(format!("\"{text}\""));
        assert!(why.starts_with("the JSON in the body is not as expected: "), "{why}");
    }
    let long = format!("\"missing field `{}`\"", "hunter2".repeat(100));
    let expected = "the JSON in the body is not as expected: a value is not acceptable";
    assert_eq!(refusal::<Quoting>(long), expected);
}

#[test]
fn a_deep_body_is_refused() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    event(nested(127)).json::<serde_json::Value>().unwrap();
    for depth in [128, 100_000] {
        let why = refusal::<serde_json::Value>(nested(depth));
        assert!(why.contains("recursion limit exceeded at line 1 column 128"), "{why}");
        let open = refusal::<serde_json::Value>("{\"hunter2\":".repeat(depth));
        assert!(open.contains("recursion limit exceeded"), "{open}");
    }
}
