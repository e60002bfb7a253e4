//! What an author's struct says about each of its settings.
//!
//! [`fields`] reads a type's JSON [`schema`] into one [`Field`] per setting: name, doc comment,
//! type, required, default. They are used for the documentation ([`markdown`]), the questions of a
//! conversation ([`prompt`]), and what `decode` needs and serde does not provide. Building a schema
//! is slow and its result never changes, so it is done once per type.
//!
//! `kind` puts the schema of one property in words, `shape` says which texts it accepts, and
//! `layout` which properties go together.

pub(super) mod kind;
mod layout;
mod shape;

use std::fmt::Write as _;
use std::ops::Deref;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::declared::Declared;

pub(crate) use layout::{Part, Property};
pub(crate) use shape::{Bounds, Kind, Offer, Shape, TEXT, boolean};

/// One setting that a type declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key, as the author spells it.
    pub name: String,
    /// The doc comment; may have several lines, may be empty.
    pub description: String,
    /// The type in words: "whole number", "one of `a`, `b`".
    pub kind: String,
    /// Whether it must be set.
    pub required: bool,
    /// The value if the setting is absent, as one would type it; never that of a secret.
    pub default: Option<String>,
    /// Whether its value is a secret, so that the one who types it should not see it.
    pub secret: bool,
    /// The type, for reading a value without a type of serde.
    pub(crate) shape: Shape,
}

/// All settings that a type declares, in the order of declaration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    list: Vec<Field>,
    /// What other keys hold, if the type accepts any key, such as a map.
    rest: Option<Shape>,
    /// Which of them go together.
    layout: Part,
}

impl Fields {
    /// Whether keys other than the declared ones are accepted too.
    pub(crate) fn is_open(&self) -> bool {
        self.rest.is_some()
    }

    /// The declared setting of that name, without regard to case.
    pub fn named(&self, key: &str) -> Option<&Field> {
        let exact = self.list.iter().find(|field| field.name == key);
        exact.or_else(|| self.list.iter().find(|field| field.name.eq_ignore_ascii_case(key)))
    }

    /// Which settings go together.
    pub(crate) fn layout(&self) -> &Part {
        &self.layout
    }

    /// What the value of `key` looks like; text if it is not known.
    pub(crate) fn shape(&self, key: &str) -> &Shape {
        self.named(key).map(|field| &field.shape).or(self.rest.as_ref()).unwrap_or(&TEXT)
    }
}

impl Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        &self.list
    }
}

/// The settings that `T` declares, for those who show them.
pub fn settings_of<T: Declared>() -> Fields {
    T::fields()
}

/// The schema of `T`.
pub(super) fn schema<T: JsonSchema>() -> Schema {
    let mut settings = SchemaSettings::draft2020_12().for_deserialize();
    // Leaves a reference only if a type contains itself, so that no schema is endless.
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<T>()
}

/// The settings that `schema` declares, in the order of `names`.
///
/// A schema's properties come sorted by name (unless a user's program happens to enable
/// `serde_json/preserve_order`). Fields without a known position stay in the order of the schema,
/// required ones first, after the others.
pub(super) fn fields(schema: &Schema, names: &[&str]) -> Fields {
    let mut fields = Fields::default();
    collect(schema.as_value(), &mut fields);
    fields.layout = Part::of(schema.as_value());
    fields.list.sort_by_key(|field| {
        names.iter().position(|name| *name == field.name).unwrap_or(names.len())
    });
    fields
}

/// Adds what `schema` declares, alternatives and flattened parts included.
fn collect(schema: &Value, fields: &mut Fields) {
    let Some(schema) = schema.as_object() else { return };
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        // Required ones are listed in the order of their declaration.
        let required = kind::branches(schema, "required");
        let place = |name: &str| {
            required.iter().position(|required| required == name).unwrap_or(required.len())
        };
        let mut properties: Vec<_> = properties.iter().collect();
        properties.sort_by_key(|(name, _)| place(name));
        for (name, property) in properties {
            if fields.named(name).is_none() {
                fields.list.push(field(name, property, place(name) < required.len()));
            }
        }
    }
    for key in ["additionalProperties", "unevaluatedProperties"] {
        if let Some(rest) = schema.get(key).filter(|rest| **rest != Value::Bool(false)) {
            fields.rest = Some(Shape::of(rest));
        }
    }
    if let Some(rest) = schema.get("patternProperties").and_then(Value::as_object) {
        fields.rest = rest.values().next().map(Shape::of);
    }
    for part in kind::branches(schema, "allOf") {
        collect(part, fields);
    }
    for key in ["oneOf", "anyOf"] {
        alternatives(kind::branches(schema, key), fields);
    }
}

/// Adds what any of `branches` declares; required is what all of them require.
fn alternatives(branches: &[Value], fields: &mut Fields) {
    let parts: Vec<Fields> = branches
        .iter()
        .map(|branch| {
            let mut part = Fields::default();
            collect(branch, &mut part);
            part
        })
        .collect();
    let everywhere = |name: &str| {
        parts.iter().all(|part| part.iter().any(|field| field.name == name && field.required))
    };
    let mut merged: Vec<Field> = Vec::new();
    for field in parts.iter().flat_map(|part| part.iter()) {
        match merged.iter_mut().find(|known| known.name == field.name) {
            Some(known) => {
                if known.kind != field.kind {
                    known.kind = kind::either(&known.kind, &field.kind);
                    known.shape = known.shape.clone().or(&field.shape, &known.kind);
                }
                // The one who types it may mean the alternative in which it is a secret.
                if field.secret {
                    known.secret = true;
                    known.default = None;
                }
            }
            None => {
                merged.push(Field { required: everywhere(&field.name), ..field.clone() });
            }
        }
    }
    merged.retain(|field| fields.named(&field.name).is_none());
    fields.list.append(&mut merged);
    if let Some(rest) = parts.into_iter().find_map(|part| part.rest) {
        fields.rest = Some(rest);
    }
}

fn field(name: &str, schema: &Value, required: bool) -> Field {
    let secret = kind::is_secret(schema);
    Field {
        name: name.to_owned(),
        description: kind::description(schema),
        kind: kind::words(schema),
        required,
        default: schema.get("default").filter(|_| !secret).and_then(typed),
        secret,
        shape: Shape::of(schema),
    }
}

/// A default as one would type it; `None` if it cannot be typed.
fn typed(default: &Value) -> Option<String> {
    match default {
        Value::Null | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            Some(items.iter().map(typed).collect::<Option<Vec<_>>>()?.join(", "))
        }
        Value::Bool(_) | Value::Number(_) => Some(default.to_string()),
    }
}

/// A section of documentation, headed by `heading`, with a line per setting.
pub(crate) fn markdown(heading: &str, fields: &Fields) -> String {
    let mut text = format!("## {heading}\n\n");
    for field in fields.iter() {
        let _ = write!(text, "- `{}` ({}, ", field.name, kind_to_show(field));
        let _ = match &field.default {
            _ if field.required => write!(text, "required"),
            None => write!(text, "optional"),
            Some(default) if default.is_empty() => write!(text, "default empty"),
            Some(default) => write!(text, "default `{default}`"),
        };
        text.push_str(if field.secret { SECRET } else { ")" });
        if !field.description.is_empty() {
            let _ = write!(text, ": {}", fold(&field.description));
        }
        text.push('\n');
    }
    match (&fields.rest, fields.is_empty()) {
        (Some(_), true) => text.push_str("Any key.\n"),
        (Some(_), false) => text.push_str("- Any other key.\n"),
        (None, true) => text.push_str("None.\n"),
        (None, false) => {}
    }
    text
}

/// The question that a conversation asks for `field`, on one line.
pub(crate) fn prompt(field: &Field) -> String {
    let mut text = field.name.clone();
    if !field.description.is_empty() {
        let _ = write!(text, ": {}", fold(&field.description));
    }
    let _ = write!(text, " ({}, ", kind_to_show(field));
    let _ = match &field.default {
        _ if field.required => write!(text, "required"),
        None => write!(text, "optional"),
        Some(default) if default.is_empty() => write!(text, "default empty"),
        Some(default) => write!(text, "default {default}; leave empty for the default"),
    };
    text.push_str(if field.secret { SECRET } else { ")" });
    text
}

/// How the parentheses after a secret setting end.
const SECRET: &str = ", secret)";

/// `question`, marked as one whose answer is a secret.
pub(crate) fn secret_question(question: &str) -> String {
    format!("{} (secret)", question.trim_end())
}

/// Whether the answer to `question` is a secret, as this SDK marks it: the contract has no field for
/// it.
#[must_use]
pub fn is_secret_question(question: &str) -> bool {
    let question = question.trim_end();
    question.ends_with(SECRET) || question.ends_with("(secret)")
}

/// A description in one line.
fn fold(description: &str) -> String {
    description.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The kind, without its examples if the description has some.
fn kind_to_show(field: &Field) -> &str {
    if field.description.contains('`') { kind::without_examples(&field.kind) } else { &field.kind }
}

#[cfg(test)]
mod tests;
