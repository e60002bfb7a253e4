//! The schema of one property in words, for people who type a value: "true or false", not "boolean".
//!
//! The schemas are expected without references: a remaining one belongs to a type that contains
//! itself, which no setting can hold.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::shape::Shape;

/// The kinds of texts that have a format of their own: the format, the kind, and how it ends.
const WITH_EXAMPLES: [(&str, &str, &str); 3] = [
    ("go-duration", "duration", ", such as `5m` or `1h30m`"),
    ("gofer-cron", "cron expression", ", such as `30 2 * * * *`"),
    ("time-zone", "time zone", ", such as `Europe/Berlin`"),
];

/// A kind, and the examples that it ends in.
fn split_examples(kind: &str) -> (&str, &'static str) {
    let split = |(_, _, examples)| Some((kind.strip_suffix(examples)?, examples));
    WITH_EXAMPLES.into_iter().find_map(split).unwrap_or((kind, ""))
}

/// `kind` without the examples that it ends in.
pub(super) fn without_examples(kind: &str) -> &str {
    split_examples(kind).0
}

/// Longer lists are cut: there are 600 names of time zones.
const MAX_CHOICES: usize = 20;

/// The schemas (or names) listed under `key`.
pub(super) fn branches<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The alternatives of a schema, except "absent"; empty if it is not a choice.
pub(super) fn choices(schema: &Value) -> Vec<&Value> {
    ["oneOf", "anyOf", "allOf"]
        .iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten()
        .filter(|branch| branch.get("type").is_none_or(|kind| kind != "null"))
        .collect()
}

/// The only type that a schema names, except `null`.
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.next().filter(|_| names.next().is_none())
        }
        _ => None,
    }
}

/// The fixed values that a schema accepts, each with its description.
fn constants(schema: &Value) -> Option<Vec<(String, &str)>> {
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    if let Some(value) = schema.get("const") {
        return Some(vec![(super::typed(value)?, about)]);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values = values.iter().filter_map(super::typed);
        return Some(values.map(|value| (value, "")).collect());
    }
    let choices = choices(schema);
    let all: Option<Vec<_>> = choices.iter().map(|choice| constants(choice)).collect();
    all.map(|all| all.concat()).filter(|all| !all.is_empty())
}

/// The doc comment of the property or else of its type, and those of its choices.
pub(super) fn description(schema: &Value) -> String {
    let of = |schema: &Value| Some(schema.get("description")?.as_str()?.trim().to_owned());
    let mut text = of(schema)
        .or_else(|| match choices(schema).as_slice() {
            [only] => of(only),
            _ => None,
        })
        .unwrap_or_default();
    for (value, about) in constants(schema).unwrap_or_default() {
        // The description of a schema with one constant is in `text` already.
        if !about.is_empty() && about.trim() != text {
            text.push_str(if text.is_empty() { "" } else { "\n\n" });
            let _ = write!(text, "`{value}`: {}", about.trim());
        }
    }
    text
}

/// Whether a schema says that its value, or a part of it, is a secret.
pub(super) fn is_secret(schema: &Value) -> bool {
    schema.get("writeOnly").is_some_and(|is| *is == true)
        || schema.get("format").is_some_and(|format| *format == "password")
        || choices(schema).into_iter().any(is_secret)
        || schema.get("items").is_some_and(is_secret)
        || schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten().any(is_secret)
}

/// The type in words that complete "a".
pub(super) fn words(schema: &Value) -> String {
    if let Some(values) = constants(schema) {
        return one_of(values.iter().map(|(value, _)| value.as_str()));
    }
    // What cannot be set is not offered, if something else can.
    let choices = choices(schema);
    let settable = |choice: &&Value| Shape::of(choice).is_settable();
    let any_settable = choices.iter().any(settable);
    let mut choices = choices.into_iter().filter(|choice| !any_settable || settable(choice));
    if let Some(first) = choices.next() {
        return choices.fold(words(first), |all, next| either(&all, &words(next)));
    }
    match type_of(schema) {
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => format!("whole number{}", range(schema)),
        Some("number") => format!("number{}", range(schema)),
        Some("array") => list(schema),
        Some("object") => "nested value".to_owned(),
        Some("null") => "empty".to_owned(),
        None if schema.get("$ref").is_some() => "nested value".to_owned(),
        _ => text(schema),
    }
}

fn text(schema: &Value) -> String {
    let format = schema.get("format").and_then(Value::as_str);
    let of_format = |(known, kind, examples): &(&str, &str, &str)| {
        (format == Some(known)).then(|| format!("{kind}{examples}"))
    };
    WITH_EXAMPLES
        .iter()
        .find_map(of_format)
        .unwrap_or_else(|| plain_text(schema, format).to_owned())
}

fn plain_text(schema: &Value, format: Option<&str>) -> &'static str {
    match format {
        Some("ip") => "IP address",
        Some("ipv4") => "IPv4 address",
        Some("ipv6") => "IPv6 address",
        Some("uri" | "url") => "URL",
        Some("uuid") => "UUID",
        Some("date") => "date",
        Some("date-time") => "date and time",
        _ if schema.get("maxLength").is_some_and(|most| *most == 1) => "single character",
        _ => "text",
    }
}

/// " from 1 to 10", as far as the schema sets bounds.
fn range(schema: &Value) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        (None, None) => String::new(),
    }
}

/// "1 value", or "2 values, separated by commas".
pub(crate) fn values(count: usize) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{count} values, separated by commas") }
}

fn list(schema: &Value) -> String {
    if let Some(items) = schema.get("prefixItems").and_then(Value::as_array) {
        return values(items.len());
    }
    let item = schema.get("items").map_or_else(|| "text".to_owned(), words);
    let items = match item.strip_prefix("one of ") {
        Some(choices) => choices.to_owned(),
        None => match item.find([',', ' ']).unwrap_or(item.len()) {
            _ if item == "text" || item == "true or false" => item,
            _ if item == "nested value" => "nested values".to_owned(),
            _ if item.starts_with("whole number") => item.replacen("number", "numbers", 1),
            _ if item.starts_with("IP") => item.replacen("address", "addresses", 1),
            _ if item.starts_with("cron") => item.replacen("expression", "expressions", 1),
            _ if item.starts_with("time zone") => item.replacen("zone", "zones", 1),
            _ if item.starts_with("single") => item.replacen("character", "characters", 1),
            end => format!("{}s{}", &item[..end], &item[end..]),
        },
    };
    // Examples go to the end, where they can be cut off.
    let (items, examples) = split_examples(&items);
    format!("list of {items}, separated by commas{examples}")
}

/// "one of `a`, `b`", or just "`a`".
pub(crate) fn one_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let lead = if names.len() == 1 { "" } else { "one of " };
    format!("{lead}{}", quoted(names))
}

/// "`a`, `b`", cut if there are too many to read.
fn quoted<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MAX_CHOICES);
    let mut names: Vec<_> = names.take(MAX_CHOICES).map(|name| format!("`{name}`")).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// "`a`, `b` and `c`", with `last` before the last one.
pub(crate) fn joined(names: &[&str], last: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The kind of a setting that may be one or the other.
pub(super) fn either(one: &str, other: &str) -> String {
    let known = |one: &str| one.split(" or ").any(|part| part == other);
    match (one.strip_prefix('`'), other.strip_prefix('`')) {
        (Some(_), Some(_)) => format!("one of {one}, {other}"),
        _ if one == other || known(one) => one.to_owned(),
        (None, Some(_)) if one.starts_with("one of ") => format!("{one}, {other}"),
        _ => format!("{one} or {other}"),
    }
}
