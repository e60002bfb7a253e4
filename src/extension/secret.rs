//! A setting that nobody should see.

use std::fmt;

use gofer_net::auth::sha256;
use serde::{Deserialize, Deserializer, de};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// A text that is never shown, for tokens, passwords and keys in settings.
///
/// The documentation calls such a setting secret and does not show its default, and the question of
/// a conversation ends in "secret)", by which `gofer` hides what is typed. That holds for an
/// `Option` and for a list of them too. An empty text is refused: it would be the key of a signature
/// that anybody can make, or a token that everybody has.
///
/// `Debug` shows nothing of it, not even the length, and there is neither `Display` nor `Serialize`.
/// [`expose`](Self::expose) is the only way to the text, so that uses are easy to find. The text is
/// overwritten in memory when a `Secret` is dropped; other copies, such as the request that it came
/// in, are not.
///
/// ```
/// use gofer_sdk::Secret;
///
/// #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// The token that senders put into the header `X-Token`.
///     token: Secret,
/// }
///
/// let config: Config = serde_json::from_str(r#"{ "token": "6b8f" }"#)?;
/// assert_eq!(format!("{config:?}"), "Config { token: Secret(…) }");
/// assert!(config.token.matches("6b8f") && !config.token.matches("6b8e"));
/// assert_eq!(config.token.expose(), "6b8f");
///
/// let error = serde_json::from_str::<Config>(r#"{ "token": "" }"#).unwrap_err();
/// assert!(error.to_string().contains("must not be empty"));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A secret of another type is marked in [its schema](crate::Declared#secrets).
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself. Keep it out of logs, errors and the variables of runs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `text` is the secret, in a time that tells nothing about the secret: for a token that
    /// somebody sends, in a header for example. Nothing matches an empty secret.
    ///
    /// ```
    /// use gofer_sdk::{Error, ErrorKind, ExternalEvent, Result, Secret};
    ///
    /// fn check(event: &ExternalEvent, token: &Secret) -> Result<()> {
    ///     if event.header("x-token").is_some_and(|sent| token.matches(sent)) {
    ///         return Ok(());
    ///     }
    ///     Err(Error::new(ErrorKind::PermissionDenied, "the token is missing or wrong"))
    /// }
    ///
    /// let token = Secret::from("6b8f");
    /// let event = ExternalEvent::new("POST /external/x HTTP/1.1\r\nX-Token: 6b8f\r\n\r\n")?;
    /// check(&event, &token)?;
    /// let event = ExternalEvent::new("POST /external/x HTTP/1.1\r\n\r\n")?;
    /// assert!(check(&event, &token).is_err());
    /// # Ok::<(), gofer_sdk::Error>(())
    /// ```
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // Digests are of one length, so not even the secret's length can be measured.
        let is_same = sha256(text.as_bytes()).ct_eq(&sha256(self.0.as_bytes()));
        bool::from(is_same) && !self.0.is_empty()
    }
}

/// `Secret(…)`, whatever it holds.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Accepts the empty text, which nothing [`matches`](Secret::matches).
impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Accepts the empty text, which nothing [`matches`](Secret::matches).
impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_string(SecretVisitor)
    }
}

struct SecretVisitor;

impl de::Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
        if text.is_empty() {
            return Err(E::custom("must not be empty"));
        }
        Ok(text.into())
    }
}

/// A string that is written and never read, which is how JSON Schema marks a secret. No description:
/// the field's doc comment is the description.
impl schemars::JsonSchema for Secret {
    /// A reference to a schema elsewhere would not show the mark.
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "writeOnly": true })
    }
}
