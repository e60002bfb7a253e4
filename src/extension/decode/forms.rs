//! Which of the alternatives that a type has, given settings are meant for.
//!
//! A [`Form`] is one choice among all alternatives: the settings that go together. There may be as
//! many as the product of all alternatives, so only the ones that fit best are kept on the way.

use std::collections::BTreeMap;

use super::table::Known;
use crate::extension::describe::{Fields, Part, Property};

/// How many forms are kept. Real types have some dozens, of which few fit.
const MAX_FORMS: usize = 64;

/// The given settings that a type declares, by the type's name for them: index and text.
#[derive(Debug, Default)]
pub(super) struct Given<'a> {
    pub(super) texts: BTreeMap<&'a str, (usize, &'a str)>,
    /// Those whose text no alternative accepts.
    wrong: Vec<&'a str>,
}

impl<'a> Given<'a> {
    pub(super) fn new(
        entries: impl Iterator<Item = (usize, (&'a str, &'a str))>,
        declared: &'a Fields,
        known: Known,
    ) -> Self {
        let declared = entries.filter_map(|(index, (key, text))| {
            let field = declared.named(known.name(declared, key)?)?;
            Some((field, (index, text)))
        });
        let mut given = Self::default();
        for (field, (index, text)) in declared {
            if !field.shape.accepts(text) {
                given.wrong.push(&field.name);
            }
            given.texts.insert(&field.name, (index, text));
        }
        given
    }

    /// Whether the text of `name` decides for one of several alternatives, rather than for none.
    fn names_an_alternative(&self, name: &str) -> bool {
        !self.wrong.contains(&name)
    }
}

/// Settings that go together.
#[derive(Clone, Debug, Default)]
pub(super) struct Form<'a> {
    properties: Vec<&'a Property>,
}

impl<'a> Form<'a> {
    /// The setting of that name, if it belongs to this form.
    pub(super) fn named(&self, name: &str) -> Option<&'a Property> {
        self.properties.iter().copied().find(|property| property.name == name)
    }

    /// Required settings that are not given.
    fn missing(&self, given: &Given<'a>) -> impl Iterator<Item = &'a str> {
        let required = self.properties.iter().filter(|property| property.required);
        required.map(|it| it.name.as_str()).filter(|name| !given.texts.contains_key(name))
    }

    /// Whether a text that would name one of several alternatives names none.
    fn is_misnamed(&self, given: &Given<'_>) -> bool {
        self.properties
            .iter()
            .any(|it| it.shape.is_name() && given.wrong.contains(&it.name.as_str()))
    }

    /// How badly the given settings fit, the smallest first: wrong values of choices, which name an
    /// alternative; settings that do not belong to it; other wrong values; missing ones.
    fn misfit(&self, given: &Given<'a>) -> (usize, usize, usize, usize) {
        let (mut names, mut values, mut covered) = (0, 0, 0);
        for property in &self.properties {
            let Some((_, text)) = given.texts.get(property.name.as_str()) else { continue };
            covered += 1;
            if property.shape.accepts(text) {
            } else if !property.shape.is_name() {
                values += 1;
            } else if given.names_an_alternative(&property.name) {
                names += 1;
            }
        }
        let missing = self.missing(given).count();
        (names, given.texts.len().saturating_sub(covered), values, missing)
    }
}

/// Required settings that are not given.
#[derive(Debug, Default)]
pub(super) struct Missing<'a> {
    /// Those of every alternative that may be meant.
    pub(super) all: Vec<&'a str>,
    /// What is required besides by one alternative or another, if each requires something.
    pub(super) any: Vec<Vec<&'a str>>,
}

impl<'a> Missing<'a> {
    /// What those of `forms` require that the given settings fit best.
    pub(super) fn of(forms: &[Form<'a>], given: &Given<'a>) -> Self {
        let Some(best) = forms.first().filter(|form| !form.is_misnamed(given)) else {
            return Self::default();
        };
        let fit = |form: &Form<'_>| {
            let (names, others, values, _) = form.misfit(given);
            (names, others, values)
        };
        let meant = forms.iter().filter(|form| fit(form) == fit(best));
        let mut any: Vec<Vec<_>> = meant.map(|form| form.missing(given).collect()).collect();
        let mut all: Vec<_> = best.missing(given).collect();
        all.retain(|name| any.iter().all(|missing| missing.contains(name)));
        for missing in &mut any {
            missing.retain(|name| !all.contains(name));
            missing.sort_unstable();
        }
        any.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        any.dedup();
        // What names an alternative comes first; then it is known what else is required.
        let unnamed = |name: &&str| best.named(name).is_some_and(|it| it.shape.is_name());
        if any.iter().any(Vec::is_empty) || all.iter().any(unnamed) {
            any.clear();
        }
        Self { all, any }
    }
}

/// The forms of a type, those first that fit the given settings best; at least one.
pub(super) fn forms<'a>(declared: &'a Fields, given: &Given<'a>) -> Vec<Form<'a>> {
    of_part(declared.layout(), given)
}

fn of_part<'a>(part: &'a Part, given: &Given<'a>) -> Vec<Form<'a>> {
    let mut forms = vec![Form { properties: part.properties.iter().collect() }];
    for choice in &part.choices {
        let options: Vec<_> =
            best(choice.iter().flat_map(|part| of_part(part, given)).collect(), given);
        let both = |form: &Form<'a>, option: &Form<'a>| Form {
            properties: form.properties.iter().chain(&option.properties).copied().collect(),
        };
        let product = forms.iter().flat_map(|form| options.iter().map(move |it| both(form, it)));
        forms = best(product.collect(), given);
    }
    forms
}

fn best<'a>(mut forms: Vec<Form<'a>>, given: &Given<'a>) -> Vec<Form<'a>> {
    forms.sort_by_cached_key(|form| form.misfit(given));
    forms.truncate(MAX_FORMS);
    forms
}
