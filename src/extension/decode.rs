//! Reads settings into the struct that an author declared for them.
//!
//! Keys match without regard to case. A request with anything wrong in it gets
//! all of it told at once, each problem with its key: values that do not fit,
//! required settings that are missing, keys given twice, keys that nobody
//! knows. No problem ever holds a value, which may be a secret.
//!
//! Where all is well, one pass over the settings allocates nothing but what the
//! struct holds (`table`, and `value` for each value). Only where it fails do
//! further passes look for what else is wrong (`explain`). Their number, and
//! that of the problems told, is bounded: a request may hold tens of thousands
//! of settings.
//!
//! `#[serde(flatten)]` works, with limits that come from serde, which reads a
//! flattened struct only after the rest: an alias in it is unknown; what its
//! types refuse may be told a request later than what is wrong in the rest, and
//! without a key where several are flattened.

mod explain;
mod fault;
mod nearest;
mod table;
mod value;

use serde::de::DeserializeOwned;

use self::explain::{explain, names, unknown_key};
use self::fault::Fault;
use self::table::{Table, Trace};
use self::value::NESTED_TYPE;
use super::describe::Fields;
use super::settings::Settings;
use crate::error::Problem;

/// How many problems one answer tells: what a person can act on at once.
const MAX_PROBLEMS: usize = 20;

/// Keys are shown up to here, and compared with known ones only if not longer:
/// comparing takes time by the square of the length, and no key is longer.
const MAX_KEY_CHARS: usize = 64;

/// Reads `settings` as a `T`, whose fields are `declared`.
///
/// # Errors
///
/// All that is wrong, at most [`MAX_PROBLEMS`] and a word on how many more.
pub(crate) fn decode<T: DeserializeOwned>(
    settings: &Settings,
    declared: &Fields,
) -> Result<T, Vec<Problem>> {
    let trace = Trace::new();
    let table = Table { settings, declared, skip: &[], trace: &trace };
    T::deserialize(table).map_err(|_| explain::<T>(settings, declared, trace.known.get()))
}

/// Checks one answer for one setting, whatever else may be missing.
///
/// # Errors
///
/// What [`decode`] would tell of this key.
pub(crate) fn decode_one<T: DeserializeOwned>(
    key: &str,
    answer: &str,
    declared: &Fields,
) -> Result<(), String> {
    let settings = Settings::new([(key, answer)]);
    let trace = Trace::new();
    match T::deserialize(Table { settings: &settings, declared, skip: &[], trace: &trace }) {
        Err(Fault::At { message, .. }) => Err(message),
        Err(Fault::Key) => Err(unknown_key(key, &names(declared, trace.known.get()))),
        // The others may be about settings that are yet to come.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A setting whose type no text can be read as, whatever it is: a struct or a
/// map.
pub(crate) fn nested<T: DeserializeOwned>(declared: &Fields) -> Option<&str> {
    let is_nested = |name: &&str| {
        // Any text does, since such a type asks for parts before it looks at it.
        decode_one::<T>(name, "x", declared).is_err_and(|message| message.contains(NESTED_TYPE))
    };
    declared.iter().map(|field| &*field.name).find(is_nested)
}

#[cfg(test)]
mod tests;
