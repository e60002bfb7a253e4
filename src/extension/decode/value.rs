//! One value: a text, read as what the author's type asks for.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Display;
use std::str::Split;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Visitor};

use super::fault::{Fault, last_message};
use crate::extension::describe::kind::values;
use crate::extension::describe::{Bounds, Kind, Offer, Shape, boolean};

/// A type with named parts, or variants with contents, which a person could not type as one text.
const NESTED: Fault = Fault::Plain(Cow::Borrowed(NESTED_TYPE));

pub(super) const NESTED_TYPE: &str = "cannot be set: this extension declares a nested type for \
    it, and only text, numbers, true or false, choices and lists of these can be set";

/// The text of one setting, or of one item in a list.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) text: &'a str,
    pub(super) shape: &'a Shape,
    /// How many of the kinds that the text fits are passed over.
    pub(super) rank: usize,
    /// Whether a sample is read instead.
    pub(super) quiet: bool,
    pub(super) place: Place<'a>,
}

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// It is a setting; `loose` is set if it is read without asking for a type. A poisoned one
    /// cannot be read as anything.
    Setting { loose: &'a Cell<bool>, poisoned: bool },
    /// It is an item of a list, and so cannot be a list: both would be separated by commas.
    Item,
}

impl<'a> Value<'a> {
    pub(super) fn is_poisoned(self) -> bool {
        matches!(self.place, Place::Setting { poisoned: true, .. })
    }

    /// Why the text is not acceptable, if no alternative accepts it.
    pub(super) fn refusal(self) -> String {
        if self.shape.accepts(self.text) {
            // The type has rules of its own.
            let several = self.shape.must_be_one_of_several(self.text);
            return several
                .or_else(|| last_message().map(Fault::sentence))
                .unwrap_or_else(|| self.shape.must_be());
        }
        if let (Some(Kind::List(shape)), Ok(Items { texts: Some(items), .. })) =
            (self.shape.only(), self.items())
        {
            let mut items = items.map(str::trim).enumerate();
            if let Some((n, text)) = items.find(|(_, text)| !shape.accepts(text)) {
                let item = Value { text, shape, rank: 0, quiet: false, place: Place::Item };
                return format!("value {} of the list: {}", n + 1, item.refusal());
            }
        }
        match self.deserialize_any(de::IgnoredAny) {
            Ok(_) => self.shape.must_be(),
            Err(fault) => fault.sentence(),
        }
    }

    fn items(self) -> Result<Items<'a>, Fault> {
        if matches!(self.place, Place::Item) {
            return Err(NESTED);
        }
        if self.text.bytes().filter(|byte| *byte == b',').count() >= MAX_ITEMS {
            return Err(plain(format!("must have at most {MAX_ITEMS} values")));
        }
        let texts = (!self.text.trim().is_empty()).then(|| self.text.split(','));
        Ok(Items { texts, shape: self.shape, rank: self.rank, quiet: self.quiet, count: 0 })
    }

    fn boolean(self) -> Result<bool, Fault> {
        boolean(self.text).ok_or_else(|| plain("must be true or false"))
    }

    fn number(self, most: f64) -> Result<f64, Fault> {
        // Rust parses "nan" and "inf", and too large a number as "inf", with which an author's
        // comparisons would not work as intended.
        match self.text.parse::<f64>() {
            Ok(number) if number.abs() <= most && self.admits(number) => Ok(number),
            Ok(number) if number.is_finite() && number.abs() > most => {
                Err(plain(format!("must be a number from -{most:.1e} to {most:.1e}")))
            }
            // Without the extremes of the type, which are no help.
            _ => Err(plain(match (self.bounds().least, self.bounds().most) {
                (None, None) => "must be a number, such as `2.5`".to_owned(),
                (Some(least), None) => format!("must be a number, at least {least}"),
                (None, Some(most)) => format!("must be a number, at most {most}"),
                (Some(least), Some(most)) => format!("must be a number from {least} to {most}"),
            })),
        }
    }

    /// Fails with what is wrong with a text that is of no kind that it may be.
    fn explain<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.shape.only() {
            Some(Kind::List(_)) => self.deserialize_seq(visitor),
            Some(Kind::Tuple(shapes)) => self.deserialize_tuple(shapes.len(), visitor),
            Some(Kind::Boolean) => self.deserialize_bool(visitor),
            Some(Kind::Number(bounds)) if bounds.single => self.deserialize_f32(visitor),
            Some(Kind::Number(_)) => self.deserialize_f64(visitor),
            Some(Kind::Whole(bounds)) => {
                let (least, most) = bounds.of_type();
                Err(self.must_be_whole(&least, &most))
            }
            _ => Err(plain(self.shape.must_be())),
        }
    }

    fn bounds(self) -> Bounds {
        self.shape.bounds()
    }

    /// Whether a number is within what the author declared.
    fn admits(self, number: f64) -> bool {
        self.bounds().admits(number)
    }

    /// With the declared bounds, or those of the type.
    fn must_be_whole(self, least: &dyn Display, most: &dyn Display) -> Fault {
        let shown = |bound: Option<f64>, of_type: &dyn Display| {
            bound.map_or_else(|| of_type.to_string(), |bound| bound.to_string())
        };
        let bounds = self.bounds();
        let (least, most) = (shown(bounds.least, least), shown(bounds.most, most));
        plain(format!("must be a whole number from {least} to {most}"))
    }
}

/// Each item takes some dozens of bytes: without a limit, a request of a few megabytes of commas
/// would take hundreds of megabytes.
const MAX_ITEMS: usize = 10_000;

fn plain(words: impl Into<Cow<'static, str>>) -> Fault {
    Fault::Plain(words.into())
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $number:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            #[allow(
                clippy::cast_lossless,
                clippy::cast_precision_loss,
                reason = "declared bounds are small enough for a float"
            )]
            match self.text.parse::<$number>() {
                Ok(number) if self.admits(number as f64) => visitor.$visit(number),
                _ => Err(self.must_be_whole(&<$number>::MIN, &<$number>::MAX)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Fault;

    /// For types that do not ask for a type: flattened ones, untagged enums.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Place::Setting { loose, poisoned } = self.place {
            loose.set(true);
            if poisoned {
                return visitor.visit_newtype_struct(Poison(POISON_DEPTH));
            }
        }
        if !self.shape.is_settable() {
            return Err(NESTED);
        }
        let sample = self.shape.sample().filter(|_| self.quiet);
        let offers = self.shape.offers(self.text);
        let Some(offer) = sample.as_ref().or(offers.get(self.rank)).or(offers.last()) else {
            return self.explain(visitor);
        };
        match *offer {
            Offer::Text(text) => visitor.visit_borrowed_str(text),
            Offer::Empty => visitor.visit_unit(),
            Offer::Boolean(truth) => visitor.visit_bool(truth),
            Offer::Unsigned(number) => visitor.visit_u64(number),
            Offer::Signed(number) => visitor.visit_i64(number),
            Offer::Number(number) => visitor.visit_f64(number),
            Offer::List(_) => self.deserialize_seq(visitor),
            Offer::Tuple(shapes) => self.deserialize_tuple(shapes.len(), visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.boolean()?)
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.number(f64::from(f32::MAX))?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.number(f64::MAX)?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut chars = self.text.chars();
        match (chars.next(), chars.next()) {
            (Some(only), None) => visitor.visit_char(only),
            _ => Err(plain("must be a single character")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.shape.spelled(self.text))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.text.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.text.as_bytes())
    }

    /// A setting that is given is present, even if it is empty.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.text.is_empty() { visitor.visit_unit() } else { Err(plain("must be empty")) }
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

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut items = self.items()?;
        let list = visitor.visit_seq(&mut items)?;
        if items.texts.is_some_and(|mut texts| texts.next().is_some()) {
            let s = if items.count == 1 { "" } else { "s" };
            return Err(plain(format!("must have at most {} value{s}", items.count)));
        }
        Ok(list)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        size: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut items = self.items()?;
        let given = items.texts.clone().map_or(0, Iterator::count);
        if given != size {
            return Err(plain(format!("must be {}", values(size))));
        }
        visitor.visit_seq(&mut items)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        size: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(size, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(NESTED)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        Err(NESTED)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let alike = variants.iter().find(|variant| variant.eq_ignore_ascii_case(self.text));
        let text = match alike {
            Some(variant) if !variants.contains(&self.text) => variant,
            // Unchanged, also if it is unknown: the type may have a variant for all others.
            _ => self.text,
        };
        visitor.visit_enum(Choice(text))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Place::Setting { loose, .. } = self.place {
            loose.set(true);
        }
        visitor.visit_unit()
    }
}

/// What no type can read, not even as a wrapper of something; serde ignores it where it ignores a
/// value.
struct Poison(u8);

/// Types may unwrap as many wrappers.
const POISON_DEPTH: u8 = 4;

impl<'de> Deserializer<'de> for Poison {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            0 => visitor.visit_unit(),
            depth => visitor.visit_newtype_struct(Self(depth - 1)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// The items of a list: what stands between commas, without the space around.
struct Items<'a> {
    texts: Option<Split<'a, char>>,
    /// Of the whole list.
    shape: &'a Shape,
    rank: usize,
    quiet: bool,
    count: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(text) = self.texts.as_mut().and_then(Iterator::next) else { return Ok(None) };
        self.count += 1;
        let text = text.trim();
        let shape = self.shape.item(self.count - 1);
        let value = Value { text, shape, rank: self.rank, quiet: self.quiet, place: Place::Item };
        seed.deserialize(value).map(Some).map_err(|fault| {
            let sentence = match fault {
                Fault::Unmatched => value.refusal(),
                fault => fault.sentence(),
            };
            plain(format!("value {} of the list: {sentence}", self.count))
        })
    }
}

/// A variant by its name, without contents.
struct Choice<'a>(&'a str);

impl<'de> de::EnumAccess<'de> for Choice<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name: BorrowedStrDeserializer<'de, Fault> = BorrowedStrDeserializer::new(self.0);
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Choice<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Fault> {
        Err(NESTED)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(NESTED)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        Err(NESTED)
    }
}
