//! What can go wrong while a setting is read, in words that are safe to show.
//!
//! A value may be a secret, so no [`Fault`] that leaves this module holds one. Serde's own errors
//! quote what they found; here they keep only what they expected. Errors of other crates are free
//! text, in which the value is masked.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

use serde::de::{self, Expected, Unexpected};

use crate::extension::describe::kind::one_of;

/// Why a reading of the settings stopped.
#[derive(Debug)]
pub(in crate::extension) enum Fault {
    /// A key is unknown or given twice; `explain` finds which and why.
    Key,
    /// A field has no value and no default.
    Missing(&'static str),
    /// A field is set under two of its names.
    Twice(&'static str),
    /// The setting at `index` has an unacceptable value.
    At { index: usize, message: String },
    /// Our own words, which hold no value.
    Plain(Cow<'static, str>),
    /// Words of another crate, which may quote a value.
    Foreign(String),
}

impl Fault {
    /// The message, with none of `values` in it.
    pub(super) fn sentence<'a>(self, values: impl IntoIterator<Item = &'a str>) -> String {
        match self {
            Self::Plain(words) => words.into_owned(),
            Self::At { message, .. } => message,
            Self::Foreign(words) => printable(&redact(words, values), MAX_MESSAGE),
            Self::Missing(name) => format!("is missing `{name}`"),
            Self::Twice(name) => format!("contains `{name}` twice"),
            Self::Key => "is invalid".to_owned(),
        }
    }
}

impl Display for Fault {
    /// For code that formats an error before `sentence` is called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(words) => f.write_str(words),
            Self::Foreign(words) => f.write_str(words),
            Self::At { message, .. } => f.write_str(message),
            Self::Missing(name) => write!(f, "`{name}` is required"),
            Self::Twice(name) => write!(f, "`{name}` is given twice"),
            Self::Key => f.write_str("a key is unknown or given twice"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::Foreign(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        expectation(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        expectation(expected)
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        expectation(expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Plain(format!("must be {}", one_of(expected.iter().copied())).into())
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Plain("has an unknown part".into())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Twice(field)
    }
}

/// "must be …", where serde's names of primitive types are put in words.
fn expectation(expected: &dyn Expected) -> Fault {
    let expected = expected.to_string();
    let (nonzero, name) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (true, name),
        None => (false, expected.as_str()),
    };
    let words = match name {
        "u8" => whole(nonzero, u8::MAX),
        "u16" => whole(nonzero, u16::MAX),
        "u32" => whole(nonzero, u32::MAX),
        "u64" | "usize" => whole(nonzero, u64::MAX),
        "i8" => between(nonzero, i8::MIN, i8::MAX),
        "i16" => between(nonzero, i16::MIN, i16::MAX),
        "i32" => between(nonzero, i32::MIN, i32::MAX),
        "i64" | "isize" => between(nonzero, i64::MIN, i64::MAX),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        // An author's visitor may quote the value here, too.
        _ => return Fault::Foreign(format!("must be {expected}")),
    };
    Fault::Plain(format!("must be {words}").into())
}

fn whole(nonzero: bool, most: impl Display) -> String {
    between(false, u8::from(nonzero), most)
}

fn between(nonzero: bool, least: impl Display, most: impl Display) -> String {
    let except = if nonzero { ", other than 0" } else { "" };
    format!("a whole number from {least} to {most}{except}")
}

/// Enough for a sentence; the message may be as long as the value.
const MAX_MESSAGE: usize = 300;

/// A shorter value is not a secret, and masking it would damage the message: many messages contain
/// a "1".
const SECRET_CHARS: usize = 4;

/// The time to search is the product of the two, and a request may hold tens of thousands of
/// values. Real messages and settings stay far below these limits.
const MAX_SEARCHED: usize = 2_000;
const MAX_SECRETS: usize = 10_000;

/// `message` without any of `values` or their parts between commas, neither as they are nor
/// escaped.
fn redact<'a>(message: String, values: impl IntoIterator<Item = &'a str>) -> String {
    let long = |secret: &&str| secret.chars().nth(SECRET_CHARS - 1).is_some();
    let mut secrets: Vec<&str> = Vec::new();
    for value in values {
        // Without the space around it, as a library may have quoted it.
        secrets.extend([value.trim(), value].into_iter().find(long));
        if value.contains(',') {
            secrets.extend(value.split(',').map(str::trim).filter(long).take(MAX_SECRETS));
        }
        if secrets.len() > MAX_SECRETS {
            break;
        }
    }
    let searchable = message.len() <= MAX_SEARCHED || secrets.len() <= 1;
    if secrets.len() > MAX_SECRETS || !searchable {
        return "invalid; the reason is hidden because it may contain a secret".to_owned();
    }
    // The longest first, so that masking one does not split a longer one.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(message, |message, secret| {
        let message = mask(message, secret);
        let message = mask(message, format!("{secret:?}").trim_matches('"'));
        mask(message, &secret.escape_default().to_string())
    })
}

/// `message` with each occurrence of `secret` replaced by "…", without regard to case: a library
/// may quote a value in lower case.
fn mask(message: String, secret: &str) -> String {
    // ASCII case changes no length, so positions are the same in both texts.
    let searched = message.to_ascii_lowercase();
    let mut clean = String::new();
    let mut end = 0;
    for (start, found) in searched.match_indices(&secret.to_ascii_lowercase()) {
        clean.push_str(&message[end..start]);
        clean.push('…');
        end = start + found.len();
    }
    if end == 0 {
        return message;
    }
    clean.push_str(&message[end..]);
    clean
}

/// `text` cut to `most` characters, with those escaped that do not print.
pub(super) fn printable(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == most {
            shown.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => {
                let _ = write!(shown, "{}", c.escape_debug());
            }
        }
    }
    shown
}
