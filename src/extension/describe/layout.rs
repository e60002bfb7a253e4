//! Which settings go together: a schema as a tree of properties and alternatives.

use serde_json::Value;

use super::kind::branches;
use super::shape::Shape;

/// What a schema of an object declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Part {
    /// What always belongs to it.
    pub(crate) properties: Vec<Property>,
    /// Of each, exactly one part belongs to it too.
    pub(crate) choices: Vec<Vec<Part>>,
}

/// One setting, as one part declares it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
}

impl Part {
    pub(super) fn of(schema: &Value) -> Self {
        let mut part = Self::default();
        part.add(schema);
        part
    }

    fn add(&mut self, schema: &Value) {
        let Some(schema) = schema.as_object() else { return };
        let required = branches(schema, "required");
        let properties = schema.get("properties").and_then(Value::as_object);
        self.properties.extend(properties.into_iter().flatten().map(|(name, property)| Property {
            name: name.clone(),
            shape: Shape::of(property),
            required: required.iter().any(|required| required == name),
        }));
        for all in branches(schema, "allOf") {
            self.add(all);
        }
        for key in ["oneOf", "anyOf"] {
            let parts: Vec<Self> = branches(schema, key).iter().map(Self::of).collect();
            if !parts.is_empty() {
                self.choices.push(parts);
            }
        }
    }
}
