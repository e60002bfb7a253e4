//! What texts a schema accepts, for types that do not ask serde for one.
//!
//! With `#[serde(flatten)]`, `untagged` and `tag`, serde takes each value as whatever it is and
//! looks later at what it should be. A setting is a text, so the schema has to say what the text
//! may be: a [`Shape`]. It may have several [`Kind`]s, such as a number or a word.
//!
//! A text is read as the most specific kind that fits: `5` as a number rather than as text. A
//! number that JSON would not accept, such as `007`, is text if it may be text, so that nothing of
//! it is lost.

use std::sync::LazyLock;

use serde_json::Value;

use super::kind::{branches, choices, without_examples, words};

/// All that a value may be; nothing if it cannot be set from text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    kinds: Vec<Kind>,
    /// In words that complete "must be".
    words: String,
}

/// One thing that a value may be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// One of some fixed texts.
    Choice(Vec<String>),
    /// Nothing but the empty text.
    Empty,
    Boolean,
    Whole(Bounds),
    Number(Bounds),
    /// Values of one shape, separated by commas.
    List(Shape),
    /// A fixed number of values, separated by commas.
    Tuple(Vec<Shape>),
    Text,
}

/// The smallest and the greatest number that is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bounds {
    /// As the author declared them.
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
    /// Of the type.
    whole: Option<(i128, i128)>,
    /// Whether the type is `f32`.
    pub(crate) single: bool,
}

impl Bounds {
    fn of(schema: &Value) -> Self {
        let number = |key| schema.get(key).and_then(Value::as_f64);
        let whole = match schema.get("format").and_then(Value::as_str) {
            Some("uint8") => Some((0, u8::MAX.into())),
            Some("uint16") => Some((0, u16::MAX.into())),
            Some("uint32") => Some((0, u32::MAX.into())),
            Some("uint" | "uint64" | "uint128") => Some((0, u64::MAX.into())),
            Some("int8") => Some((i8::MIN.into(), i8::MAX.into())),
            Some("int16") => Some((i16::MIN.into(), i16::MAX.into())),
            Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
            Some("int" | "int64") => Some((i64::MIN.into(), i64::MAX.into())),
            _ => None,
        };
        let single = schema.get("format").is_some_and(|format| *format == "float");
        Self { least: number("minimum"), most: number("maximum"), whole, single }
    }

    /// The smallest and the greatest whole number of the type.
    pub(crate) fn of_type(self) -> (i128, i128) {
        self.whole.unwrap_or((i64::MIN.into(), u64::MAX.into()))
    }

    /// Whether a number is within what the author declared.
    pub(crate) fn admits(self, number: f64) -> bool {
        self.least.is_none_or(|least| number >= least)
            && self.most.is_none_or(|most| number <= most)
    }
}

/// A text, as one kind of value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Offer<'a> {
    Text(&'a str),
    Empty,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Number(f64),
    List(&'a Shape),
    Tuple(&'a [Shape]),
}

/// Any text, unchanged.
pub(crate) static TEXT: LazyLock<Shape> =
    LazyLock::new(|| Shape { kinds: vec![Kind::Text], words: "text".to_owned() });

impl Shape {
    pub(super) fn of(schema: &Value) -> Self {
        let mut kinds = Vec::new();
        collect(schema, &mut kinds);
        Self { kinds, words: words(schema) }
    }

    /// What may be this or `other`, which is `words`.
    pub(super) fn or(mut self, other: &Self, words: &str) -> Self {
        for kind in &other.kinds {
            add(&mut self.kinds, kind.clone());
        }
        words.clone_into(&mut self.words);
        self
    }

    /// Whether it can be set from text at all.
    pub(crate) fn is_settable(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Whether it is one fixed text, as what names an alternative is.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.only(), Some(Kind::Choice(all)) if all.len() == 1)
    }

    /// Whether a text is the name of a choice, or nothing that it may be.
    pub(crate) fn is_choice(&self) -> bool {
        let is = |wanted: fn(&Kind) -> bool| self.kinds.iter().any(wanted);
        is(|kind| matches!(kind, Kind::Choice(_))) && !is(|kind| matches!(kind, Kind::Text))
    }

    /// A value of the first of several kinds, which an untagged enum reads without a failure.
    pub(crate) fn sample(&self) -> Option<Offer<'_>> {
        let [first, _, ..] = self.kinds.as_slice() else { return None };
        match first {
            Kind::Choice(all) => all.first().map(|one| Offer::Text(one)),
            Kind::Empty => Some(Offer::Empty),
            Kind::Boolean => Some(Offer::Boolean(true)),
            Kind::Whole(bounds) => ["1", "0"].iter().find_map(|text| whole(text, *bounds)),
            Kind::Number(bounds) => {
                ["1", "0"].iter().find_map(|text| number(text, *bounds)).map(Offer::Number)
            }
            Kind::List(_) | Kind::Tuple(_) | Kind::Text => None,
        }
    }

    /// As how many kinds `text` may be read.
    pub(crate) fn ways(&self, text: &str) -> usize {
        let items = self.kinds.iter().map(|kind| match kind {
            Kind::List(item) => item.kinds.len(),
            Kind::Tuple(items) => items.iter().map(|item| item.kinds.len()).max().unwrap_or(1),
            _ => 1,
        });
        self.offers(text).len().max(items.max().unwrap_or(1)).max(1)
    }

    /// The bounds of the only number that it may be.
    pub(crate) fn bounds(&self) -> Bounds {
        let mut bounds = self.kinds.iter().filter_map(|kind| match kind {
            Kind::Whole(bounds) | Kind::Number(bounds) => Some(*bounds),
            _ => None,
        });
        bounds.next().filter(|_| bounds.next().is_none()).unwrap_or_default()
    }

    /// The shape of the item at `index`, if it may be a list.
    pub(crate) fn item(&self, index: usize) -> &Self {
        let item = self.kinds.iter().find_map(|kind| match kind {
            Kind::List(item) => Some(item),
            Kind::Tuple(items) => items.get(index),
            _ => None,
        });
        item.unwrap_or(&TEXT)
    }

    /// The only kind.
    pub(crate) fn only(&self) -> Option<&Kind> {
        match self.kinds.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The fixed text that `text` is in the author's spelling, whatever its case.
    pub(crate) fn spelled<'a>(&'a self, text: &'a str) -> &'a str {
        let all = || {
            self.kinds.iter().flat_map(|kind| match kind {
                Kind::Choice(all) => all.as_slice(),
                _ => &[],
            })
        };
        let exact = all().find(|one| *one == text);
        exact.or_else(|| all().find(|one| one.eq_ignore_ascii_case(text))).map_or(text, |one| one)
    }

    /// All that `text` may be, the likeliest first.
    pub(crate) fn offers<'a>(&'a self, text: &'a str) -> Vec<Offer<'a>> {
        if !self.is_settable() {
            return vec![Offer::Text(text)];
        }
        let mut offers = Vec::new();
        let mut add = |offer: Option<Offer<'a>>| {
            offers.extend(offer.filter(|offer| !offers.contains(offer)));
        };
        for exact in [true, false] {
            for rank in 0..RANKS {
                for kind in self.kinds.iter().filter(|kind| kind.rank() == rank) {
                    add(kind.offer(text, exact));
                }
            }
        }
        offers
    }

    /// Whether `text` is as the schema says.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        let is_exact = |kind: &Kind| match kind {
            // Of a text that is none of the choices, only the type may know better.
            Kind::Choice(_) => kind.offer(text, true).is_some(),
            _ => kind.offer(text, true).or_else(|| kind.offer(text, false)).is_some(),
        };
        self.kinds.iter().any(is_exact)
    }

    /// "must be …".
    pub(crate) fn must_be(&self) -> String {
        let words = self.words.as_str();
        let article = match words {
            "" => return "is not acceptable".to_owned(),
            _ if words.starts_with(|c: char| c == '`' || c.is_ascii_digit()) => "",
            _ if ["one of ", "true or", "text", "empty"].iter().any(|w| words.starts_with(w)) => "",
            _ if words.starts_with("IP") => "an ",
            _ => "a ",
        };
        format!("must be {article}{}", without_examples(words))
    }

    /// [`must_be`](Self::must_be), if a type that refused `text` would tell of one of several texts
    /// that are accepted, such as an IP address, as if there were no other.
    pub(crate) fn must_be_one_of_several(&self, text: &str) -> Option<String> {
        let is_text = matches!(self.offers(text).first(), Some(Offer::Text(_)));
        let mut kinds = without_examples(&self.words).split(" or ");
        let says_more = kinds.clone().nth(1).is_some() && kinds.all(|kind| kind != "text");
        (is_text && says_more).then(|| self.must_be())
    }
}

const RANKS: usize = 7;

impl Kind {
    /// More specific kinds come first.
    fn rank(&self) -> usize {
        match self {
            Self::Choice(_) => 0,
            Self::Empty => 1,
            Self::Boolean => 2,
            Self::Whole(_) => 3,
            Self::Number(_) => 4,
            Self::List(_) | Self::Tuple(_) => 5,
            Self::Text => 6,
        }
    }

    /// `text` as a value of this kind, written exactly as in JSON or in another way that is
    /// accepted.
    fn offer<'a>(&'a self, text: &'a str, exact: bool) -> Option<Offer<'a>> {
        match self {
            Self::Choice(all) => {
                let known = all.iter().find(|one| *one == text);
                let known = known.or_else(|| all.iter().find(|one| one.eq_ignore_ascii_case(text)));
                match known {
                    Some(known) => exact.then_some(Offer::Text(known)),
                    // The type may know it by a name that the schema does not have.
                    None => (!exact).then_some(Offer::Text(text)),
                }
            }
            Self::Empty => text.is_empty().then_some(Offer::Empty),
            Self::Boolean if exact => match text {
                "true" => Some(Offer::Boolean(true)),
                "false" => Some(Offer::Boolean(false)),
                _ => None,
            },
            Self::Boolean => boolean(text).map(Offer::Boolean),
            Self::Whole(bounds) => whole(text, *bounds).filter(|_| !exact || is_json_number(text)),
            Self::Number(bounds) => {
                number(text, *bounds).filter(|_| !exact || is_json_number(text)).map(Offer::Number)
            }
            Self::List(shape) => {
                let is_list = !exact || text.contains(',');
                let fits = || items(text).all(|item| shape.accepts(item));
                (is_list && fits()).then_some(Offer::List(shape))
            }
            Self::Tuple(shapes) => {
                let fits = || {
                    items(text).count() == shapes.len()
                        && items(text).zip(shapes).all(|(item, shape)| shape.accepts(item))
                };
                (exact && fits()).then_some(Offer::Tuple(shapes))
            }
            Self::Text => Some(Offer::Text(text)),
        }
    }
}

/// What stands between commas, without the space around.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let texts = (!text.trim().is_empty()).then(|| text.split(','));
    texts.into_iter().flatten().map(str::trim)
}

/// What Go programs accept for a flag, as Gofer's users expect.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn whole(text: &str, bounds: Bounds) -> Option<Offer<'_>> {
    let number: i128 = text.parse().ok()?;
    let (least, most) = bounds.of_type();
    #[expect(clippy::cast_precision_loss, reason = "declared bounds are small enough for a float")]
    let admitted = (least..=most).contains(&number) && bounds.admits(number as f64);
    if !admitted {
        return None;
    }
    match u64::try_from(number) {
        Ok(number) => Some(Offer::Unsigned(number)),
        Err(_) => i64::try_from(number).ok().map(Offer::Signed),
    }
}

fn number(text: &str, bounds: Bounds) -> Option<f64> {
    let most = if bounds.single { f64::from(f32::MAX) } else { f64::MAX };
    text.parse().ok().filter(|number: &f64| number.abs() <= most && bounds.admits(*number))
}

/// Whether JSON would read `text` as a number.
fn is_json_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok() && !text.contains(char::is_whitespace)
}

fn add(kinds: &mut Vec<Kind>, kind: Kind) {
    if let Kind::Choice(more) = &kind
        && let Some(Kind::Choice(all)) =
            kinds.iter_mut().find(|known| matches!(known, Kind::Choice(_)))
    {
        let new: Vec<_> = more.iter().filter(|one| !all.contains(one)).cloned().collect();
        all.extend(new);
    } else if !kinds.contains(&kind) {
        kinds.push(kind);
    }
}

/// Adds what `schema` accepts; objects cannot be set, and `null` means absent.
fn collect(schema: &Value, kinds: &mut Vec<Kind>) {
    let texts = match (schema.get("const"), schema.get("enum")) {
        (Some(Value::String(only)), _) => Some(vec![only.clone()]),
        (_, Some(Value::Array(all))) => {
            let all = all.iter().filter(|one| !one.is_null());
            all.map(|one| one.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    if let Some(texts) = texts {
        return add(kinds, Kind::Choice(texts));
    }
    let choices = choices(schema);
    if !choices.is_empty() {
        return choices.into_iter().for_each(|choice| collect(choice, kinds));
    }
    if schema.get("$ref").is_some() || schema.get("not").is_some() || *schema == Value::Bool(false)
    {
        return;
    }
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        _ if schema.get("properties").is_some() => vec!["object"],
        _ => vec!["string"],
    };
    for name in names {
        match name {
            "null" => add(kinds, Kind::Empty),
            "boolean" => add(kinds, Kind::Boolean),
            "integer" => add(kinds, Kind::Whole(Bounds::of(schema))),
            "number" => add(kinds, Kind::Number(Bounds::of(schema))),
            "array" if schema.get("prefixItems").is_some() => {
                let shapes = branches_of(schema, "prefixItems").iter().map(Shape::of).collect();
                add(kinds, Kind::Tuple(shapes));
            }
            "array" => {
                let item = schema.get("items").map_or_else(|| TEXT.clone(), Shape::of);
                add(kinds, Kind::List(item));
            }
            "object" => {}
            _ => add(kinds, Kind::Text),
        }
    }
}

fn branches_of<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.as_object().map_or(&[], |schema| branches(schema, key))
}
