//! The rules for names, and the pages of listings.

use tonic::Status;

use super::DEFAULT;

/// Far longer than any name that a person would type.
const MAX_NAME_BYTES: usize = 200;

/// What a limit of 0 means.
const DEFAULT_LIMIT: usize = 200;

/// A page has no more, whatever was asked for: it must fit into memory and into a response.
const MAX_LIMIT: usize = 1000;

/// A name must not be empty, contain `/` (which joins names) or control characters, or be longer
/// than 200 bytes.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Status> {
    let problem = if name.is_empty() {
        "must not be empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("has {} bytes; at most {MAX_NAME_BYTES} are accepted", name.len())
    } else if name.contains('/') || name.contains(char::is_control) {
        "must not contain `/` or control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Status::invalid_argument(format!("the {what} {problem}")))
}

/// The name of an extension that is installed is also followed by ` (` and a label wherever one of
/// its runs names it, and so must not contain that itself.
pub(crate) fn check_extension_name(name: &str) -> Result<(), Status> {
    check_name("extension's name", name)?;
    if name.contains(" (") {
        return Err(Status::invalid_argument(
            "the extension's name must not contain ` (`, which begins the label in the initiator \
             of its runs",
        ));
    }
    Ok(())
}

/// The namespace, with an empty one replaced by `default`.
pub(crate) fn or_default(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT } else { namespace }
}

/// A page of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    /// Everything.
    pub(super) const ALL: Self = Self { offset: 0, limit: usize::MAX };

    pub(crate) fn new(offset: i64, limit: i64) -> Result<Self, Status> {
        let (Ok(offset), Ok(limit)) = (usize::try_from(offset), usize::try_from(limit)) else {
            return Err(Status::invalid_argument("`offset` and `limit` must not be negative"));
        };
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) };
        Ok(Self { offset, limit })
    }

    pub(super) fn offset(self) -> usize {
        self.offset
    }

    pub(super) fn limit(self) -> usize {
        self.limit
    }

    pub(super) fn of<'a, T: Clone + 'a>(self, all: impl Iterator<Item = &'a T>) -> Vec<T> {
        all.skip(self.offset).take(self.limit).cloned().collect()
    }
}
