//! A setting of a type that is parsed from text.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[cfg(test)]
mod tests;

/// A setting of any type that implements [`FromStr`], without code for serde and schemars.
///
/// ```
/// use std::str::FromStr;
///
/// use gofer_sdk::{Parsed, http::Uri};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Params {
///     /// Where the forge is.
///     forge: Parsed<Uri>,
///     /// The repository, such as `tea/kettle`.
///     repository: Parsed<Repository>,
/// }
///
/// struct Repository {
///     owner: String,
///     name: String,
/// }
///
/// impl FromStr for Repository {
///     type Err = &'static str;
///
///     fn from_str(text: &str) -> Result<Self, Self::Err> {
///         let parts = text.split_once('/').ok_or("must be an owner and a name, as in `tea/kettle`")?;
///         Ok(Self { owner: parts.0.to_owned(), name: parts.1.to_owned() })
///     }
/// }
///
/// let settings = r#"{ "forge": "https://git.example.com", "repository": "tea/kettle" }"#;
/// let params: Params = serde_json::from_str(settings)?;
/// assert_eq!(params.forge.host(), Some("git.example.com"));
/// assert_eq!(params.repository.owner, "tea");
/// assert_eq!(params.repository.into_inner().name, "kettle");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// The type gets the text as it was set, `007` too, unless the setting may also be something else
/// that fits it better, such as a number. The documentation calls it "text": say in the field's doc
/// comment what it looks like. What the type's error says follows the setting's name, in responses
/// and logs, so it must not repeat the text, which may be a secret; some libraries' errors do.
///
/// If the type can be printed, a default is documented as it prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Parsed<T>(T);

impl<T> Parsed<T> {
    /// The value itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Parsed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// For defaults.
impl<T> From<T> for Parsed<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: FromStr> FromStr for Parsed<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

/// As the type itself.
impl<T: Display> Display for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As the type itself.
impl<T: fmt::Debug> fmt::Debug for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As the type prints.
impl<T: Display> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ParsedVisitor(PhantomData))
    }
}

struct ParsedVisitor<T>(PhantomData<T>);

impl<T> de::Visitor<'_> for ParsedVisitor<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Value = Parsed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Parsed<T>, E> {
        text.parse().map_err(E::custom)
    }
}

/// Any string. No description: the field's doc comment is the description.
impl<T> schemars::JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Parsed".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}
