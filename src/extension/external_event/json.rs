//! A body as JSON, and what is wrong with one that is not, without any part of it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Some programs begin a file with it; JSON does not.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// # Errors
///
/// What is wrong, and where.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    serde_json::from_slice(body).map_err(|error| explain(body, &error))
}

/// A function without a type parameter, so that it is compiled once.
fn explain(body: &[u8], error: &serde_json::Error) -> String {
    if body.is_empty() {
        return "the body is empty, and must be JSON".to_owned();
    }
    match error.classify() {
        // A fixed sentence of serde_json's, and the place.
        Category::Syntax | Category::Eof | Category::Io => {
            format!("the body cannot be read as JSON: {error}")
        }
        // A sentence that may quote a value, of serde's, of the author's or of another library's.
        Category::Data => {
            let complaint = complaint(&error.to_string());
            let text = format!("the JSON in the body is not as expected: {complaint}");
            // An error about the whole has no place.
            match error.line() {
                0 => text,
                line => format!("{text} at line {line} column {}", error.column()),
            }
        }
    }
}

/// The kind of complaint, without the rest of it.
fn complaint(sentence: &str) -> Cow<'static, str> {
    if let Some(field) = field(sentence, "missing field `") {
        return format!("`{field}` is missing").into();
    }
    if let Some(field) = field(sentence, "duplicate field `") {
        return format!("`{field}` is given twice").into();
    }
    let known = [
        ("invalid type: ", "a value is of another type"),
        ("invalid value: ", "a value is not acceptable"),
        ("invalid length ", "a list is not of the right length"),
        ("unknown variant ", "a value is none of the choices"),
        ("unknown field ", "there is an unknown field"),
        ("data did not match any variant ", "a value is none of the alternatives"),
    ];
    let known = known.iter().find(|(lead, _)| sentence.starts_with(lead));
    known.map_or("a value is not acceptable", |(_, complaint)| complaint).into()
}

/// The name of an author's field. An author's message could look the same, so that what is none is
/// dropped.
fn field<'a>(sentence: &'a str, lead: &str) -> Option<&'a str> {
    let (name, rest) = sentence.strip_prefix(lead)?.split_once('`')?;
    let is_name = name.len() <= MAX_NAME_BYTES
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
    (is_name && (rest.is_empty() || rest.starts_with(" at line "))).then_some(name)
}

const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests;
