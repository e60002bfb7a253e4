//! The subscriptions as Info lists them, ready to be sent.
//!
//! Gofer asks for Info often, of an extension that may have a hundred thousand
//! subscriptions at rest. Walking over them and making a text of each takes most
//! of the time of such a call, so the list is kept as it goes over the wire: one
//! buffer, bounded by what a message may hold. Subscribing appends to it; what
//! ends makes it stale, and then it is made anew when somebody asks.

use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::extension::Key;

/// `registered` of `ExtensionInfoResponse`.
const FIELD: u32 = 3;

pub(super) struct Roster {
    /// Shared with the answers that are being sent.
    encoded: Arc<Vec<u8>>,
    /// What `encoded` may grow to, in bytes.
    room: usize,
    listed: usize,
    left_out: usize,
    stale: bool,
}

/// A list that is being sent.
pub(crate) struct Listing {
    /// Entries of `registered`, each with its tag and length.
    pub(crate) encoded: Arc<Vec<u8>>,
    pub(crate) listed: usize,
    /// How many did not fit.
    pub(crate) left_out: usize,
}

impl Roster {
    pub(super) fn new(room: usize) -> Self {
        Self { encoded: Arc::default(), room, listed: 0, left_out: 0, stale: false }
    }

    pub(super) fn add(&mut self, key: &Key) {
        if self.stale {
            return;
        }
        let path = key.path();
        let length = path.len() as u64;
        let needed = key_len(FIELD) + encoded_len_varint(length) + path.len();
        if needed > self.room - self.encoded.len() {
            self.left_out += 1;
            return;
        }
        // Copies it where an answer with it is on its way.
        let encoded = Arc::make_mut(&mut self.encoded);
        encode_key(FIELD, WireType::LengthDelimited, encoded);
        encode_varint(length, encoded);
        encoded.extend_from_slice(path.as_bytes());
        self.listed += 1;
    }

    /// One of them has ended.
    pub(super) fn invalidate(&mut self) {
        self.stale = true;
        // Of no use any more, and a burst that has passed gives it back.
        self.encoded = Arc::default();
    }

    /// The list; `all` is walked over where it has to be made anew.
    pub(super) fn list<'a>(&mut self, all: impl Iterator<Item = &'a Key>) -> Listing {
        if self.stale {
            *self = Self::new(self.room);
            all.for_each(|key| self.add(key));
        }
        Listing { encoded: Arc::clone(&self.encoded), listed: self.listed, left_out: self.left_out }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use gofer_proto::ExtensionInfoResponse;

    fn key(pipeline: &str) -> Key {
        Key::new("default", pipeline, "label").unwrap()
    }

    fn read(listing: &Listing) -> Vec<String> {
        ExtensionInfoResponse::decode(listing.encoded.as_slice()).unwrap().registered
    }

    #[test]
    fn what_is_added_is_listed_and_what_ended_is_not() {
        let mut roster = Roster::new(1000);
        let keys = [key("one"), key("two"), key(&"long".repeat(40))];
        for key in &keys {
            roster.add(key);
        }
        let listing = roster.list(std::iter::empty());
        assert_eq!(read(&listing), keys.each_ref().map(Key::path));
        roster.invalidate();
        // Added while it is stale: the walk has it.
        roster.add(&keys[0]);
        assert_eq!(read(&roster.list(keys[..2].iter())), ["default/one", "default/two"]);
        roster.add(&keys[2]);
        assert_eq!(roster.list(std::iter::empty()).listed, 3);
        assert_eq!(read(&listing).len(), 3, "an answer on its way is not touched");
    }

    #[test]
    fn the_list_ends_where_it_would_not_fit() {
        // Tag, length, and eleven bytes of text.
        let mut roster = Roster::new(2 * 13 + 12);
        for pipeline in ["one", "two", "six"] {
            roster.add(&key(pipeline));
        }
        // A shorter one still fits.
        roster.add(&key("xx"));
        let listing = roster.list(std::iter::empty());
        assert_eq!(read(&listing), ["default/one", "default/two", "default/xx"]);
        assert_eq!((listing.listed, listing.left_out), (3, 1));
    }
}
