//! What each subscription of a running extension was last given.
//!
//! Extensions differ in what a second Subscribe of the same subscription does: some replace the
//! first, some ignore the second, some then hold both. So an extension that holds a subscription is
//! not subscribed again, and one that holds it with other settings is unsubscribed first.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::sync::lock;
use gofer_net::auth::sha256;
use gofer_proto::PipelineExtensionSubscription as Subscription;

/// Namespace, pipeline, label.
pub(super) type Key = [String; 3];

/// For each subscription that the extension may hold, the digest of its resolved settings; `None` if
/// the outcome of a call is not known.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<Key, Option<[u8; 32]>>>);

/// What an extension holds of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    /// These settings.
    These,
    /// Others, or nobody knows.
    Others,
}

impl Held {
    pub(super) fn compare(&self, subscription: &Subscription, digest: [u8; 32]) -> Holds {
        match lock(&self.0).get(&key(subscription)) {
            None => Holds::Nothing,
            Some(held) if *held == Some(digest) => Holds::These,
            Some(_) => Holds::Others,
        }
    }

    pub(super) fn holds_nothing(&self, subscription: &Subscription) -> bool {
        !lock(&self.0).contains_key(&key(subscription))
    }

    pub(super) fn set(&self, subscription: &Subscription, digest: [u8; 32]) {
        lock(&self.0).insert(key(subscription), Some(digest));
    }

    pub(super) fn set_unknown(&self, subscription: &Subscription) {
        lock(&self.0).insert(key(subscription), None);
    }

    pub(super) fn remove(&self, subscription: &Subscription) {
        lock(&self.0).remove(&key(subscription));
    }
}

pub(super) fn key(subscription: &Subscription) -> Key {
    let Subscription { namespace, pipeline, label, .. } = subscription;
    [namespace.clone(), pipeline.clone(), label.clone()]
}

/// Of resolved settings, which may be secrets.
pub(super) fn digest(settings: &HashMap<String, String>) -> [u8; 32] {
    let mut sorted: Vec<_> = settings.iter().collect();
    sorted.sort_unstable();
    let mut bytes = Vec::new();
    for text in sorted.into_iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend(text.len().to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    sha256(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_keys_and_values_apart_and_does_not_depend_on_their_order() {
        let of = |settings: &[(&str, &str)]| {
            let owned = settings.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            digest(&owned.collect())
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        let different = [
            of(&[]),
            of(&[("a", "")]),
            of(&[("", "a")]),
            of(&[("a", "b")]),
            of(&[("ab", "")]),
            of(&[("a", ""), ("b", "")]),
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(!different[at + 1..].contains(one), "{at}");
        }
    }
}
