//! The raw HTTP/1.1 request that an extension receives, rebuilt from what hyper has parsed.
//!
//! It has the form that a full Gofer makes with Go's `httputil.DumpRequest`: the request line as it
//! was sent, and header names in their canonical form (`X-Github-Event`), since their case has no
//! meaning and is not kept. Values are as they were sent, and so is the order of those with the
//! same name. The body is not chunked: `Transfer-Encoding`, `Trailer` and trailers are removed, and
//! there is always a correct `Content-Length`.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;

use gofer_sdk::ExternalEvent;

/// The number of digits that a length may have.
const MAX_DIGITS: usize = 20;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request that is being built.
pub(super) struct Payload {
    /// The request line and the headers, up to the value of `Content-Length`, which is known only
    /// once the body has arrived.
    head: Vec<u8>,
    /// Space for the head, so that the body need not be moved, and then the body.
    buffer: Vec<u8>,
    head_space: usize,
}

/// The extension's side could not parse it.
#[derive(Debug)]
pub(super) struct Unreadable;

impl Payload {
    /// A request without its body.
    pub(super) fn new(parts: &Parts) -> Result<Self, Unreadable> {
        let head = head(parts);
        // A request line or headers that the extension would reject are rejected before the body is
        // read.
        let probe = [&head[..], b"0", END_OF_HEAD].concat();
        ExternalEvent::new(probe).map_err(|_| Unreadable)?;
        let head_space = head.len() + MAX_DIGITS + END_OF_HEAD.len();
        Ok(Self { head, buffer: vec![0; head_space], head_space })
    }

    /// How much of the body has arrived, in bytes.
    pub(super) fn body_bytes(&self) -> usize {
        self.buffer.len() - self.head_space
    }

    /// The memory that this takes with a body of that length, in bytes.
    pub(super) fn bytes_with(&self, body: usize) -> usize {
        self.head_space.saturating_add(body)
    }

    /// The memory that this takes now, in bytes.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Appends to the body. The buffer grows in steps, to at most `limit` bytes for the body.
    pub(super) fn push(&mut self, data: &[u8], limit: usize) {
        let needed = self.buffer.len() + data.len();
        if needed > self.buffer.capacity() {
            // Doubled, so that each byte is moved about once on average.
            let capacity = (2 * self.buffer.capacity()).min(self.bytes_with(limit)).max(needed);
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        self.buffer.extend_from_slice(data);
    }

    /// The whole request.
    pub(super) fn finish(mut self) -> Bytes {
        self.head.extend_from_slice(self.body_bytes().to_string().as_bytes());
        self.head.extend_from_slice(END_OF_HEAD);
        let start = self.head_space - self.head.len();
        self.buffer[start..self.head_space].copy_from_slice(&self.head);
        Bytes::from(self.buffer).slice(start..)
    }
}

fn head(parts: &Parts) -> Vec<u8> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} {:?}\r\n", parts.method, parts.version).into_bytes();
    for (name, value) in &parts.headers {
        if [CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER].contains(name) {
            continue;
        }
        canonical(name.as_str(), &mut head);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"Content-Length: ");
    head
}

/// Appends a header name with each word capitalized.
fn canonical(name: &str, output: &mut Vec<u8>) {
    let mut begins = true;
    for byte in name.bytes() {
        output.push(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
}

#[cfg(test)]
mod tests;
