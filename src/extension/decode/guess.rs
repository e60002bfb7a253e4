//! Finds out how to read settings whose types do not ask for a type.
//!
//! Serde collects such settings before it looks at what they should be (`describe::shape`). So
//! alternatives are tried, at most [`MAX_PASSES`] of them: what the schema makes likely first, and
//! then for one setting after the other the next kind that its text fits.
//!
//! A reading that succeeds may have lost something: a variant does not read a setting of another
//! one, and a flattened `Option` whose group is incomplete becomes `None`. So each setting is tried
//! with something in its place that no type can read. If that changes nothing, the setting was not
//! used, and the reading is refused.

use super::Read;
use super::fault::{Fault, Journal, recorded};
use super::forms::{Given, forms};
use super::table::{Guess, Known, Table, Trace};
use crate::extension::describe::Fields;
use crate::extension::settings::Settings;

const MAX_PASSES: usize = 128;

/// With more settings than this, only the forms are tried: each pass reads all of them.
const MAX_VARIED: usize = 256;

/// How many forms are tried.
const MAX_FORMS: usize = 8;

/// A setting that a reading did not use, and the failure that made it useless.
#[derive(Debug)]
pub(super) struct Unused<'a> {
    pub(super) name: &'a str,
    pub(super) why: Option<Fault>,
}

/// How `settings` are read, or what a reading did not use.
pub(super) fn guess<'a>(
    read: Read,
    settings: &'a Settings,
    declared: &'a Fields,
    known: Known,
) -> Result<Guess<'a>, Vec<Unused<'a>>> {
    let given = Given::new(settings.iter().enumerate(), declared, known);
    let forms = forms(declared, &given);
    let mut search = Search { read, settings, declared, given, passes: 0, unused: Vec::new() };
    let mut guesses = vec![Guess::default()];
    guesses.extend(
        forms
            .into_iter()
            .take(MAX_FORMS)
            .map(|form| Guess { form: Some(form), ..Guess::default() }),
    );
    for guess in &mut guesses {
        if search.try_guess(guess) {
            return Ok(guess.clone());
        }
    }
    let few = settings.iter().nth(MAX_VARIED).is_none();
    for guess in guesses.iter().filter(|_| few) {
        if let Some(found) = search.vary(guess) {
            return Ok(found);
        }
    }
    Err(search.unused)
}

struct Search<'a> {
    read: Read,
    settings: &'a Settings,
    declared: &'a Fields,
    given: Given<'a>,
    passes: usize,
    /// Of the first reading that succeeded.
    unused: Vec<Unused<'a>>,
}

impl<'a> Search<'a> {
    fn pass(&self, guess: &Guess<'a>) -> (Result<(), Fault>, Journal) {
        let Self { settings, declared, .. } = *self;
        let trace = Trace::new();
        recorded(|| (self.read)(Table { settings, declared, skip: &[], trace: &trace, guess }))
    }

    /// Whether a reading succeeds that uses all settings. Tries again with names that the type
    /// turns out to have.
    fn try_guess(&mut self, guess: &mut Guess<'a>) -> bool {
        let (mut outcome, mut journal) = self.pass(guess);
        self.passes += 1;
        let spellings = self.spellings(&journal);
        if outcome.is_err() && !spellings.is_empty() {
            guess.spellings.extend(spellings);
            (outcome, journal) = self.pass(guess);
        }
        if outcome.is_err() {
            return false;
        }
        let unused = self.unused(guess, &journal);
        let all_used = unused.is_empty();
        if self.unused.is_empty() {
            self.unused = unused;
        }
        all_used
    }

    /// `guess`, changed for one setting or for all so that it succeeds.
    fn vary(&mut self, guess: &Guess<'a>) -> Option<Guess<'a>> {
        let ways = |(name, (_, text)): (&&'a str, &(usize, &'a str))| {
            let shape = match guess.form.as_ref().and_then(|form| form.named(name)) {
                Some(property) => &property.shape,
                None => self.declared.shape(name),
            };
            (*name, shape.ways(text))
        };
        let ways: Vec<_> =
            self.given.texts.iter().map(ways).filter(|(_, ways)| *ways > 1).collect();
        let single =
            ways.iter().flat_map(|(name, ways)| (1..*ways).map(|rank| vec![(*name, rank)]));
        let most = ways.iter().map(|(_, ways)| *ways).max().unwrap_or(1);
        let all = (1..most).map(|rank| ways.iter().map(|(name, _)| (*name, rank)).collect());
        for ranks in single.chain(all) {
            if self.passes >= MAX_PASSES {
                return None;
            }
            let mut guess = Guess { ranks, ..guess.clone() };
            if self.try_guess(&mut guess) {
                return Some(guess);
            }
        }
        None
    }

    /// Names that the type has for texts that differ from them in case.
    fn spellings(&self, journal: &Journal) -> Vec<&'static str> {
        let names = journal.faults.iter().flat_map(|fault| match fault {
            Fault::Choice(names) => *names,
            _ => &[],
        });
        let is_meant = |name: &&str| {
            let texts = || self.given.texts.values().map(|(_, text)| *text);
            texts().any(|text| text.eq_ignore_ascii_case(name))
        };
        names.copied().filter(is_meant).collect()
    }

    /// The settings that a reading did not use, which made the failures in `journal`.
    fn unused(&self, guess: &Guess<'a>, journal: &Journal) -> Vec<Unused<'a>> {
        // Failures of values that are read in the end would be in the way.
        let quiet = Guess { quiet: guess.form.is_some(), ..guess.clone() };
        let (outcome, quieter) = self.pass(&quiet);
        let (guess, journal) = match outcome {
            // Unless a value is refused as all that it may be.
            Ok(()) if quieter.unmatched() >= journal.unmatched() => (&quiet, &quieter),
            _ => (guess, journal),
        };
        let check = |name: &&'a str| {
            let poisoned = Guess { poisoned: Some(name), ..guess.clone() };
            let (outcome, poisoned) = self.pass(&poisoned);
            if outcome.is_err() {
                return None;
            }
            // Up to where it is read, both readings are the same.
            let Some(at) = poisoned.faults.iter().position(|fault| *fault == Fault::Poison) else {
                return Some(Unused { name, why: None });
            };
            // If it was read in vain, it failed in the place of what failed before. Otherwise its
            // failure is one more.
            let repeated = poisoned.faults[at + 1..]
                .iter()
                .take_while(|fault| matches!(fault, Fault::Poison | Fault::Unmatched))
                .count();
            let failed_before = journal.count > at;
            let instead = poisoned.count - repeated <= journal.count;
            (failed_before && instead)
                .then(|| Unused { name, why: journal.faults.get(at).cloned() })
        };
        self.given.texts.keys().filter_map(check).collect()
    }
}
