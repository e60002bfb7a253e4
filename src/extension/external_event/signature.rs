//! HMAC-SHA256 signatures, as GitHub and many others send them.

use std::borrow::Cow;

use http::HeaderMap;
use ring::hmac;

use crate::extension::secret::Secret;

const LENGTH: usize = 32;

/// Checks that the header named `name` is the signature of `body`.
///
/// # Errors
///
/// Why not, for the log: it holds nothing of what was sent.
pub(super) fn verify(
    headers: &HeaderMap,
    name: &str,
    secret: &Secret,
    body: &[u8],
) -> Result<(), Cow<'static, str>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Err(format!("there is no header `{name}`").into());
    };
    // Which of them would count is a matter of taste, and so a way to be fooled.
    if values.next().is_some() {
        return Err(format!("there are several headers `{name}`").into());
    }
    let Some(signature) = decode(value.as_bytes()) else {
        return Err(format!(
            "the header `{name}` is not 64 hexadecimal digits, with or without `sha256=`"
        )
        .into());
    };
    if secret.expose().is_empty() {
        return Err("the secret is empty, and anybody can sign with an empty secret".into());
    }
    if is_signature(secret.expose().as_bytes(), body, &signature) {
        return Ok(());
    }
    Err(format!(
        "the header `{name}` does not match the body: is the secret the same at the sender?"
    )
    .into())
}

/// Compares in constant time.
fn is_signature(key: &[u8], body: &[u8], signature: &[u8; LENGTH]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), body, signature).is_ok()
}

fn decode(value: &[u8]) -> Option<[u8; LENGTH]> {
    let digits = value.strip_prefix(b"sha256=").unwrap_or(value);
    if digits.len() != 2 * LENGTH {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
