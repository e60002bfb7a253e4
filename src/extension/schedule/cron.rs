//! Schedules by the wall clock: cron expressions, in Gofer's own notation of six fields.
//!
//! The notation is read and printed in `cron/text.rs`, `cron/fields.rs` finds the next minute of the
//! calendar that matches, and `cron/search.rs` the time at which the clocks of a zone show it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Schedule, system_time};
use crate::extension::time_zone::TimeZone;

mod fields;
mod search;
#[cfg(test)]
mod tests;
mod text;

use fields::Fields;
use text::Problem;

/// A schedule by the wall clock of a time zone, such as `30 2 * * * *`: at 02:30 each night.
///
/// The expression is in Gofer's notation, which is not that of Unix: six fields with spaces between.
/// The clock must match *all* of them, the day of the month and that of the week too.
///
/// | field | |
/// | --- | --- |
/// | minute | 0 to 59 |
/// | hour | 0 to 23 |
/// | day of the month | 1 to 31 |
/// | month | 1 to 12 |
/// | day of the week | 0 to 6; Sunday is 0 |
/// | year | 1970 to 2100 |
///
/// Each field is `*` for all, a number, a range `1-5`, a step `*/15` or `10-50/15`, counted from the
/// lowest number, or several of these with commas between, `1-5,7`. There are no names, and a range
/// does not go past the end: write `22-23,0-2`.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use gofer_sdk::{Cron, Schedule, TimeZone};
///
/// // At 02:30 in Berlin, on weekdays.
/// let cron = Cron::new("30 2 * * 1-5 *")?.in_zone("Europe/Berlin".parse()?);
/// let next = cron.next_after(UNIX_EPOCH); // 01:00 on a Thursday there
/// assert_eq!(next, Some(UNIX_EPOCH + Duration::from_secs(90 * 60)));
///
/// let error = Cron::new("30 24 * * * *").unwrap_err();
/// assert_eq!(error.to_string(), "the hour must be 0 to 23");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Clocks that are set
///
/// It is due when a minute that matches begins on the wall clock of its [zone](Self::in_zone).
///
/// - A minute that the clock skips does not come: `30 2 * * * *` is not due in the night in which
///   02:00 is followed by 03:00, and `30 * * * * *` is next due at 03:30.
/// - A minute that the clock shows twice is due the first time, if the field names hours, with at
///   least one number: `30 2 * * * *` is due once. It is due both times if the field is `*` or `*/n`:
///   `*/10 * * * * *` is due every ten minutes in that night too.
///
/// # As a setting
///
/// It is read from a string and written as one, without the zone, and its JSON schema is a string of
/// the format `gofer-cron`. A list of them cannot be set from text, where commas separate a list.
///
/// ```
/// use gofer_sdk::{Cron, TimeZone};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Params {
///     /// When to run, such as `30 2 * * * *` for 02:30 each night.
///     at: Cron,
///     /// The time zone of `at`.
///     #[serde(default)]
///     zone: TimeZone,
/// }
///
/// let text = r#"{ "at": "0 9 * * 1-5 *", "zone": "America/New_York" }"#;
/// let params: Params = serde_json::from_str(text)?;
/// let cron = params.at.in_zone(params.zone);
/// assert_eq!(cron.to_string(), "0 9 * * 1-5 *");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    /// Shared, since a subscription holds it as a parameter and in its ticks.
    fields: Arc<Fields>,
    zone: TimeZone,
}

impl Cron {
    /// A schedule by the clock of UTC. The text is trimmed, and any number of spaces may separate the
    /// fields.
    ///
    /// # Errors
    ///
    /// The expression is not of the notation above, is longer than 1 KiB, or no day of the years 1970
    /// to 2100 matches it, such as a 30th of February. One that was due only in the past is accepted:
    /// [`next_after`](Schedule::next_after) has the answer `None`.
    pub fn new(expression: &str) -> Result<Self, ParseCronError> {
        let fields = text::parse(expression).map_err(ParseCronError)?;
        Ok(Self { fields: Arc::new(fields), zone: TimeZone::UTC })
    }

    /// The same times on the clock of another time zone.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// use gofer_sdk::{Cron, Schedule};
    ///
    /// let noon = Cron::new("0 12 * * * *")?.in_zone("Asia/Tokyo".parse()?);
    /// let next = noon.next_after(UNIX_EPOCH);
    /// assert_eq!(next, Some(UNIX_EPOCH + Duration::from_secs(3 * 60 * 60)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// The time zone of its clock.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

/// From 1970 to 2100, on the clock of its zone; `None` after that.
impl Schedule for Cron {
    fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        let next = self.next_second_after(unix_seconds(time))?;
        Some(system_time(next.checked_mul(1_000_000_000)?))
    }
}

/// In Unix seconds, rounded down; the nearest that there are for times that are too far away.
fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            -seconds.saturating_add((before.subsec_nanos() > 0).into())
        }
    }
}

/// Why a text is not a [`Cron`].
///
/// The message names the field and says what would be right, and never repeats the text, so it may
/// follow a parameter's name and be shown or logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseCronError(Problem);

impl fmt::Display for ParseCronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ParseCronError {}

impl FromStr for Cron {
    type Err = ParseCronError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// An expression with the same meaning, such as `*/15 0-8 * * 1-5 *`; without the zone.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::print(&self.fields))
    }
}

/// The expression and the zone.
impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self} in {})", self.zone)
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(CronVisitor)
    }
}

struct CronVisitor;

impl de::Visitor<'_> for CronVisitor {
    type Value = Cron;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cron expression such as `30 2 * * * *`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cron, E> {
        text.parse().map_err(E::custom)
    }
}

/// A string of the format `gofer-cron`. The description is that of fields without a doc comment:
/// nobody can guess the notation.
impl schemars::JsonSchema for Cron {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cron".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "gofer-cron",
            "description": "Six fields, all of which must match: minute, hour, day of the month, \
                month, day of the week (0 to 6, Sunday is 0) and year. Each is `*`, a number, a \
                range such as `1-5`, a step such as `*/15`, or several of these with commas between.",
        })
    }
}
