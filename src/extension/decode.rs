//! Reads settings into the struct that an author declared for them.
//!
//! Keys match without regard to case. All problems of a request are reported at once, each with its
//! key: invalid values, missing required settings, keys given twice, unknown keys, settings that do
//! not go together. No problem ever holds a value, which may be a secret, unless an author's type
//! put it there.
//!
//! Valid settings are read in one pass that allocates nothing but what the struct holds (`table`,
//! and `value` for each value). If a type is flattened or has alternatives, further passes find out
//! what its settings are meant as (`forms`, `guess`), and that each has been used. If a pass fails,
//! further ones look for what else is wrong (`explain`). The number of passes and of reported
//! problems is bounded: a request may hold tens of thousands of settings.
//!
//! Limits that come from serde: an alias of a setting is unknown in a struct with flattened parts,
//! and a number of 128 bits can't be read there; what its types refuse may be reported one request
//! later than what is wrong in the rest. A flattened `Option` with another one in it is read with all
//! settings of both or with none: whether a failure of the inner one dropped the outer one is not
//! known. If a variant of an untagged enum takes a part of another's
//! settings, it must come after it: serde takes the first that fits.

mod explain;
mod fault;
mod forms;
mod guess;
mod nearest;
mod table;
mod value;

use serde::de::DeserializeOwned;

use self::explain::{explain, names, unknown_key};
use self::fault::{Fault, recorded};
use self::table::{Guess, Known, Table, Trace};
use self::value::NESTED_TYPE;
use super::describe::{Field, Fields};
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
    let (trace, guess) = (Trace::new(), Guess::default());
    let table = Table { settings, declared, skip: &[], trace: &trace, guess: &guess };
    let read = read::<T>;
    match T::deserialize(table) {
        Ok(value) if !trace.loose.get() => return Ok(value),
        Err(fault) if fault == Fault::Key || !trace.loose.get() => {
            return Err(explain(read, settings, declared, trace.known.get(), &[]));
        }
        _ => {}
    }
    let known = trace.known.get();
    let explain = |unused: &_| explain(read, settings, declared, known, unused);
    let guess = guess::guess(read, settings, declared, known).map_err(|unused| explain(&unused))?;
    T::deserialize(Table { guess: &guess, ..table }).map_err(|_| explain(&[]))
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
    let (trace, guess) = (Trace::new(), Guess::default());
    let table = Table { settings: &settings, declared, skip: &[], trace: &trace, guess: &guess };
    let outcome = read(table);
    let known = trace.known.get();
    match outcome {
        Err(Fault::Key) => Err(unknown_key(key, &names(declared, known))),
        _ if trace.loose.get() => {
            check_loose(read, table, known.name(declared, key).unwrap_or(key), answer)
        }
        Err(Fault::At { message, .. }) => Err(message),
        // The others may be about settings that have not been asked for yet.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// [`decode_one`] for a setting whose type does not ask for a type.
fn check_loose(read: Read, table: Table<'_>, name: &str, answer: &str) -> Result<(), String> {
    let mut refusal = None;
    for rank in 0..table.declared.shape(name).ways(answer) {
        let guess = Guess { ranks: vec![(name, rank)], ..Guess::default() };
        let (outcome, journal) = recorded(|| read(Table { guess: &guess, ..table }));
        let is_about_others = |fault: &Fault| matches!(fault, Fault::Missing(_) | Fault::Extra(_));
        let message = match outcome {
            Err(Fault::At { message, .. }) => message,
            Ok(()) => return Ok(()),
            Err(_) if journal.faults.iter().any(is_about_others) => return Ok(()),
            Err(fault) => {
                let shape = Some(table.declared.shape(name)).filter(|_| fault == Fault::Unmatched);
                let several = shape.and_then(|shape| shape.must_be_one_of_several(answer));
                several.unwrap_or_else(|| journal.last_message().unwrap_or(fault).sentence())
            }
        };
        refusal.get_or_insert(message);
    }
    refusal.map_or(Ok(()), Err)
}

/// A setting whose type cannot be read from any text: a struct or a map.
pub(super) fn nested(read: Read, declared: &Fields) -> Option<&str> {
    let is_nested = |field: &&Field| {
        // Any text will do: such a type fails before it reads the text.
        let message = decode_one(read, &field.name, "x", declared);
        message.is_err_and(|message| message.contains(NESTED_TYPE))
    };
    declared.iter().find(is_nested).map(|field| field.name.as_str())
}

/// The names of a struct's fields in the order of their declaration, as a derived `Deserialize`
/// passes them; none if it has flattened parts.
pub(super) fn field_names(read: Read) -> &'static [&'static str] {
    // An unknown key ends the reading before any default or conversion of the author's runs.
    let (settings, declared) = (Settings::new([("", "")]), Fields::default());
    let (trace, guess) = (Trace::new(), Guess::default());
    let (settings, declared) = (&settings, &declared);
    let _ = read(Table { settings, declared, skip: &[], trace: &trace, guess: &guess });
    match trace.known.get() {
        Known::Struct(names) => names,
        Known::Map => &[],
    }
}

#[cfg(test)]
mod tests;
