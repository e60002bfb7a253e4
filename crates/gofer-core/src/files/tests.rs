#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::UnixListener;

use super::*;

/// A directory that is removed after the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let name = format!("gofer-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

#[test]
fn a_file_is_replaced_with_its_mode() {
    let scratch = Scratch::new();
    let path = scratch.path("a");
    replace(&path, b"one", 0o644).unwrap();
    assert_eq!(mode(&path) & 0o600, 0o600);
    replace(&path, b"two", 0o600).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(scratch.names(), ["a"]);
}

#[test]
fn a_file_is_created_only_if_there_is_none() {
    let scratch = Scratch::new();
    let path = scratch.path("a");
    assert!(create(&path, b"one", 0o600).unwrap());
    assert!(!create(&path, b"two", 0o600).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"one");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(scratch.names(), ["a"]);
}

#[test]
fn a_symlink_stays_one_and_its_file_is_replaced() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("real")).unwrap();
    fs::write(scratch.path("real/file"), "one").unwrap();
    symlink(scratch.path("real/file"), scratch.path("absolute")).unwrap();
    symlink("real/file", scratch.path("relative")).unwrap();
    symlink("../relative", scratch.path("real/chain")).unwrap();
    for (link, content) in [("absolute", "two"), ("relative", "three"), ("real/chain", "four")] {
        replace(&scratch.path(link), content.as_bytes(), 0o600).unwrap();
        assert!(is_symlink(&scratch.path(link)), "{link}");
        assert_eq!(fs::read_to_string(scratch.path("real/file")).unwrap(), content);
    }
    assert_eq!(scratch.names(), ["absolute", "real", "relative"]);
    assert_eq!(fs::read_dir(scratch.path("real")).unwrap().count(), 2);
}

#[test]
fn what_a_dangling_symlink_points_to_is_created() {
    let scratch = Scratch::new();
    symlink("first", scratch.path("replaced")).unwrap();
    replace(&scratch.path("replaced"), b"one", 0o600).unwrap();
    symlink("second", scratch.path("created")).unwrap();
    assert!(create(&scratch.path("created"), b"two", 0o600).unwrap());
    assert!(!create(&scratch.path("created"), b"three", 0o600).unwrap());
    assert!(is_symlink(&scratch.path("replaced")) && is_symlink(&scratch.path("created")));
    assert_eq!(fs::read(scratch.path("first")).unwrap(), b"one");
    assert_eq!(fs::read(scratch.path("second")).unwrap(), b"two");
    assert_eq!(scratch.names(), ["created", "first", "replaced", "second"]);
}

#[test]
fn symlinks_in_a_circle_are_an_error() {
    let scratch = Scratch::new();
    symlink("a", scratch.path("b")).unwrap();
    symlink("b", scratch.path("a")).unwrap();
    replace(&scratch.path("a"), b"one", 0o600).unwrap_err();
    assert_eq!(scratch.names(), ["a", "b"]);
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let _socket = UnixListener::bind(&path).unwrap();
    symlink("socket", scratch.path("link")).unwrap();
    for name in ["socket", "link"] {
        for outcome in [
            replace(&scratch.path(name), b"one", 0o600),
            create(&scratch.path(name), b"one", 0o600).map(drop),
        ] {
            let why = outcome.unwrap_err().to_string();
            assert!(why.contains("not a regular file"), "{why}");
        }
        assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "{name}");
    }
    assert!(is_symlink(&scratch.path("link")));
    assert_eq!(scratch.names(), ["link", "socket"]);
}

#[test]
fn a_failure_leaves_everything_as_it_was() {
    let scratch = Scratch::new();
    // No temporary name of this length is possible.
    let long = scratch.path(&"n".repeat(250));
    fs::write(&long, "one").unwrap();
    replace(&long, b"two", 0o600).unwrap_err();
    assert_eq!(fs::read(&long).unwrap(), b"one");
    // No file takes the place of a directory.
    fs::create_dir(scratch.path("directory")).unwrap();
    replace(&scratch.path("directory"), b"two", 0o600).unwrap_err();
    assert!(scratch.path("directory").is_dir());
    replace(&scratch.path("missing/file"), b"two", 0o600).unwrap_err();
    replace(Path::new("/"), b"two", 0o600).unwrap_err();
    assert_eq!(scratch.names(), ["directory".to_owned(), "n".repeat(250)]);
}

#[test]
fn a_new_file_that_is_given_up_is_removed() {
    let scratch = Scratch::new();
    fs::write(scratch.path("a"), "one").unwrap();
    let new = NewFile::new(&scratch.path("a")).unwrap();
    fs::write(new.path(), "half").unwrap();
    assert_eq!(scratch.names().len(), 2);
    drop(new);
    assert_eq!(scratch.names(), ["a"]);
    assert_eq!(fs::read(scratch.path("a")).unwrap(), b"one");
}
