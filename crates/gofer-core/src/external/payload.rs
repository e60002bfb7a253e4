//! The raw HTTP/1.1 request that an extension gets, from what hyper has read.
//!
//! Made as a full Gofer makes it with Go's `httputil.DumpRequest`: the line as
//! it was sent, and header names in their canonical form (`X-Github-Event`),
//! since the case that they were sent in means nothing and is not kept. Values
//! are what was sent, and so is the order of those of one name. The body is
//! never in chunks here: `Transfer-Encoding` and `Trailer` are gone, trailers
//! too, and `Content-Length` is always there and true.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;

use gofer_sdk::ExternalEvent;

/// As many digits as a length can have.
const MOST_DIGITS: usize = 20;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request that is being put together.
pub(super) struct Payload {
    /// The line and the headers, up to the number of the last one: how long the
    /// body is may be known only once it is there.
    head: Vec<u8>,
    /// Room for the head, so that nothing is moved for it, then the body.
    buffer: Vec<u8>,
    room: usize,
}

/// The extension's side could not read it.
#[derive(Debug)]
pub(super) struct Unreadable;

impl Payload {
    /// A request without its body.
    pub(super) fn new(parts: &Parts) -> Result<Self, Unreadable> {
        let head = head(parts);
        // What the extension would refuse for its line or headers is refused
        // before its body is read.
        let probe = [&head[..], b"0", END_OF_HEAD].concat();
        ExternalEvent::new(probe).map_err(|_| Unreadable)?;
        let room = head.len() + MOST_DIGITS + END_OF_HEAD.len();
        Ok(Self { head, buffer: vec![0; room], room })
    }

    /// How much of the body is there, in bytes.
    pub(super) fn body_bytes(&self) -> usize {
        self.buffer.len() - self.room
    }

    /// What this takes in memory with a body of that length, in bytes.
    pub(super) fn bytes_with(&self, body: usize) -> usize {
        self.room.saturating_add(body)
    }

    /// What this takes in memory now, in bytes.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Adds to the body. Memory for more than is there is taken in steps, up to
    /// `most` for the body as a whole.
    pub(super) fn push(&mut self, data: &[u8], most: usize) {
        let needed = self.buffer.len() + data.len();
        if needed > self.buffer.capacity() {
            // Doubled, so that bytes are moved once each on average.
            let wanted = (2 * self.buffer.capacity()).min(self.bytes_with(most)).max(needed);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
        self.buffer.extend_from_slice(data);
    }

    /// The whole request.
    pub(super) fn finish(mut self) -> Bytes {
        self.head.extend_from_slice(self.body_bytes().to_string().as_bytes());
        self.head.extend_from_slice(END_OF_HEAD);
        let start = self.room - self.head.len();
        self.buffer[start..self.room].copy_from_slice(&self.head);
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

/// Each word of a header's name with a capital.
fn canonical(name: &str, into: &mut Vec<u8>) {
    let mut begins = true;
    for byte in name.bytes() {
        into.push(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn payload(request: http::request::Builder, body: &[&[u8]]) -> Bytes {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut payload = Payload::new(&parts).unwrap();
        let most = body.iter().map(|piece| piece.len()).sum();
        for piece in body {
            payload.push(piece, most);
        }
        assert!(payload.buffer.capacity() <= payload.bytes_with(most));
        payload.finish()
    }

    #[test]
    fn it_is_what_was_sent_with_a_true_length() {
        let request = Request::post("/external/a%20b?x=%2F&x=")
            .header("host", "example.com")
            .header("x-github-event", "push")
            .header("transfer-encoding", "chunked")
            .header("trailer", "x-sum")
            .header("x-b", "1")
            .header("x-b", &b"\xc3\xbc\t2"[..]);
        assert_eq!(
            payload(request, &[b"{\"a\":", b"\x00\xff}"]),
            &b"POST /external/a%20b?x=%2F&x= HTTP/1.1\r\nHost: example.com\r\n\
               X-Github-Event: push\r\nX-B: 1\r\nX-B: \xc3\xbc\t2\r\n\
               Content-Length: 8\r\n\r\n{\"a\":\x00\xff}"[..]
        );
    }

    #[test]
    fn lengths_of_any_number_of_digits_fit_before_the_body() {
        for length in [0, 9, 10, 99_999, 100_000] {
            let body = vec![b'x'; length];
            let raw = payload(Request::post("/external/a"), &[&body]);
            let event = ExternalEvent::new(raw).unwrap();
            assert_eq!(event.header("content-length"), Some(&*length.to_string()));
            assert_eq!(event.body().len(), length);
        }
    }

    #[test]
    fn what_the_other_side_cannot_read_is_refused() {
        let (parts, ()) = Request::post("*").body(()).unwrap().into_parts();
        assert!(Payload::new(&parts).is_err());
        let mut many = Request::post("/external/a");
        for n in 0..256 {
            many = many.header(format!("x-{n}"), "y");
        }
        let (parts, ()) = many.body(()).unwrap().into_parts();
        assert!(Payload::new(&parts).is_err());
    }

    #[test]
    fn a_target_with_a_host_is_its_path() {
        let raw = payload(Request::post("http://example.com/external/a?b"), &[]);
        assert!(raw.starts_with(b"POST /external/a?b HTTP/1.1\r\n"));
    }
}
