//! All settings of one request, read as the author's struct.
//!
//! One pass, without allocations of its own. It stops at the first problem; `explain` then finds
//! the others by omitting that setting.

use std::cell::Cell;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::value::{Place, Value};
use crate::extension::describe::Fields;
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
    /// Which settings were read without asking for a type, as those of a flattened struct are: one
    /// bit for each of the first 64 settings. A list would be an allocation in every pass, for a
    /// better message in a rare failure.
    pub(super) loose: Cell<u64>,
}

impl Trace {
    pub(super) fn new() -> Self {
        // A type that does not ask for fields has none.
        Self { known: Cell::new(Known::Struct(&[])), index: Cell::new(0), loose: Cell::new(0) }
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
            let bit = u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index));
            self.value = Some(Value {
                text,
                shape: self.table.declared.shape(name),
                place: Place::Setting { loose: &self.table.trace.loose, bit: bit.unwrap_or(0) },
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
        seed.deserialize(value)
            .map_err(|fault| Fault::At { index, message: fault.sentence([value.text]) })
    }
}
