//! What identifies a subscription.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// What identifies a subscription: namespace, pipeline and label, packed into one allocation.
/// Equality and hashes include all three.
#[derive(Clone)]
pub(crate) struct Key {
    /// `namespace/pipeline` directly followed by the label.
    text: Box<str>,
    namespace: u32,
    path: u32,
}

/// The longest key, in bytes: far longer than any real name, and small enough for the packed
/// lengths.
pub(crate) const MAX_KEY_BYTES: usize = 4096;

impl Key {
    /// Packs the three parts; an empty namespace is `default`.
    pub(crate) fn new(namespace: &str, pipeline: &str, label: &str) -> Result<Self> {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        if pipeline.is_empty() {
            return Err(Error::new(ErrorKind::InvalidParameter, "`pipeline_id` must not be empty"));
        }
        let length = namespace.len() + 1 + pipeline.len() + label.len();
        let (Ok(end_of_namespace), Ok(end_of_path), true) = (
            u32::try_from(namespace.len()),
            u32::try_from(namespace.len() + 1 + pipeline.len()),
            length <= MAX_KEY_BYTES,
        ) else {
            return Err(Error::new(
                ErrorKind::InvalidParameter,
                format!(
                    "namespace, pipeline and label are {length} bytes together; \
                     at most {MAX_KEY_BYTES} are accepted"
                ),
            ));
        };
        let mut text = String::with_capacity(length);
        text.extend([namespace, "/", pipeline, label]);
        Ok(Self { text: text.into(), namespace: end_of_namespace, path: end_of_path })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.text[..self.namespace as usize]
    }

    pub(crate) fn pipeline(&self) -> &str {
        &self.text[self.namespace as usize + 1..self.path as usize]
    }

    /// `namespace/pipeline`, as Info lists it.
    pub(crate) fn path(&self) -> &str {
        &self.text[..self.path as usize]
    }

    pub(crate) fn label(&self) -> &str {
        &self.text[self.path as usize..]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.path == other.path && self.text == other.text
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
        state.write_u64(u64::from(self.namespace) << 32 | u64::from(self.path));
    }
}

/// `namespace/pipeline (label)`, for logs and messages.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path(), self.label())
    }
}
