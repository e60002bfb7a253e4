//! The `grpc-timeout` header: at most eight digits and a unit, as specified by the gRPC protocol.

use std::time::Duration;

use http::HeaderValue;

/// Parses the header. One that does not follow the specification is treated as absent.
pub fn parse(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 60 * 60),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Formats the header, in the finest unit that fits.
pub fn format(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let text = [
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (u128::from(timeout.as_secs()), 'S'),
    ]
    .into_iter()
    .find(|(amount, _)| *amount <= MOST)
    .map_or_else(|| format!("{MOST}S"), |(amount, unit)| format!("{amount}{unit}"));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("10S"))
}

#[cfg(test)]
mod tests;
