//! Settings as they came over the wire, in a compact form.
//!
//! [`Settings`] holds a `map<string,string>` in one allocation and in a fixed order, so that two
//! maps whose keys differ in case only are equal. A subscription keeps its settings while it lives,
//! to distinguish a repeated Subscribe from a changed one; for a million of them, a hash map each
//! would take more memory than everything else.
//!
//! `decode` reads them into the author's struct and refuses what does not fit it.

use std::fmt;

/// Keys and values, sorted by key without regard to case, then by key.
///
/// Layout: each key and then its value, each as its length in bytes (seven bits a byte, least
/// significant first, the high bit set on all but the last) and its UTF-8. Without settings nothing
/// is allocated.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    packed: Box<[u8]>,
}

impl Settings {
    /// Packs `pairs`, in any order. Keys that are given twice are kept twice.
    pub(crate) fn new<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        pairs.sort_unstable_by(|(a, x), (b, y)| {
            let (a, b) = (a.as_ref(), b.as_ref());
            folded(a).cmp(folded(b)).then_with(|| (a, x.as_ref()).cmp(&(b, y.as_ref())))
        });
        // The exact size, so that boxing the bytes does not move them again.
        let size =
            pairs.iter().map(|(k, v)| encoded_len(k.as_ref()) + encoded_len(v.as_ref())).sum();
        let mut packed = Vec::with_capacity(size);
        for (key, value) in &pairs {
            push(&mut packed, key.as_ref());
            push(&mut packed, value.as_ref());
        }
        Self { packed: packed.into_boxed_slice() }
    }

    /// Keys and values in their order; keys as the caller wrote them.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.packed }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// How many settings there are; walks over all of them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }
}

/// Equal if the keys are the same except for ASCII case, and the values are the same.
impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        // Case does not change a length, so equal settings are equally long. Most comparisons are
        // with the very same bytes, sent again.
        self.packed == other.packed
            || self.packed.len() == other.packed.len()
                && self
                    .iter()
                    .zip(other.iter())
                    .all(|((a, x), (b, y))| a.eq_ignore_ascii_case(b) && x == y)
    }
}

impl Eq for Settings {}

/// The keys only: a value may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings ")?;
        f.debug_set().entries(self.iter().map(|(key, _)| key)).finish()
    }
}

/// The settings in their order.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((pull(&mut self.rest)?, pull(&mut self.rest)?))
    }
}

fn folded(key: &str) -> impl Iterator<Item = u8> {
    key.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// How many bytes `push` writes for `text`.
fn encoded_len(text: &str) -> usize {
    let bits = usize::BITS - text.len().leading_zeros();
    bits.div_ceil(7).max(1) as usize + text.len()
}

fn push(packed: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length > 0x7f {
        packed.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    packed.push(length.to_le_bytes()[0]);
    packed.extend_from_slice(text.as_bytes());
}

/// Takes one text off the front; `None` at the end.
fn pull<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let mut length = 0_usize;
    let mut shift = 0_u32;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    // Only `push` writes here, and it writes a `str`.
    Some(std::str::from_utf8(text).unwrap_or_default())
}

#[cfg(test)]
mod tests;
