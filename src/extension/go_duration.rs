//! Durations as Go writes them, for parameters and configuration.
//!
//! Gofer and its extensions have always used the notation of Go's `time` package, so [`GoDuration`]
//! accepts exactly what `time.ParseDuration` accepts, with the same number of nanoseconds, and
//! prints what `Duration.String` prints. A table in the tests holds the results of a real Go.
//!
//! The grammar itself lives in `go_duration/text.rs`. Arithmetic is left to the standard library:
//! turn a [`GoDuration`] into a [`std::time::Duration`] to calculate with it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[cfg(test)]
mod tests;
mod text;

use text::{HOUR, MILLISECOND, MINUTE, SECOND};

/// A signed span of time in Go's notation, such as `5m` or `1h30m`.
///
/// Counts nanoseconds in an `i64`: up to about 292 years, positive or negative. The default is
/// [`ZERO`](Self::ZERO).
///
/// A duration is written as an optional sign and then one or more numbers, each with a unit,
/// without spaces. A number may have a fraction (`1.5h`, `.5s`); the units are `ns`, `us` (or
/// `µs`), `ms`, `s`, `m` and `h`. A bare `0` needs no unit. The rules, and the rounding, are those
/// of Go's [`time.ParseDuration`](https://pkg.go.dev/time#ParseDuration).
///
/// ```
/// use std::time::Duration;
/// use gofer_sdk::GoDuration;
///
/// let every: GoDuration = "1.5h".parse()?;
/// assert_eq!(every, GoDuration::from_mins(90));
/// assert_eq!(every.to_string(), "1h30m0s");
/// assert_eq!(Duration::try_from(every)?, Duration::from_secs(5400));
///
/// let error = "5".parse::<GoDuration>().unwrap_err();
/// assert_eq!(error.to_string(), "needs a unit: write `5m`, `1h30m` or `300ms`");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// As a field it is read from a string and written as one, and its JSON schema is a string of the
/// format `go-duration`:
///
/// ```
/// use gofer_sdk::GoDuration;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Params {
///     /// The time between two runs, such as `5m` or `1h30m`.
///     every: GoDuration,
/// }
///
/// let params: Params = serde_json::from_str(r#"{ "every": "5m" }"#)?;
/// assert_eq!(params.every, GoDuration::from_mins(5));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration(i64);

impl GoDuration {
    /// No time at all, `0s`.
    pub const ZERO: Self = Self(0);
    /// The longest duration, `2562047h47m16.854775807s`.
    pub const MAX: Self = Self(i64::MAX);
    /// The most negative duration, `-2562047h47m16.854775808s`.
    pub const MIN: Self = Self(i64::MIN);

    /// A duration of that many nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A duration of that many milliseconds; [`MAX`](Self::MAX) or [`MIN`](Self::MIN) if that is
    /// out of range.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(MILLISECOND.cast_signed()))
    }

    /// A duration of that many seconds; [`MAX`](Self::MAX) or [`MIN`](Self::MIN) if that is out of
    /// range.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(SECOND.cast_signed()))
    }

    /// A duration of that many minutes; [`MAX`](Self::MAX) or [`MIN`](Self::MIN) if that is out of
    /// range.
    ///
    /// ```
    /// use gofer_sdk::GoDuration;
    ///
    /// const EVERY: GoDuration = GoDuration::from_mins(90);
    /// assert_eq!(EVERY.to_string(), "1h30m0s");
    /// assert_eq!(GoDuration::from_mins(i64::MAX), GoDuration::MAX);
    /// ```
    #[must_use]
    pub const fn from_mins(mins: i64) -> Self {
        Self(mins.saturating_mul(MINUTE.cast_signed()))
    }

    /// A duration of that many hours; [`MAX`](Self::MAX) or [`MIN`](Self::MIN) if that is out of
    /// range.
    #[must_use]
    pub const fn from_hours(hours: i64) -> Self {
        Self(hours.saturating_mul(HOUR.cast_signed()))
    }

    /// The whole duration in nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whether it is longer than [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Whether it is exactly [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is less than [`ZERO`](Self::ZERO).
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// Why a text is not a [`GoDuration`].
///
/// The message says what is wrong and what would be right, and never repeats the text, so it may
/// follow a parameter's name and be shown or logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseGoDurationError(ParseProblem);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParseProblem {
    Empty,
    Number,
    MissingUnit,
    UnknownUnit,
    Range,
}

impl fmt::Display for ParseGoDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            ParseProblem::Empty => "is empty: write a duration such as `5m`, `1h30m` or `300ms`",
            ParseProblem::Number => {
                "needs a number before each unit: write `5m`, `1h30m` or `300ms`"
            }
            ParseProblem::MissingUnit => "needs a unit: write `5m`, `1h30m` or `300ms`",
            ParseProblem::UnknownUnit => {
                "has an unknown unit: only `ns`, `us`, `ms`, `s`, `m` and `h` may follow \
                 a number, without spaces (a day is `24h`)"
            }
            ParseProblem::Range => "is out of range: the longest is 2562047h, about 292 years",
        })
    }
}

impl std::error::Error for ParseGoDurationError {}

impl FromStr for GoDuration {
    type Err = ParseGoDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text::parse(text.as_bytes()).map(Self).map_err(ParseGoDurationError)
    }
}

/// As in Go, in at most three units: `1h30m0s`, `1.5s`, `300ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::print(self.0))
    }
}

/// The same as [`Display`](fmt::Display).
impl fmt::Debug for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a duration does not convert: [`std::time::Duration`] cannot be negative, and a `GoDuration`
/// cannot exceed about 292 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDurationRangeError(&'static str);

impl fmt::Display for GoDurationRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for GoDurationRangeError {}

/// Fails for more than [`GoDuration::MAX`].
impl TryFrom<Duration> for GoDuration {
    type Error = GoDurationRangeError;

    fn try_from(duration: Duration) -> Result<Self, Self::Error> {
        match i64::try_from(duration.as_nanos()) {
            Ok(nanos) => Ok(Self(nanos)),
            Err(_) => {
                Err(GoDurationRangeError("must not be longer than 2562047h, about 292 years"))
            }
        }
    }
}

/// Fails for a negative duration.
impl TryFrom<GoDuration> for Duration {
    type Error = GoDurationRangeError;

    fn try_from(duration: GoDuration) -> Result<Self, Self::Error> {
        match u64::try_from(duration.0) {
            Ok(nanos) => Ok(Self::from_nanos(nanos)),
            Err(_) => Err(GoDurationRangeError("must not be negative")),
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl de::Visitor<'_> for DurationVisitor {
    type Value = GoDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as `5m` or `1h30m`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
        text.parse().map_err(E::custom)
    }
}

/// A string of the format `go-duration`. No description: the field's doc comment is the
/// description.
impl schemars::JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "go-duration" })
    }
}
