//! The subscriptions as Info lists them, ready to be sent, and how much room they have in it.
//!
//! Gofer calls Info often, on an extension that may have a hundred thousand idle subscriptions.
//! Visiting each of them and formatting its name takes most of the time of such a call, so the list
//! is kept as it goes over the wire: one buffer, bounded by what a message may hold. Subscribing
//! appends to it; the end of a subscription makes it stale, and the next Info builds it anew.

use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::extension::Key;

/// `registered` of `ExtensionInfoResponse`.
const FIELD: u32 = 3;

/// What Gofer's client accepts as one message.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The documentation's part of it; the rest is for the list.
const MAX_DOCUMENTATION_BYTES: usize = 1024 * 1024;

/// Reserved for the name, the tags, the sentences about what was cut, an outage of Gofer with a
/// reason of at most 2 KiB, and the failing subscriptions: twenty lines with a key of at most 4 KiB
/// and a reason of at most 2 KiB.
const OVERHEAD_BYTES: usize = 192 * 1024;

/// Cuts the documentation to its part of Info, and says so in it.
pub(super) fn truncate(mut documentation: String) -> String {
    if documentation.len() > MAX_DOCUMENTATION_BYTES {
        let mut ends = (0..=MAX_DOCUMENTATION_BYTES).rev();
        let end = ends.find(|end| documentation.is_char_boundary(*end));
        documentation.truncate(end.unwrap_or(0));
        documentation.push_str("\n\nThe documentation was cut here: it is too long.\n");
    }
    documentation
}

/// What this documentation leaves for the list of subscriptions, in bytes.
pub(super) fn budget(documentation: &str) -> usize {
    MAX_BYTES - OVERHEAD_BYTES - documentation.len()
}

pub(super) struct Listing {
    /// Shared with the responses that are being sent.
    encoded: Arc<Vec<u8>>,
    /// The most that `encoded` may take, in bytes.
    budget: usize,
    listed: usize,
    omitted: usize,
    stale: bool,
}

/// The list as one response contains it.
pub(crate) struct Snapshot {
    /// Entries of `registered`, each with its tag and length.
    pub(crate) encoded: Arc<Vec<u8>>,
    pub(crate) listed: usize,
    /// How many did not fit.
    pub(crate) omitted: usize,
}

impl Listing {
    pub(super) fn new(budget: usize) -> Self {
        Self { encoded: Arc::default(), budget, listed: 0, omitted: 0, stale: false }
    }

    pub(super) fn add(&mut self, key: &Key) {
        if self.stale {
            return;
        }
        let path = key.path();
        let length = path.len() as u64;
        let needed = key_len(FIELD) + encoded_len_varint(length) + path.len();
        if needed > self.budget - self.encoded.len() {
            self.omitted += 1;
            return;
        }
        // Copies it if a response with it is being sent.
        let encoded = Arc::make_mut(&mut self.encoded);
        encode_key(FIELD, WireType::LengthDelimited, encoded);
        encode_varint(length, encoded);
        encoded.extend_from_slice(path.as_bytes());
        self.listed += 1;
    }

    /// A subscription has ended.
    pub(super) fn invalidate(&mut self) {
        self.stale = true;
        // No longer of use; after a burst this returns its memory.
        self.encoded = Arc::default();
    }

    /// The list; `all` is iterated only if it has to be built anew.
    pub(super) fn snapshot<'a>(&mut self, all: impl Iterator<Item = &'a Key>) -> Snapshot {
        if self.stale {
            *self = Self::new(self.budget);
            all.for_each(|key| self.add(key));
        }
        Snapshot { encoded: Arc::clone(&self.encoded), listed: self.listed, omitted: self.omitted }
    }
}

#[cfg(test)]
mod tests;
