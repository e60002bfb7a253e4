//! What can go wrong while a setting is read, in words that are safe to show.
//!
//! A value may be a secret. Serde's error for a value of the wrong type quotes the value, and uses
//! Rust's words for what it expected; here it keeps only what was expected, in the words of the
//! documentation. An author's own message ([`de::Error::custom`]) is passed on as it is.
//!
//! Serde drops failures that it tries alternatives after: of the variants of an untagged enum, or
//! of a flattened `Option`, which becomes `None`. The functions that make errors get no context, so
//! a thread-local [`Journal`] keeps what was made during one pass.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Display, Write as _};

use serde::de::{self, Expected, Unexpected};

use crate::extension::describe::kind::{one_of, values};

/// Why a reading of the settings stopped.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::extension) enum Fault {
    /// A key is unknown or given twice; `explain` finds which and why.
    Key,
    /// A field has no value and no default.
    Missing(&'static str),
    /// A field is set under two of its names.
    Twice(&'static str),
    /// A key that the type has, but not together with the others.
    Extra(String),
    /// The setting at `index` has an unacceptable value.
    At { index: usize, message: String },
    /// A text is none of these names.
    Choice(&'static [&'static str]),
    /// Our words, which hold no value.
    Plain(Cow<'static, str>),
    /// An author's own words.
    Custom(String),
    /// No alternative fits; the journal has why.
    Unmatched,
    /// What cannot be read was read.
    Poison,
}

impl Fault {
    pub(super) fn sentence(self) -> String {
        match self {
            Self::Plain(words) => words.into_owned(),
            Self::Custom(words) => words,
            Self::At { message, .. } => message,
            Self::Choice(names) => format!("must be {}", one_of(names.iter().copied())),
            Self::Missing(name) => format!("is missing `{name}`"),
            Self::Twice(name) => format!("contains `{name}` twice"),
            Self::Extra(name) => format!("does not go together with `{name}`"),
            Self::Key | Self::Poison | Self::Unmatched => "is not acceptable".to_owned(),
        }
    }

    /// Whether it says what is wrong with a value.
    pub(super) fn is_about_a_value(&self) -> bool {
        matches!(self, Self::At { .. } | Self::Choice(_) | Self::Plain(_) | Self::Custom(_))
    }
}

impl Display for Fault {
    /// For code that formats an error before `sentence` is called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.clone().sentence())
    }
}

impl std::error::Error for Fault {}

/// The failures of one pass, in their order.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The first of them.
    pub(super) faults: Vec<Fault>,
    /// How many there were.
    pub(super) count: usize,
}

/// A request may hold tens of thousands of settings, each with a failure that is none.
const MAX_RECORDED: usize = 1_000;

thread_local! {
    static JOURNAL: RefCell<Journal> = RefCell::default();
}

/// What `pass` returns, and all failures that were made meanwhile.
pub(super) fn recorded<R>(pass: impl FnOnce() -> R) -> (R, Journal) {
    JOURNAL.take();
    let outcome = pass();
    (outcome, JOURNAL.take())
}

impl Journal {
    /// How often all alternatives failed.
    pub(super) fn unmatched(&self) -> usize {
        self.faults.iter().filter(|fault| **fault == Fault::Unmatched).count()
    }

    /// The last message about a value, before serde gave up on all alternatives.
    pub(super) fn last_message(&self) -> Option<Fault> {
        let custom = self.faults.iter().rfind(|fault| matches!(fault, Fault::Custom(_)));
        custom.or_else(|| self.faults.iter().rfind(|fault| fault.is_about_a_value())).cloned()
    }
}

/// [`Journal::last_message`] of the pass that is going on.
pub(super) fn last_message() -> Option<Fault> {
    JOURNAL.with_borrow(Journal::last_message)
}

fn record(fault: Fault) -> Fault {
    JOURNAL.with_borrow_mut(|journal| {
        journal.count += 1;
        if journal.faults.len() < MAX_RECORDED {
            journal.faults.push(fault.clone());
        }
    });
    fault
}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        record(custom(&message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        record(expectation(found, expected))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        record(expectation(found, expected))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        record(expectation(Unexpected::Seq, expected))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        record(Self::Choice(expected))
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        record(Self::Extra(name.to_owned()))
    }

    fn missing_field(field: &'static str) -> Self {
        record(Self::Missing(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        record(Self::Twice(field))
    }
}

/// Words of an author, or of code that serde generates.
fn custom(words: &str) -> Fault {
    const WIDE: [&str; 2] = ["i128 is not supported", "u128 is not supported"];
    let generated = words.starts_with("data did not match any variant of untagged enum ")
        || words.starts_with("no variant of enum ")
        || words == "can only flatten structs and maps"
        || words.starts_with("untagged and internally tagged enums do not support");
    if generated {
        return Fault::Unmatched;
    }
    if WIDE.contains(&words) {
        return Fault::Plain(TOO_WIDE.into());
    }
    Fault::Custom(bounded(words.to_owned()))
}

/// Serde cannot keep such a number until it knows the type.
pub(super) const TOO_WIDE: &str = "cannot be set: this extension declares a number of 128 bits \
    in a part that is flattened or has alternatives";

/// "must be …", where serde's names of types are put in words.
fn expectation(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
    if found == Unexpected::NewtypeStruct {
        return Fault::Poison;
    }
    let expected = expected.to_string();
    let (nonzero, name) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (true, name),
        None => (false, expected.as_str()),
    };
    let length = ["a tuple of size ", "an array of length "]
        .iter()
        .find_map(|lead| name.strip_prefix(lead)?.parse().ok());
    let words = match name {
        "u8" => whole(nonzero, u8::MAX),
        "u16" => whole(nonzero, u16::MAX),
        "u32" => whole(nonzero, u32::MAX),
        "u64" | "usize" => whole(nonzero, u64::MAX),
        "u128" => whole(nonzero, u128::MAX),
        "i8" => between(nonzero, i8::MIN, i8::MAX),
        "i16" => between(nonzero, i16::MIN, i16::MAX),
        "i32" => between(nonzero, i32::MIN, i32::MAX),
        "i64" | "isize" => between(nonzero, i64::MIN, i64::MAX),
        "i128" => between(nonzero, i128::MIN, i128::MAX),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "a borrowed string" | "string" | "str" => "text".to_owned(),
        "a character" => "a single character".to_owned(),
        "a sequence" => "a list, separated by commas".to_owned(),
        "unit" => "empty".to_owned(),
        _ if is_of_rust(name) => return Fault::Unmatched,
        _ if length.is_some() => values(length.unwrap_or_default()),
        // An author's own.
        _ => return Fault::Custom(bounded(format!("must be {expected}"))),
    };
    Fault::Plain(format!("must be {words}").into())
}

/// Whether an expectation is what serde generates for a derived type or its variants.
fn is_of_rust(name: &str) -> bool {
    const LEADS: [&str; 17] = [
        "string or map",
        "struct ",
        "enum ",
        "tuple struct ",
        "unit struct ",
        "newtype struct ",
        "struct variant",
        "tuple variant",
        "newtype variant",
        "unit variant",
        "internally tagged enum ",
        "adjacently tagged enum ",
        "variant ",
        "field ",
        "a map",
        "map",
        "any value",
    ];
    LEADS.iter().any(|lead| name.starts_with(lead)) || name == "option" || name.contains(" element")
}

fn whole(nonzero: bool, most: impl Display) -> String {
    between(false, u8::from(nonzero), most)
}

fn between(nonzero: bool, least: impl Display, most: impl Display) -> String {
    let except = if nonzero { ", other than 0" } else { "" };
    format!("a whole number from {least} to {most}{except}")
}

/// Enough for some sentences; an author's message may be as long as the value.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// `text`, unchanged unless it is too long.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rfind(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
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
