//! The chunked transfer coding (RFC 9112, section 7.1) of a complete body.
//!
//! Chunk extensions and trailers are checked for their syntax and dropped.

use super::{MAX_HEADERS, refuse};
use crate::error::{Error, Result};

/// All chunks joined; `text` must end where the coding does.
pub(super) fn decode(mut text: &[u8]) -> Result<Vec<u8>> {
    // The decoded body is shorter than its coding, so this never grows.
    let mut body = Vec::with_capacity(text.len());
    loop {
        let (size, rest) = chunk_size(text)?;
        if size == 0 {
            trailers(rest)?;
            return Ok(body);
        }
        let (data, rest) = rest.split_at_checked(size).ok_or_else(cut_off)?;
        body.extend_from_slice(data);
        text = match rest {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Err(cut_off()),
            _ => return Err(malformed()),
        };
    }
}

/// The size that the first line gives, and what follows the line.
fn chunk_size(text: &[u8]) -> Result<(usize, &[u8])> {
    // Unlike elsewhere, a bare LF does not end the line: if parsers differ in that, a chunk
    // extension can hide a request.
    let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(cut_off)?;
    let line = text[..end].strip_suffix(b"\r").ok_or_else(malformed)?;
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    if !matches!(extension.trim_ascii_start(), [] | [b';', ..]) {
        return Err(malformed());
    }
    let size = std::str::from_utf8(digits).ok();
    let size = size.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    Ok((size.ok_or_else(malformed)?, &text[end + 1..]))
}

/// Header lines may follow the last chunk; an empty line ends it all.
fn trailers(text: &[u8]) -> Result<()> {
    let mut table = [httparse::EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(text, &mut table) {
        Ok(httparse::Status::Complete((length, _))) if length == text.len() => Ok(()),
        Ok(httparse::Status::Complete(_)) => {
            Err(refuse("the HTTP request must end after the last chunk of its body"))
        }
        Ok(httparse::Status::Partial) => Err(cut_off()),
        Err(_) => Err(malformed()),
    }
}

fn cut_off() -> Error {
    refuse("the HTTP request is cut off in its body, before the end of the last chunk")
}

fn malformed() -> Error {
    refuse(
        "the HTTP request's body must be chunked, as `Transfer-Encoding` requires: \
         each chunk is its size in hex, CRLF, its bytes, CRLF",
    )
}
