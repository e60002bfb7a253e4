//! Finds all that is wrong with settings that cannot be read.
//!
//! Serde stops at the first failure. So the failing setting is recorded and omitted, and the rest
//! is read again, until there is no new failure. An omitted setting counts as given: it is not
//! reported as missing as well.

use super::fault::{Fault, printable};
use super::nearest::nearest;
use super::table::{Known, Table, Trace};
use super::{MAX_KEY_CHARS, MAX_PROBLEMS, Read};
use crate::error::Problem;
use crate::extension::describe::{Field, Fields, kind};
use crate::extension::settings::Settings;

/// Finds all that is wrong with `settings`, of which something is.
pub(super) fn explain(
    read: Read,
    settings: &Settings,
    declared: &Fields,
    known: Known,
) -> Vec<Problem> {
    let mut search = Search::new(read, settings, declared, known);
    let keys = search.omit_bad_keys();
    let missing = search.values();
    if let Some(missing) = missing {
        search.missing(missing);
    }
    // What the extension declares comes first: many other keys must not hide it.
    let mut problems = search.problems;
    problems.extend(keys.reported);
    let more = keys.unreported + problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if search.gave_up {
        problems.push(Problem::general("and more"));
    } else if more > 0 {
        problems.push(Problem::general(format!("and {more} more")));
    }
    if problems.is_empty() {
        problems.push(Problem::general("the settings are invalid"));
    }
    problems
}

/// With more settings than this, they are not tried one by one to find the wrong one.
const MAX_TRIED: usize = 256;

struct BadKeys {
    reported: Vec<Problem>,
    unreported: usize,
}

struct Search<'a> {
    read: Read,
    settings: &'a Settings,
    declared: &'a Fields,
    known: Known,
    entries: Vec<(&'a str, &'a str)>,
    /// Which settings further passes omit.
    skip: Vec<bool>,
    /// Keys that the type has and that are omitted nevertheless.
    omitted: Vec<&'a str>,
    problems: Vec<Problem>,
    /// Whether there may be more problems than were looked for.
    gave_up: bool,
}

impl<'a> Search<'a> {
    fn new(read: Read, settings: &'a Settings, declared: &'a Fields, known: Known) -> Self {
        let entries: Vec<_> = settings.iter().collect();
        let skip = vec![false; entries.len()];
        Self {
            read,
            settings,
            declared,
            known,
            entries,
            skip,
            omitted: Vec::new(),
            problems: Vec::new(),
            gave_up: false,
        }
    }

    /// Omits keys that are unknown or given twice.
    fn omit_bad_keys(&mut self) -> BadKeys {
        let names = names(self.declared, self.known);
        let (mut reported, mut unreported) = (Vec::new(), 0);
        let mut start = 0;
        let entries = self.entries.clone();
        for same in entries.chunk_by(|(a, _), (b, _)| a.eq_ignore_ascii_case(b)) {
            let range = start..start + same.len();
            start = range.end;
            let key = same[0].0;
            let name = self.known.name(self.declared, key);
            if name.is_some() && same.len() == 1 {
                continue;
            }
            self.skip[range].fill(true);
            self.omitted.extend(name);
            if reported.len() == MAX_PROBLEMS {
                unreported += 1;
                continue;
            }
            reported.push(match name {
                Some(name) => Problem::new(shown(name), twice(same)),
                None => Problem::new(shown(key), unknown_key(key, &names)),
            });
        }
        BadKeys { reported, unreported }
    }

    /// Reads until there is no new wrong value. Returns the required setting that is missing, if
    /// any.
    fn values(&mut self) -> Option<&'static str> {
        while self.problems.len() < MAX_PROBLEMS {
            let trace = Trace::new();
            let (index, alias_of, message) = match self.read(&self.skip, &trace) {
                Ok(()) | Err(Fault::Key) => return None,
                Err(Fault::Missing(name)) => return Some(name),
                Err(Fault::At { index, message }) => (Some(index), None, message),
                Err(Fault::Twice(name)) => {
                    let message = "given twice, under two of its names; give it once";
                    (Some(trace.index.get()), Some(name), message.to_owned())
                }
                Err(fault) => {
                    let message = self.sentence(fault);
                    (self.culprit(trace.loose.get(), &message), None, message)
                }
            };
            // Each round omits one more setting, so the rounds end.
            let index = index.filter(|index| self.skip.get(*index) == Some(&false));
            let Some((index, (key, _))) = index.and_then(|n| Some((n, *self.entries.get(n)?)))
            else {
                // An omitted setting may be the reason.
                if self.omitted.is_empty() {
                    self.problems.push(Problem::general(message));
                }
                return None;
            };
            let key = self.known.name(self.declared, key).unwrap_or(key);
            self.skip[index] = true;
            self.omitted.push(key);
            self.problems.push(Problem::new(shown(alias_of.unwrap_or(key)), message));
        }
        self.gave_up = self.read(&self.skip, &Trace::new()).is_err();
        None
    }

    fn read(&self, skip: &[bool], trace: &Trace) -> Result<(), Fault> {
        (self.read)(Table { settings: self.settings, declared: self.declared, skip, trace })
    }

    fn sentence(&self, fault: Fault) -> String {
        fault.sentence(self.entries.iter().map(|(_, value)| *value))
    }

    /// The setting without which a failure that names no setting disappears or changes.
    ///
    /// Serde collects the settings of a flattened struct before it reads any of them, so which one
    /// failed is lost. `loose` has a bit for each setting that was collected. If there are none,
    /// the failure is the author's own, about all settings together.
    fn culprit(&self, loose: u64, message: &str) -> Option<usize> {
        // Each try reads everything again, which is too slow for thousands of them.
        if self.entries.len() > MAX_TRIED {
            return None;
        }
        let candidates = (0..self.entries.len().min(u64::BITS as usize))
            .filter(|index| loose >> index & 1 == 1 && !self.skip[*index]);
        candidates.into_iter().find(|index| {
            let mut skip = self.skip.clone();
            skip[*index] = true;
            match self.read(&skip, &Trace::new()) {
                Ok(()) => true,
                Err(fault) => self.sentence(fault) != message,
            }
        })
    }

    /// Reports `first` and all other required settings that are missing.
    fn missing(&mut self, first: &'static str) {
        let required = self.declared.iter().filter(|field| field.required);
        for field in required {
            let given = self.entries.iter().any(|(key, _)| self.may_be(key, &field.name));
            if !given {
                self.problems.push(Problem::new(&field.name, required_sentence(field)));
            }
        }
        // From serde, which knows the aliases, but not what was omitted.
        let reported = self.problems.iter().any(|problem| problem.key.as_deref() == Some(first));
        if !reported && !self.omitted.iter().any(|key| self.may_be(key, first)) {
            let message = match self.declared.named(first) {
                Some(field) => required_sentence(field),
                None => "is required".to_owned(),
            };
            self.problems.push(Problem::new(first, message));
        }
    }

    /// Whether `key` is `name` or may be an alias of it.
    ///
    /// Serde lists the names of one field next to each other, without marking where the next field
    /// begins. A name that is not in the schema is an alias of one of its neighbours, and it is not
    /// known of which. Reporting a setting as missing that was given would be worse than reporting
    /// it one request later.
    fn may_be(&self, key: &str, name: &str) -> bool {
        if key.eq_ignore_ascii_case(name) {
            return true;
        }
        let Known::Struct(names) = self.known else { return false };
        let place = |key: &str| names.iter().position(|name| name.eq_ignore_ascii_case(key));
        let (Some(a), Some(b)) = (place(key), place(name)) else { return false };
        let between = if a < b { a..b } else { b + 1..a + 1 };
        names[between].iter().all(|name| self.declared.named(name).is_none())
    }
}

/// The names to suggest for an unknown key.
pub(super) fn names(declared: &Fields, known: Known) -> Vec<&str> {
    match known {
        Known::Struct(names) if declared.is_empty() => names.to_vec(),
        _ => declared.iter().map(|field| field.name.as_str()).collect(),
    }
}

fn shown(key: &str) -> String {
    printable(key, MAX_KEY_CHARS)
}

fn twice(same: &[(&str, &str)]) -> String {
    let keys = same.iter().take(2).map(|(key, _)| format!("`{}`", shown(key)));
    let keys = keys.collect::<Vec<_>>().join(" and ");
    format!("given twice, as {keys}; keys are case-insensitive, so give it once")
}

pub(super) fn unknown_key(key: &str, names: &[&str]) -> String {
    if let Some(name) = nearest(key, names) {
        return format!("unknown; did you mean `{name}`?");
    }
    if names.is_empty() {
        return "unknown; this extension has no settings of this kind".to_owned();
    }
    format!("unknown; expected {}", kind::one_of(names.iter().copied()))
}

/// "is required: …" with the first paragraph of the description, or the kind.
fn required_sentence(field: &Field) -> String {
    let words = field.description.split("\n\n").next().unwrap_or_default();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.trim_end_matches('.') {
        "" => format!("is required: {}", field.kind),
        words => format!("is required: {words}"),
    }
}
