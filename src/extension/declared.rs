//! What a struct of settings must implement, under one name, so that the compiler reports a missing
//! derive clearly.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::decode;
use super::describe::{self, Fields};
use super::settings::Settings;
use crate::error::Problem;

/// A struct that declares settings: an extension's configuration or the parameters of a
/// subscription.
///
/// Implemented for everything that derives both [`serde::Deserialize`] and
/// [`schemars::JsonSchema`]. Fields may be text, numbers, booleans,
/// [`GoDuration`](crate::GoDuration), [`Secret`](crate::Secret), enums without fields, `Option`s and
/// (comma-separated) lists of these, any type that is parsed from text, as
/// [`Parsed`](crate::Parsed), and any other that deserializes from a string. A nested type, such as
/// [`std::time::Duration`], cannot be set from text, and an extension that declares one does not
/// start.
///
/// Parts may be flattened, and types may have alternatives, with tags or without, in any
/// combination; an optional group with another one in it needs all settings of both, or none. A text
/// is read as the most specific of what it may be; settings that do not go together, or are a part
/// of an optional group, are refused. What a type of your own says is wrong with a text is passed on
/// as it is, at most 1,000 bytes of it: do not repeat the text.
///
/// `#[schemars(range(min = 1, max = 5))]` on a number is documented and enforced; other rules
/// (`length`, `regex`, `url`) are not enforced, and [`validate`](crate::Extension::validate) has to
/// check them. The default of a field is documented if its type can also be serialized, so an enum
/// should derive [`serde::Serialize`] as well.
///
/// # Secrets
///
/// A setting that nobody should see when it is typed is a [`Secret`](crate::Secret), or is marked in
/// its schema, as JSON Schema has it: `#[schemars(extend("writeOnly" = true))]` or
/// `#[schemars(extend("format" = "password"))]`. The documentation then calls it secret and does not
/// show its default, and the question of a conversation ends in "secret)", by which `gofer` hides
/// what is typed.
///
/// ```
/// # use gofer_sdk::{Declared, Parsed, Secret, http::Uri};
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// The token for the chat.
///     token: Secret,
///     /// Where the chat is, with a password in it.
///     #[schemars(extend("writeOnly" = true))]
///     url: Parsed<Uri>,
/// }
/// # fn declares_settings<T: Declared>() {}
/// # declares_settings::<Config>();
/// ```
///
/// # Examples
///
/// ```
/// use gofer_sdk::{Declared, GoDuration};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Params {
///     /// The time between two runs, such as `5m` or `1h30m`.
///     every: GoDuration,
///     /// Who gets a message about each run, separated by commas.
///     #[serde(default)]
///     notify: Vec<String>,
/// }
///
/// fn declares_settings<T: Declared>() {}
/// declares_settings::<Params>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not declare settings",
    label = "cannot be read from settings",
    note = "derive both: `#[derive(serde::Deserialize, schemars::JsonSchema)]`",
    note = "if there is nothing to set, use `gofer_sdk::NoConfig` or `gofer_sdk::NoParams`"
)]
pub trait Declared: sealed::SealedDeclared {}

#[diagnostic::do_not_recommend]
impl<T> Declared for T where T: DeserializeOwned + JsonSchema + Send + Sync + 'static {}

/// What [`Declared`] can do. A separate trait, because with the two derived traits as supertraits,
/// the compiler would report each of them in its own words.
pub(crate) mod sealed {
    use super::{DeserializeOwned, Fields, JsonSchema, Problem, Settings, decode, describe};

    #[diagnostic::on_unimplemented(
        message = "`{Self}` does not declare settings",
        label = "cannot be read from settings",
        note = "derive both: `#[derive(serde::Deserialize, schemars::JsonSchema)]`"
    )]
    pub trait SealedDeclared: Sized + Send + Sync + 'static {
        /// The fields, from the type's schema.
        fn fields() -> Fields;

        /// Reads settings, or returns everything that is wrong with them.
        #[expect(private_interfaces, reason = "sealed: nobody outside can call it")]
        fn decode(settings: &Settings, declared: &Fields) -> Result<Self, Vec<Problem>>;

        /// A field whose type cannot be read from text.
        fn nested(declared: &Fields) -> Option<&str>;

        /// Checks one answer, as `decode` would.
        fn check(key: &str, answer: &str, declared: &Fields) -> Result<(), String>;
    }

    #[diagnostic::do_not_recommend]
    impl<T> SealedDeclared for T
    where
        T: DeserializeOwned + JsonSchema + Send + Sync + 'static,
    {
        fn fields() -> Fields {
            describe::fields(&describe::schema::<T>(), decode::field_names(decode::read::<T>))
        }

        #[expect(private_interfaces, reason = "sealed: nobody outside can call it")]
        fn decode(settings: &Settings, declared: &Fields) -> Result<Self, Vec<Problem>> {
            decode::decode(settings, declared)
        }

        fn nested(declared: &Fields) -> Option<&str> {
            decode::nested(decode::read::<T>, declared)
        }

        fn check(key: &str, answer: &str, declared: &Fields) -> Result<(), String> {
            decode::decode_one(decode::read::<T>, key, answer, declared)
        }
    }
}
