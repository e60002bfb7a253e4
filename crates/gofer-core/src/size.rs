//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes, such as `256MiB`; a number without a unit is in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// In the largest unit of which it is a multiple.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() - text.trim_start_matches(|it: char| it.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "" => Some(1),
            _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, unit)| *unit),
        };
        let (Some(unit), false) = (unit, number.is_empty()) else {
            return Err(
                "write a whole number with `KiB`, `MiB`, `GiB` or `TiB`, such as `256MiB`; \
                 a number without a unit is in bytes",
            );
        };
        let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        number.map(Self).ok_or("is too large")
    }
}

#[cfg(test)]
mod tests;
