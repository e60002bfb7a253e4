//! The name of a container image: `[registry/]path[:tag][@digest]`.

use std::fmt;

use tonic::Status;

/// Far longer than any real name.
const MAX_BYTES: usize = 512;

/// The tag of a name without one.
const LATEST: &str = "latest";

/// A valid image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageName {
    /// Including the registry.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageName {
    /// # Errors
    ///
    /// If the name is not valid; the message says why.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let refused = |why: &str| {
            Status::invalid_argument(format!(
                "`{}` is not the name of a container image ({why}); write \
                 `registry/name:tag`, or `exec:<path>` for a program on this machine",
                shown(text)
            ))
        };
        if text.len() > MAX_BYTES {
            return Err(refused("it is too long"));
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(refused("it looks like a path"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let path_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[path_at..].split_once(':') {
            Some((name, tag)) => (&rest[..path_at + name.len()], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refused("a tag has at most 128 letters, digits, `_`, `.` and `-`"));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(refused("a digest is `sha256:` and 64 hexadecimal digits"));
        }
        let (registry, path) = match repository.split_once('/') {
            Some((first, path)) if is_registry(first) => (Some(first), path),
            _ => (None, repository),
        };
        if registry.is_some_and(|registry| !is_host(registry)) {
            return Err(refused("a registry is a host name with an optional port"));
        }
        if path.split('/').any(|component| !is_component(component)) {
            return Err(refused(
                "each part must be lowercase letters and digits, with `.`, `_` or `-` between them",
            ));
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest or tag. Without one, the engine would pull all tags of the repository.
    pub(super) fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(LATEST)
    }

    /// The host that it is pulled from, if the name has one.
    pub(super) fn registry(&self) -> Option<&str> {
        self.repository.split_once('/').map(|(first, _)| first).filter(|first| is_registry(first))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Makes any text short and printable.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether the first part of a name is a registry rather than part of the path.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok()),
        None => (text, true),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port && host.split('.').all(label)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = text.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| alphanumeric(Some(byte)) || b"._-".contains(byte))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
    })
}
