//! Time zones by their IANA names, for settings and schedules.
//!
//! The IANA database is part of the program, so that an extension behaves the same on every machine,
//! also in an image that has no files of time zones. No type of `jiff` is part of the public API.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{self, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[cfg(test)]
mod tests;

/// A time zone, such as `Europe/Berlin`. The default is [`UTC`](Self::UTC).
///
/// It is written as its name in the [IANA database](https://www.iana.org/time-zones), whose rules are
/// part of the program: it does not need the time zones of the machine, and does not look at them.
/// Upper and lower case are the same. Two are equal if their names are. Abbreviations such as `CEST` are no time zones, nor are
/// distances from UTC such as `+02:00`.
///
/// ```
/// use gofer_sdk::TimeZone;
///
/// let zone: TimeZone = "europe/berlin".parse()?;
/// assert_eq!(zone.to_string(), "Europe/Berlin");
/// assert_eq!("UTC".parse(), Ok(TimeZone::UTC));
///
/// let error = "CEST".parse::<TimeZone>().unwrap_err();
/// let what = "is not a time zone: write an IANA name such as `Europe/Berlin`, or `UTC`";
/// assert_eq!(error.to_string(), what);
/// # Ok::<(), gofer_sdk::ParseTimeZoneError>(())
/// ```
///
/// As a field it is read from a string and written as one, and its JSON schema is a string of the
/// format `time-zone`:
///
/// ```
/// use gofer_sdk::TimeZone;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Params {
///     /// The time zone of the schedule.
///     #[serde(default)]
///     zone: TimeZone,
/// }
///
/// let params: Params = serde_json::from_str(r#"{ "zone": "Asia/Tokyo" }"#)?;
/// assert_eq!(params.zone.to_string(), "Asia/Tokyo");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct TimeZone(tz::TimeZone);

impl TimeZone {
    /// Coordinated universal time, whose clocks are never set.
    pub const UTC: Self = Self(tz::TimeZone::UTC);

    /// Its name in the IANA database.
    fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// How many seconds its clocks are ahead of UTC, at a time in Unix seconds.
    pub(super) fn offset_at(&self, at: i64) -> i64 {
        self.0.to_offset(timestamp(at)).seconds().into()
    }

    /// The first time after `at` at which its clocks are set, in Unix seconds.
    pub(super) fn change_after(&self, at: i64) -> Option<i64> {
        Some(self.0.following(timestamp(at)).next()?.timestamp().as_second())
    }
}

/// The nearest that there is for times beyond the years -9999 to 9999.
fn timestamp(seconds: i64) -> Timestamp {
    let nearest = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(nearest)
}

impl PartialEq for TimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for TimeZone {}

impl Default for TimeZone {
    fn default() -> Self {
        Self::UTC
    }
}

/// Why a text is not a [`TimeZone`].
///
/// The message says what would be right, and never repeats the text, so it may follow a parameter's
/// name and be shown or logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseTimeZoneError(());

impl fmt::Display for ParseTimeZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a time zone: write an IANA name such as `Europe/Berlin`, or `UTC`")
    }
}

impl std::error::Error for ParseTimeZoneError {}

impl FromStr for TimeZone {
    type Err = ParseTimeZoneError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What stands for "not known" in the database and in jiff.
        let is_place_holder =
            ["Factory", "Etc/Unknown"].iter().any(|name| name.eq_ignore_ascii_case(text));
        // Always this one: another crate may enable that of the machine, as the default.
        let zone = TimeZoneDatabase::bundled().get(text).ok().filter(|_| !is_place_holder);
        zone.map(Self).ok_or(ParseTimeZoneError(()))
    }
}

/// The name, as the IANA database spells it.
impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The same as [`Display`](fmt::Display).
impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TimeZone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimeZoneVisitor)
    }
}

struct TimeZoneVisitor;

impl de::Visitor<'_> for TimeZoneVisitor {
    type Value = TimeZone;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time zone such as `Europe/Berlin`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeZone, E> {
        text.parse().map_err(E::custom)
    }
}

/// A string of the format `time-zone`. No description: the field's doc comment is the description.
impl schemars::JsonSchema for TimeZone {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeZone".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "time-zone" })
    }
}
