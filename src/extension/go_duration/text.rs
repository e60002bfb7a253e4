//! Go's notation of durations: parsing and printing.
//!
//! Quirks of Go's arithmetic are kept, and marked. Every step of [`parse`] removes what it has read
//! from the front, so the time is linear in the input.

use super::ParseProblem;

const MICROSECOND: u64 = 1_000;
pub(super) const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// The largest magnitude while parsing: that of `i64::MIN` nanoseconds. For a positive result, the
/// limit of one less is checked at the end.
const LIMIT: u64 = 1 << 63;

/// The nanoseconds that `text` stands for.
pub(super) fn parse(text: &[u8]) -> Result<i64, ParseProblem> {
    let (negative, mut rest) = match text {
        [sign @ (b'-' | b'+'), rest @ ..] => (*sign == b'-', rest),
        unsigned => (false, unsigned),
    };
    if rest.is_empty() {
        return Err(ParseProblem::Empty);
    }
    if rest == b"0" {
        return Ok(0);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let term;
        (term, rest) = parse_term(rest)?;
        // Go's quirk: twice exactly `LIMIT` wraps around to zero and passes.
        total = total.wrapping_add(term);
        if total > LIMIT {
            return Err(ParseProblem::Range);
        }
    }
    let signed =
        if negative { 0i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() };
    signed.ok_or(ParseProblem::Range)
}

/// One number with its unit, in nanoseconds, and what follows it.
fn parse_term(text: &[u8]) -> Result<(u64, &[u8]), ParseProblem> {
    let (whole, rest) = split(text, |byte| !byte.is_ascii_digit());
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => split(rest, |byte| !byte.is_ascii_digit()),
        _ => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(ParseProblem::Number);
    }
    let (unit, rest) = split(rest, |byte| byte == b'.' || byte.is_ascii_digit());
    let nanos = match unit {
        b"" => return Err(ParseProblem::MissingUnit),
        b"ns" => 1,
        // Both characters that look like a mu: U+00B5 and U+03BC.
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => MICROSECOND,
        b"ms" => MILLISECOND,
        b"s" => SECOND,
        b"m" => MINUTE,
        b"h" => HOUR,
        _ => return Err(ParseProblem::UnknownUnit),
    };
    let term = whole
        .iter()
        .try_fold(0, |value, digit| append_digit(value, *digit))
        .and_then(|whole| whole.checked_mul(nanos)?.checked_add(fraction_of(fraction, nanos)))
        .filter(|term| *term <= LIMIT);
    Ok((term.ok_or(ParseProblem::Range)?, rest))
}

/// Splits before the first byte that `ends` the part.
fn split(text: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| ends(*byte)).unwrap_or(text.len()))
}

fn append_digit(value: u64, digit: u8) -> Option<u64> {
    value.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|value| *value <= LIMIT)
}

/// The nanoseconds in a fraction of a unit, by exactly the steps that Go takes: digits beyond
/// `LIMIT` are dropped, the rest is scaled in `f64` in this order of operations, and the result is
/// cut down to whole nanoseconds. Any other way differs from Go by a nanosecond now and then.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "Go rounds like this, and the result is less than one unit"
)]
fn fraction_of(digits: &[u8], nanos: u64) -> u64 {
    let mut value = 0;
    let mut scale = 1.0;
    for digit in digits {
        let Some(longer) = append_digit(value, *digit) else { break };
        value = longer;
        scale *= 10.0;
    }
    (value as f64 * (nanos as f64 / scale)) as u64
}

/// Hours, minutes and seconds from one second up, `1h0m0s`; below that one number in the largest
/// unit that fits, `1.5ms`.
pub(super) fn print(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    match nanos {
        0 => "0s".to_owned(),
        1..MICROSECOND => format!("{sign}{nanos}ns"),
        MICROSECOND..MILLISECOND => format!("{sign}{}µs", decimal(nanos, MICROSECOND, 3)),
        MILLISECOND..SECOND => format!("{sign}{}ms", decimal(nanos, MILLISECOND, 6)),
        SECOND.. => {
            let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
            let seconds = decimal(nanos % MINUTE, SECOND, 9);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `nanos` in a unit of ten to the `places`, without trailing zeros.
fn decimal(nanos: u64, unit: u64, places: usize) -> String {
    let text = format!("{}.{:0places$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
