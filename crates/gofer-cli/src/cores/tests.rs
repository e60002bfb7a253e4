#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A file in a directory of its own, which is removed after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("gofer-cores-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> PathBuf {
        file(&self.0.join("gofer/config.toml"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn core(address: &str, store: Option<&str>, token: &str) -> StartedCore {
    StartedCore {
        address: address.to_owned(),
        store: store.map(PathBuf::from),
        token: token.to_owned(),
        certificate: "PEM\n".to_owned(),
    }
}

fn token_at(path: &Path, address: Option<&str>) -> Option<String> {
    StartedCores::read(path).unwrap().last(address).map(|core| core.token.clone())
}

#[test]
fn the_core_that_was_started_last_is_used_and_each_is_found_by_its_address() {
    let scratch = Scratch::new("last");
    let path = scratch.file();
    assert_eq!(token_at(&path, None), None);
    StartedCores::save(&path, core("127.0.0.1:8080", Some("/a.redb"), "a")).unwrap();
    StartedCores::save(&path, core("127.0.0.1:9090", Some("/b.redb"), "b")).unwrap();
    assert_eq!(token_at(&path, None).unwrap(), "b");
    assert_eq!(token_at(&path, Some("localhost:8080")).unwrap(), "a");
    assert_eq!(token_at(&path, Some("[::1]:9090")).unwrap(), "b");
    assert_eq!(token_at(&path, Some("gofer.example.com:8080")), None);
    // It keeps its token at another address.
    StartedCores::started_again(&path, Path::new("/a.redb"), "127.0.0.1:7070", "PEM 2\n").unwrap();
    assert_eq!(token_at(&path, None).unwrap(), "a");
    assert_eq!(token_at(&path, Some("localhost:7070")).unwrap(), "a");
    assert_eq!(token_at(&path, Some("localhost:8080")), None);
    // One that was not started with this file stays unknown.
    StartedCores::started_again(&path, Path::new("/c.redb"), "127.0.0.1:9090", "PEM\n").unwrap();
    assert_eq!(token_at(&path, None).unwrap(), "a");
}

#[test]
fn a_store_has_one_entry_and_a_core_in_memory_one_for_its_address_until_it_stops() {
    let scratch = Scratch::new("entries");
    let path = scratch.file();
    for token in ["a", "b"] {
        StartedCores::save(&path, core("127.0.0.1:8080", Some("/a.redb"), token)).unwrap();
        StartedCores::save(&path, core("127.0.0.1:9090", None, &format!("memory-{token}")))
            .unwrap();
    }
    assert_eq!(StartedCores::read(&path).unwrap().cores.len(), 2);
    StartedCores::remove(&path, "memory-b").unwrap();
    assert_eq!(token_at(&path, None).unwrap(), "b");
    for n in 0..2 * MOST {
        StartedCores::save(&path, core(&format!("127.0.0.1:{n}"), None, "c")).unwrap();
    }
    assert_eq!(StartedCores::read(&path).unwrap().cores.len(), MOST);
}

/// Far more than a change takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_lock_is_waited_for_but_not_forever() {
    let scratch = Scratch::new("lock");
    let path = scratch.file();
    StartedCores::save(&path, core("127.0.0.1:8080", None, "a")).unwrap();
    let ours = path.with_file_name("cores.lock");
    assert_eq!(fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o600);
    let held = lock(&path, LONG).unwrap().unwrap();
    assert!(lock(&path, Duration::ZERO).unwrap().is_none());
    // It goes on without.
    let clear = |cores: &mut Vec<StartedCore>| {
        cores.clear();
        true
    };
    change_within(Duration::ZERO, &path, clear).unwrap();
    assert_eq!(token_at(&path, None), None);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| lock(&path, LONG).unwrap().is_some());
        drop(held);
        assert!(waits.join().unwrap());
    });
}

#[test]
fn cores_that_start_at_once_are_all_kept() {
    let scratch = Scratch::new("at-once");
    let path = scratch.file();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let path = &path;
            scope.spawn(move || {
                let store = format!("/{n}.redb");
                let core = core(&format!("127.0.0.1:{n}"), Some(&store), &n.to_string());
                let add = |cores: &mut Vec<StartedCore>| {
                    cores.push(core);
                    true
                };
                change_within(LONG, path, add).unwrap();
            });
        }
    });
    assert_eq!(StartedCores::read(&path).unwrap().cores.len(), 16);
}
