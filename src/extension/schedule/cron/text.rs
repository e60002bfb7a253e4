//! Gofer's notation of cron expressions: parsing and printing.

use std::fmt;

use super::fields::{FIRST_YEAR, Fields, LAST_YEAR};

/// The longest text that is read.
const MAX_LENGTH: usize = 1024;

/// One of the six fields, in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Year,
}

impl Field {
    /// The lowest and the highest number.
    const fn bounds(self) -> (i64, i64) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 6),
            Self::Year => (FIRST_YEAR, LAST_YEAR),
        }
    }

    /// The number that bit 0 stands for.
    const fn base(self) -> i64 {
        if matches!(self, Self::Year) { FIRST_YEAR } else { 0 }
    }

    /// The largest step that leads to another number.
    const fn max_step(self) -> i64 {
        let (least, most) = self.bounds();
        most - least
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of the month",
            Self::Month => "month",
            Self::Weekday => "day of the week",
            Self::Year => "year",
        })
    }
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Empty,
    TooLong,
    Count(usize),
    Malformed(Field),
    Name(Field),
    Range(Field),
    Reversed(Field),
    Step(Field),
    StepOfNumber(Field),
    Never,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FIELDS: &str = "minute, hour, day of the month, month, day of the week, year";
        match self {
            Self::Empty => {
                write!(f, "is empty: write six fields, such as `30 2 * * * *`: {FIELDS}")
            }
            Self::TooLong => write!(f, "is too long: at most {MAX_LENGTH} bytes are read"),
            Self::Count(5) => {
                write!(
                    f,
                    "has five fields and needs six: {FIELDS}; end it with ` *` for every year"
                )
            }
            Self::Count(7) => {
                write!(f, "has seven fields and needs six, none of them for seconds: {FIELDS}")
            }
            Self::Count(_) => write!(f, "needs six fields with spaces between: {FIELDS}"),
            Self::Malformed(field) => write!(
                f,
                "the {field} must be `*`, a number, a range such as `1-5`, a step such as `*/15`, \
                 or several of these with commas between"
            ),
            Self::Name(Field::Weekday) => f.write_str(
                "the day of the week must be a number, not a name: 0 is Sunday, 6 Saturday",
            ),
            Self::Name(field) => {
                let (least, most) = field.bounds();
                write!(f, "the {field} must be a number, {least} to {most}, not a name")
            }
            Self::Range(Field::Weekday) => {
                f.write_str("the day of the week must be 0 to 6: Sunday is 0, not 7")
            }
            Self::Range(field) => {
                let (least, most) = field.bounds();
                write!(f, "the {field} must be {least} to {most}")
            }
            Self::Reversed(field) => {
                let (least, most) = field.bounds();
                write!(
                    f,
                    "the {field} has a range that ends before it begins: write the lower number \
                     first, or two ranges with a comma between, up to {most} and from {least}"
                )
            }
            Self::Step(field) => {
                write!(f, "the step of the {field} must be 1 to {}", field.max_step())
            }
            Self::StepOfNumber(field) => {
                write!(
                    f,
                    "the {field} has a step after a number: write `*` or a range before the `/`"
                )
            }
            Self::Never => write!(
                f,
                "never matches: no day of the years {FIRST_YEAR} to {LAST_YEAR} has that day of the \
                 month, month, day of the week and year"
            ),
        }
    }
}

/// The fields that `text` stands for.
pub(super) fn parse(text: &str) -> Result<Fields, Problem> {
    if text.len() > MAX_LENGTH {
        return Err(Problem::TooLong);
    }
    let texts: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday, year] = texts[..] else {
        return Err(if texts.is_empty() { Problem::Empty } else { Problem::Count(texts.len()) });
    };
    // Only years have more than the first 64 bits.
    let small = |text, field| parse_field(text, field).map(|[bits, ..]| bits);
    let fields = Fields {
        minutes: small(minute, Field::Minute)?,
        hours: small(hour, Field::Hour)?,
        days: small(day, Field::Day)?,
        months: small(month, Field::Month)?,
        weekdays: small(weekday, Field::Weekday)?,
        years: parse_field(year, Field::Year)?,
        names_hours: hour.split(',').any(|part| !part.starts_with('*')),
    };
    // Before and after its years there is nothing, so this is all that there is.
    fields.next(0).map(|_| fields).ok_or(Problem::Never)
}

fn parse_field(text: &str, field: Field) -> Result<[u64; 3], Problem> {
    let mut set = [0; 3];
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (least, most) = match range.split_once('-') {
            _ if range == "*" => field.bounds(),
            Some((least, most)) => {
                let (least, most) = (number(least, field)?, number(most, field)?);
                if least > most {
                    return Err(Problem::Reversed(field));
                }
                (least, most)
            }
            None => {
                let only = number(range, field)?;
                if step.is_some() {
                    return Err(Problem::StepOfNumber(field));
                }
                (only, only)
            }
        };
        let mut next = least;
        let step = step.map_or(Ok(1), |step| parse_step(step, field))?;
        while next <= most {
            insert(&mut set, next - field.base());
            next += step;
        }
    }
    Ok(set)
}

fn number(text: &str, field: Field) -> Result<i64, Problem> {
    let number = digits(text, field)?;
    let (least, most) = field.bounds();
    number.filter(|number| (least..=most).contains(number)).ok_or(Problem::Range(field))
}

fn parse_step(text: &str, field: Field) -> Result<i64, Problem> {
    let step = digits(text, field)?;
    step.filter(|step| (1..=field.max_step()).contains(step)).ok_or(Problem::Step(field))
}

/// A number; nothing if it is far too large.
fn digits(text: &str, field: Field) -> Result<Option<i64>, Problem> {
    match text.as_bytes() {
        [_, ..] if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(text.parse().ok()),
        [_, ..] if text.bytes().all(|byte| byte.is_ascii_alphabetic()) => Err(Problem::Name(field)),
        _ => Err(Problem::Malformed(field)),
    }
}

/// The word of a bit in a set, and the bit in the word.
fn place(bit: i64) -> Option<(usize, u64)> {
    Some((usize::try_from(bit / 64).ok()?, 1 << (bit % 64)))
}

fn insert(set: &mut [u64; 3], bit: i64) {
    if let Some((word, bit)) = place(bit)
        && let Some(word) = set.get_mut(word)
    {
        *word |= bit;
    }
}

fn contains(set: &[u64; 3], bit: i64) -> bool {
    place(bit).is_some_and(|(word, bit)| set.get(word).is_some_and(|word| word & bit != 0))
}

/// An expression for `fields`, of those with the same meaning.
pub(super) fn print(fields: &Fields) -> String {
    let small = |bits| [bits, 0, 0];
    let hours = match (numbers(small(fields.hours), Field::Hour), fields.names_hours) {
        (hours, false) => print_steps(&hours, Field::Hour),
        // Not the same as `*`.
        (hours, true) => print_ranges(&hours),
    };
    [
        print_field(small(fields.minutes), Field::Minute),
        hours,
        print_field(small(fields.days), Field::Day),
        print_field(small(fields.months), Field::Month),
        print_field(small(fields.weekdays), Field::Weekday),
        print_field(fields.years, Field::Year),
    ]
    .join(" ")
}

fn print_field(set: [u64; 3], field: Field) -> String {
    let all = numbers(set, field);
    match all[..] {
        // Two numbers are easier to read than a step between them.
        [first, second, _, ..] if all == steps(second - first, field) => print_step(second - first),
        _ => print_ranges(&all),
    }
}

/// The numbers of a set, in order.
fn numbers(set: [u64; 3], field: Field) -> Vec<i64> {
    let (least, most) = field.bounds();
    (least..=most).filter(|number| contains(&set, number - field.base())).collect()
}

/// The numbers that `*/n` stands for.
fn steps(step: i64, field: Field) -> Vec<i64> {
    let (least, most) = field.bounds();
    (least..=most).filter(|number| (number - least) % step == 0).collect()
}

fn print_step(step: i64) -> String {
    if step == 1 { "*".to_owned() } else { format!("*/{step}") }
}

/// As `*` and `*/n` alone, which the numbers are known to be made of.
fn print_steps(all: &[i64], field: Field) -> String {
    let mut printed: Vec<i64> = Vec::new();
    for step in 1..=field.max_step() {
        let is_new = printed.iter().all(|known| step % known != 0);
        if is_new && steps(step, field).iter().all(|number| all.contains(number)) {
            printed.push(step);
        }
    }
    printed.into_iter().map(print_step).collect::<Vec<_>>().join(",")
}

/// As numbers and ranges, such as `1-5,7`.
fn print_ranges(all: &[i64]) -> String {
    let mut parts = Vec::new();
    for run in all.chunk_by(|one, next| one + 1 == *next) {
        match run {
            [first, _, .., last] => parts.push(format!("{first}-{last}")),
            few => parts.extend(few.iter().map(i64::to_string)),
        }
    }
    parts.join(",")
}
