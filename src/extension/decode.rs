//! Reads settings into the struct that an author declared for them.
//!
//! Keys match without regard to case. All problems of a request are reported at once, each with its
//! key: invalid values, missing required settings, keys given twice, unknown keys. No problem ever
//! holds a value, which may be a secret.
//!
//! Valid settings are read in one pass that allocates nothing but what the struct holds (`table`,
//! and `value` for each value). Only if it fails, further passes look for what else is wrong
//! (`explain`). The number of passes and of reported problems is bounded: a request may hold tens
//! of thousands of settings.
//!
//! `#[serde(flatten)]` works, with limits that come from serde, which reads a flattened struct only
//! after the rest: an alias in it is unknown; what its types refuse may be reported one request
//! later than what is wrong in the rest, and without a key if several structs are flattened.

mod explain;
mod fault;
mod nearest;
mod table;
mod value;

use serde::de::DeserializeOwned;

use self::explain::{explain, names, unknown_key};
use self::fault::Fault;
use self::table::{Known, Table, Trace};
use self::value::NESTED_TYPE;
use super::describe::Fields;
use super::settings::Settings;
use crate::error::Problem;

/// How many problems one response reports: as many as a person can act on at once.
const MAX_PROBLEMS: usize = 20;

/// Longer keys are cut when they are shown, and not compared with known ones: the time is quadratic
/// in the length, and no real key is longer.
const MAX_KEY_CHARS: usize = 64;

/// Tries to read settings as an author's type. A function pointer, so that what looks for problems
/// is compiled once instead of for each type.
pub(super) type Read = fn(Table<'_>) -> Result<(), Fault>;

/// The [`Read`] of `T`.
pub(super) fn read<T: DeserializeOwned>(table: Table<'_>) -> Result<(), Fault> {
    T::deserialize(table).map(drop)
}

/// Reads `settings` as a `T`, whose fields are `declared`.
///
/// # Errors
///
/// All that is wrong: at most [`MAX_PROBLEMS`], and how many more there are.
pub(super) fn decode<T: DeserializeOwned>(
    settings: &Settings,
    declared: &Fields,
) -> Result<T, Vec<Problem>> {
    let trace = Trace::new();
    let table = Table { settings, declared, skip: &[], trace: &trace };
    T::deserialize(table).map_err(|_| explain(read::<T>, settings, declared, trace.known.get()))
}

/// Checks one answer for one setting, whatever else may be missing.
///
/// # Errors
///
/// What [`decode`] would report of this key.
pub(super) fn decode_one(
    read: Read,
    key: &str,
    answer: &str,
    declared: &Fields,
) -> Result<(), String> {
    let settings = Settings::new([(key, answer)]);
    let trace = Trace::new();
    match read(Table { settings: &settings, declared, skip: &[], trace: &trace }) {
        Err(Fault::At { message, .. }) => Err(message),
        Err(Fault::Key) => Err(unknown_key(key, &names(declared, trace.known.get()))),
        // The others may be about settings that have not been asked for yet.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A setting whose type cannot be read from any text: a struct or a map.
pub(super) fn nested(read: Read, declared: &Fields) -> Option<&str> {
    let is_nested = |name: &&str| {
        // Any text will do: such a type fails before it reads the text.
        decode_one(read, name, "x", declared).is_err_and(|message| message.contains(NESTED_TYPE))
    };
    declared.iter().map(|field| &*field.name).find(is_nested)
}

/// The names of a struct's fields in the order of their declaration, as a derived `Deserialize`
/// passes them; none if it has flattened parts.
pub(super) fn field_names(read: Read) -> &'static [&'static str] {
    // An unknown key ends the reading before any default or conversion of the author's runs.
    let (settings, declared) = (Settings::new([("", "")]), Fields::default());
    let trace = Trace::new();
    let _ = read(Table { settings: &settings, declared: &declared, skip: &[], trace: &trace });
    match trace.known.get() {
        Known::Struct(names) => names,
        Known::Map => &[],
    }
}

#[cfg(test)]
mod tests;
