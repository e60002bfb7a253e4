//! Stands in for encryption at rest if the feature `store` is off: nothing is written.

pub(super) enum Seal {}

impl Seal {
    pub(super) fn seal(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        match *self {}
    }
}
