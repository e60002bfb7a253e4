//! Finds all that is wrong with settings that cannot be read.
//!
//! Serde stops at the first failure. So the failing setting is recorded and omitted, and the rest
//! is read again, until there is no new failure. An omitted setting counts as given: it is not
//! reported as missing as well.

use super::fault::{Fault, Journal, printable, recorded};
use super::forms::{Form, Given, Missing, forms};
use super::guess::Unused;
use super::nearest::nearest;
use super::table::{Guess, Known, Table, Trace};
use super::value::{Place, Value};
use super::{MAX_KEY_CHARS, MAX_PROBLEMS, Read};
use crate::error::Problem;
use crate::extension::describe::{Field, Fields, kind};
use crate::extension::settings::Settings;

/// Finds all that is wrong with `settings`, of which something is, if only that some are `unused`.
pub(super) fn explain(
    read: Read,
    settings: &Settings,
    declared: &Fields,
    known: Known,
    unused: &[Unused<'_>],
) -> Vec<Problem> {
    let mut search = Search::new(read, settings, declared, known);
    let keys = search.omit_bad_keys();
    let forms = search.against_schema();
    let missing = search.values();
    if let Some(missing) = missing {
        search.missing(missing);
    }
    search.missing_of(&forms);
    if search.problems.is_empty() && keys.reported.is_empty() {
        search.unused(unused);
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
        problems.push(Problem::general("these settings do not go together"));
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
    /// How settings are read whose types do not ask for a type.
    guess: Guess<'a>,
    /// Those that the type declares.
    given: Given<'a>,
    /// Whether there are such settings.
    loose: bool,
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
            guess: Guess::default(),
            given: Given::default(),
            loose: false,
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

    /// Checks what the schema can tell, if types do not ask for a type: serde would stop at the
    /// first of several alternatives. Returns the alternatives, the likeliest first.
    fn against_schema(&mut self) -> Vec<Form<'a>> {
        let entries = self.entries.iter().copied().enumerate();
        let entries = entries.filter(|(index, _)| !self.skip[*index]);
        self.given = Given::new(entries, self.declared, self.known);
        let forms = forms(self.declared, &self.given);
        self.guess.form = forms.first().cloned();
        let trace = Trace::new();
        let _ = self.read(&self.skip, &trace);
        self.loose = trace.loose.get();
        let may_be_loose = self.loose || matches!(self.known, Known::Map);
        let Some(form) = forms.first().filter(|_| may_be_loose) else { return Vec::new() };
        let mut given: Vec<_> = self.given.texts.iter().map(|(name, it)| (*name, *it)).collect();
        given.sort_by_key(|(_, (index, _))| *index);
        for (name, (index, text)) in given {
            let message = match form.named(name) {
                Some(property) if property.shape.accepts(text) => continue,
                // Perhaps by a name that the schema does not have.
                Some(property) if property.shape.is_choice() && property.shape.only().is_some() => {
                    continue;
                }
                Some(property) => {
                    let shape = &property.shape;
                    let place = Place::Setting { loose: &trace.loose, poisoned: false };
                    Value { text, shape, rank: 0, quiet: false, place }.refusal()
                }
                None => self.conflict(name, &forms),
            };
            self.report(index, name, message);
        }
        forms
    }

    /// Why `name` does not belong to the settings that are given.
    fn conflict(&self, name: &str, forms: &[Form<'_>]) -> String {
        for (other, (_, text)) in &self.given.texts {
            let mut with_both = forms
                .iter()
                .filter(|form| form.named(name).is_some())
                .map(|form| form.named(other));
            if *other == name
                || with_both.clone().any(|it| it.is_some_and(|it| it.shape.accepts(text)))
            {
                continue;
            }
            return match with_both.find_map(|it| it) {
                Some(_) => format!("is not a setting of this `{other}`"),
                None => format!("does not go together with `{other}`"),
            };
        }
        "does not go together with the other settings".to_owned()
    }

    /// Reports what is wrong with the setting at `index`, and omits it from then on.
    fn report(&mut self, index: usize, name: &'a str, message: String) {
        self.skip[index] = true;
        self.omitted.push(name);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(shown(name), message));
        }
    }

    /// Reads until there is no new wrong value. Returns the required setting that is missing, if
    /// any.
    fn values(&mut self) -> Option<&'static str> {
        while self.problems.len() < MAX_PROBLEMS {
            let trace = Trace::new();
            let (outcome, journal) = recorded(|| self.read(&self.skip, &trace));
            let (index, alias_of, message) = match outcome {
                Ok(()) | Err(Fault::Key) => return None,
                Err(Fault::Missing(name)) => return Some(name),
                Err(Fault::At { index, message }) => (Some(index), None, message),
                Err(Fault::Twice(name)) => {
                    let message = "given twice, under two of its names; give it once";
                    (Some(trace.index.get()), Some(name), message.to_owned())
                }
                Err(Fault::Extra(name)) => {
                    let name = self.given.texts.get_key_value(name.as_str());
                    let message = "does not go together with the other settings".to_owned();
                    (name.map(|(_, (index, _))| *index), None, message)
                }
                Err(fault) => {
                    let message = message_of(fault, &journal)?;
                    let culprit = self.culprit(&message);
                    let name = culprit.and_then(|index| self.name(index));
                    (culprit, None, self.message_for(name, message))
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
        let Self { settings, declared, .. } = *self;
        (self.read)(Table { settings, declared, skip, trace, guess: &self.guess })
    }

    /// The name that the type has for the setting at `index`.
    fn name(&self, index: usize) -> Option<&'a str> {
        self.known.name(self.declared, self.entries[index].0)
    }

    /// `message` about `name`, or all that it may be, if each alternative has failed.
    fn message_for(&self, name: Option<&str>, message: String) -> String {
        let all_failed = || recorded(|| self.read(&self.skip, &Trace::new())).1.unmatched() > 0;
        let given = name.and_then(|name| self.given.texts.get_key_value(name));
        let given = given.filter(|_| all_failed());
        let several = given.and_then(|(name, (_, text))| {
            let property = self.guess.form.as_ref().and_then(|form| form.named(name));
            let shape = property.map_or_else(|| self.declared.shape(name), |it| &it.shape);
            shape.must_be_one_of_several(text)
        });
        several.unwrap_or(message)
    }

    /// The setting without which a failure that names no setting disappears or changes.
    ///
    /// Serde collects the settings of a flattened struct before it reads any of them, so which one
    /// failed is lost. If none was collected, the failure is the author's own, about all settings
    /// together.
    fn culprit(&self, message: &str) -> Option<usize> {
        // Each try reads everything again, which is too slow for thousands of them.
        if !self.loose || self.entries.len() > MAX_TRIED {
            return None;
        }
        let names_an_alternative = |index: &usize| {
            let property = self.guess.form.as_ref()?.named(self.name(*index)?)?;
            Some(property.shape.is_name())
        };
        let mut candidates: Vec<usize> =
            (0..self.entries.len()).filter(|index| !self.skip[*index]).collect();
        candidates.sort_by_key(|index| names_an_alternative(index) == Some(true));
        let is_gone_without = |index: &usize| {
            let mut skip = self.skip.clone();
            skip[*index] = true;
            let (outcome, journal) = recorded(|| self.read(&skip, &Trace::new()));
            match outcome {
                Ok(()) => true,
                // Whatever else is wrong, this one is missed first.
                Err(Fault::Missing(missing)) if self.name(*index) == Some(missing) => false,
                Err(fault) => message_of(fault, &journal).as_deref() != Some(message),
            }
        };
        // Settings of one struct are read in order, so those after the failing one are not read.
        let is_read = |index: &usize| {
            let guess = Guess { poisoned: self.name(*index), ..self.guess.clone() };
            let (trace, skip) = (Trace::new(), self.skip.as_slice());
            let Self { settings, declared, .. } = *self;
            let table = Table { settings, declared, skip, trace: &trace, guess: &guess };
            recorded(|| (self.read)(table)).1.faults.contains(&Fault::Poison)
        };
        candidates.iter().copied().find(is_gone_without).or_else(|| {
            candidates.sort_unstable();
            candidates.into_iter().rfind(is_read)
        })
    }

    /// Reports what the alternatives require that may be meant.
    fn missing_of(&mut self, forms: &[Form<'a>]) {
        let Missing { all, any } = Missing::of(forms, &self.given);
        if !any.is_empty() && !any.iter().flatten().any(|name| self.omitted.contains(name)) {
            self.problems.push(Problem::general(any_required(&any)));
        }
        for name in all {
            let known = self.problems.iter().any(|it| it.key.as_deref() == Some(name));
            if !known && !self.omitted.contains(&name) {
                self.problems.push(self.is_required(name));
            }
        }
    }

    fn is_required(&self, name: &str) -> Problem {
        let message = match self.declared.named(name) {
            Some(field) => required_sentence(field),
            None => "is required".to_owned(),
        };
        Problem::new(name, message)
    }

    /// Whether `fault` is not made if `name` is omitted.
    fn is_gone_without(&self, name: &str, fault: &Fault) -> bool {
        let mut skip = self.skip.clone();
        if let Some((index, _)) = self.given.texts.get(name) {
            skip[*index] = true;
        }
        !recorded(|| self.read(&skip, &Trace::new())).1.faults.contains(fault)
    }

    /// Reports settings that a reading did not use, by what made them useless.
    fn unused(&mut self, unused: &[Unused<'_>]) {
        for Unused { why, .. } in unused {
            let problem = match why {
                Some(Fault::Missing(missing)) => self.is_required(missing),
                Some(fault) if fault.is_about_a_value() => {
                    let message = fault.clone().sentence();
                    let culprit =
                        unused.iter().rev().find(|it| self.is_gone_without(it.name, fault));
                    match culprit {
                        Some(culprit) => {
                            let message = self.message_for(Some(culprit.name), message);
                            Problem::new(culprit.name, message)
                        }
                        None => Problem::general(message),
                    }
                }
                _ => continue,
            };
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        if self.problems.is_empty() {
            let message = "does not go together with the other settings";
            self.problems.extend(unused.iter().map(|it| Problem::new(it.name, message)));
        }
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
            self.problems.push(self.is_required(first));
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

/// The message of a failed reading; none if only serde gave up on all alternatives.
fn message_of(fault: Fault, journal: &Journal) -> Option<String> {
    match fault {
        Fault::Unmatched | Fault::Poison => journal.last_message().map(Fault::sentence),
        fault => Some(fault.sentence()),
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

/// That one of `alternatives` is required.
fn any_required(alternatives: &[Vec<&str>]) -> String {
    if alternatives.iter().all(|names| names.len() == 1) {
        return format!("{} is required", kind::joined(&alternatives.concat(), "or"));
    }
    let all: Vec<_> = alternatives.iter().map(|names| kind::joined(names, "and")).collect();
    format!("one of these is required: {}", all.join("; "))
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
