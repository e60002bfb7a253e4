//! All settings of one request, read as the author's struct.
//!
//! One pass, without allocations of its own. It stops at the first problem; `explain` then finds
//! the others by omitting that setting.

use std::cell::Cell;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::forms::Form;
use super::value::{Place, Value};
use crate::extension::describe::{Fields, Shape};
use crate::extension::settings::{Iter, Settings};

/// Which keys the author's type has, as serde passes them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known {
    /// A struct: its fields and their aliases.
    Struct(&'static [&'static str]),
    /// A map, or a struct with a flattened part; only the schema has the names.
    Map,
}

impl Known {
    /// The name that the type has for `key`; `None` if it does not have it.
    pub(super) fn name<'a>(self, declared: &'a Fields, key: &'a str) -> Option<&'a str> {
        match self {
            Self::Struct(names) => {
                names.iter().copied().find(|name| name.eq_ignore_ascii_case(key))
            }
            Self::Map => match declared.named(key) {
                Some(field) => Some(&field.name),
                None => declared.is_open().then_some(key),
            },
        }
    }
}

/// What a pass records for the explanation of its failure.
pub(super) struct Trace {
    pub(super) known: Cell<Known>,
    /// The setting that was read last.
    pub(super) index: Cell<usize>,
    /// Whether a setting was read without asking for a type, as those of a flattened struct are.
    pub(super) loose: Cell<bool>,
}

impl Trace {
    pub(super) fn new() -> Self {
        // A type that does not ask for fields has none.
        Self { known: Cell::new(Known::Struct(&[])), index: Cell::new(0), loose: Cell::new(false) }
    }
}

/// The settings as a deserializer for the author's type.
#[derive(Clone, Copy)]
pub(in crate::extension) struct Table<'a> {
    pub(super) settings: &'a Settings,
    pub(super) declared: &'a Fields,
    /// Settings to omit, by index; may be shorter than the settings.
    pub(super) skip: &'a [bool],
    pub(super) trace: &'a Trace,
    pub(super) guess: &'a Guess<'a>,
}

/// How settings are read whose types do not ask for a type.
#[derive(Clone, Debug, Default)]
pub(super) struct Guess<'a> {
    /// The alternatives that they are read as; all of them at once if there is none.
    pub(super) form: Option<Form<'a>>,
    /// For some settings, that the text is taken as the next kind that fits, and how often.
    pub(super) ranks: Vec<(&'a str, usize)>,
    /// Names of choices that the schema does not have: aliases.
    pub(super) spellings: Vec<&'static str>,
    /// Whether values that may be of several kinds are replaced by samples, with which fewer
    /// alternatives fail on the way.
    pub(super) quiet: bool,
    /// The setting that is replaced by something that no type can read.
    pub(super) poisoned: Option<&'a str>,
}

impl<'a> Guess<'a> {
    fn shape(&self, name: &str) -> Option<&'a Shape> {
        self.form.as_ref()?.named(name).map(|property| &property.shape)
    }

    fn rank(&self, name: &str) -> usize {
        self.ranks.iter().find(|(key, _)| *key == name).map_or(0, |(_, rank)| *rank)
    }

    /// `text` as the type spells it, if it is the name of a choice.
    fn spelled(&self, shape: &Shape, text: &'a str) -> &'a str {
        if !shape.is_choice() {
            return text;
        }
        self.spellings.iter().find(|one| one.eq_ignore_ascii_case(text)).map_or(text, |one| one)
    }
}

impl<'a> Table<'a> {
    fn pairs(self, known: Known) -> Pairs<'a> {
        self.trace.known.set(known);
        Pairs {
            table: self,
            known,
            rest: self.settings.iter(),
            next: 0,
            previous: None,
            value: None,
        }
    }
}

impl<'de> Deserializer<'de> for Table<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(self.pairs(Known::Map))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(self.pairs(Known::Struct(fields)))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.pairs(Known::Struct(&[])).next_name()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Pairs<'a> {
    table: Table<'a>,
    known: Known,
    rest: Iter<'a>,
    /// The index of the setting that comes next.
    next: usize,
    previous: Option<&'a str>,
    /// The value that comes next.
    value: Option<Value<'a>>,
}

impl<'a> Pairs<'a> {
    /// Advances to the next setting; returns the name that the type has for it.
    fn next_name(&mut self) -> Result<Option<&'a str>, Fault> {
        for (key, text) in self.rest.by_ref() {
            let index = self.next;
            self.next += 1;
            if self.table.skip.get(index) == Some(&true) {
                continue;
            }
            self.table.trace.index.set(index);
            let name = self.known.name(self.table.declared, key).ok_or(Fault::Key)?;
            // Settings are sorted without regard to case.
            if self.previous.is_some_and(|previous| previous.eq_ignore_ascii_case(key)) {
                return Err(Fault::Key);
            }
            self.previous = Some(key);
            let guess = self.table.guess;
            let shape = guess.shape(name).unwrap_or_else(|| self.table.declared.shape(name));
            self.value = Some(Value {
                text: guess.spelled(shape, text),
                shape,
                rank: guess.rank(name),
                quiet: guess.quiet && guess.shape(name).is_some(),
                place: Place::Setting {
                    loose: &self.table.trace.loose,
                    poisoned: guess.poisoned == Some(name),
                },
            });
            return Ok(Some(name));
        }
        Ok(None)
    }
}

impl<'de> de::MapAccess<'de> for Pairs<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(name) = self.next_name()? else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let index = self.table.trace.index.get();
        let value =
            self.value.take().ok_or_else(|| de::Error::custom("a value without its key"))?;
        let Trace { loose, .. } = self.table.trace;
        let loose_before = loose.replace(false);
        let read = seed.deserialize(value);
        let is_loose = loose.get();
        loose.set(loose_before || is_loose);
        if value.is_poisoned() && !is_loose {
            // Its type asked for what it is, so it was used.
            return Err(Fault::Poison);
        }
        read.map_err(|fault| match fault {
            Fault::Poison => fault,
            Fault::Unmatched => Fault::At { index, message: value.refusal() },
            fault => Fault::At { index, message: fault.sentence() },
        })
    }
}
