//! What an extension was installed with.
#![allow(clippy::unwrap_used)]

use tonic::Code;

use super::*;

fn message(grants: &[&str], namespaces: &[&str]) -> ExtensionOptions {
    let texts = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect();
    ExtensionOptions { grants: texts(grants), namespaces: texts(namespaces), ..Default::default() }
}

#[test]
fn a_grant_that_is_not_known_is_refused_with_those_that_are() {
    let refused = Options::new(message(&["read-secrets", "root"], &[])).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for grant in Grant::ALL {
        assert!(refused.message().contains(&format!("`{grant}`")), "{refused}");
    }
    assert!(!refused.message().contains("root"), "{refused}");
    let refused = Options::new(message(&[], &["ops", "("])).unwrap_err();
    assert!(refused.message().contains("`namespaces[1]`"), "{refused}");
}

#[test]
fn each_grant_is_listed_once() {
    let options = Options::new(message(&["everything", "read-secrets", "everything"], &[]));
    assert_eq!(options.unwrap().message.grants, ["read-secrets", "everything"]);
}

#[test]
fn the_patterns_are_of_the_namespaces_that_may_use_it() {
    let all = Options::default();
    let some = Options::new(message(&[], &["ops", "team-.*"])).unwrap();
    for (namespace, may) in [("ops", true), ("team-a", true), ("ops2", false)] {
        all.check_namespace("interval", namespace).unwrap();
        assert_eq!(some.check_namespace("interval", namespace).is_ok(), may, "{namespace}");
    }
}

#[test]
fn an_update_keeps_what_it_neither_resets_nor_sets() {
    let all = ExtensionOptions {
        memory: Some(64 << 20),
        processes: Some(9),
        writable_root: Some(true),
        start_timeout: Some(1000),
        call_timeout: Some(2000),
        stop_timeout: Some(3000),
        ..message(&["read-secrets"], &["ops"])
    };
    let before = Options::new(all.clone()).unwrap();
    let none = ExtensionOptions::default;
    assert_eq!(before.updated(none(), &[]).unwrap().message, all);
    let other = ExtensionOptions {
        memory: Some(65 << 20),
        processes: Some(8),
        writable_root: Some(false),
        start_timeout: Some(1001),
        call_timeout: Some(2001),
        stop_timeout: Some(3001),
        ..message(&["everything"], &["default"])
    };
    assert_eq!(before.updated(other.clone(), &[]).unwrap().message, other);
    let names = RESET.map(|(name, _)| name.to_owned());
    assert_eq!(before.updated(none(), &names).unwrap().message, none());
    assert_eq!(before.updated(other.clone(), &names).unwrap().message, other);
    for (name, reset) in RESET {
        let mut one = all.clone();
        reset(&mut one);
        assert_ne!(one, all, "{name}");
        assert_eq!(before.updated(none(), &[name.to_owned()]).unwrap().message, one, "{name}");
    }
    let refused = before.updated(none(), &["grants".to_owned(), "root".to_owned()]).unwrap_err();
    assert!(refused.message().contains("`stop_timeout`"), "{refused}");
}

#[cfg(feature = "store")]
mod stored {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::essential::EssentialTasks;
    use crate::files::tests::Scratch;
    use gofer_net::Clock;
    use gofer_proto::ExtensionRegistration;

    fn open(path: &Path) -> Arc<Store> {
        Store::open(Clock::system(), path, None, None, &EssentialTasks::default()).unwrap()
    }

    fn registration(name: &str) -> ExtensionRegistration {
        ExtensionRegistration { name: name.to_owned(), ..Default::default() }
    }

    #[tokio::test]
    async fn options_are_restored_and_go_with_their_extension() {
        let directory = Scratch::new();
        let path = directory.path("store.redb");
        let store = open(&path);
        let options = || Options::new(message(&["read-secrets"], &["ops"])).unwrap();
        let limited = ExtensionOptions {
            memory: Some(64 << 20),
            writable_root: Some(true),
            stop_timeout: Some(20_000),
            ..message(&[], &[])
        };
        let limited = || Options::new(limited.clone()).unwrap();
        store.put_registration(registration("limited"), limited()).unwrap();
        for name in ["kept", "changed", "gone"] {
            store.put_registration(registration(name), options()).unwrap();
        }
        let more = Options::new(message(&["everything"], &[])).unwrap();
        store.replace_registration(registration("changed"), more).unwrap();
        store.remove_registration("gone").unwrap();
        store.close().await;
        drop(store);
        let store = open(&path);
        let kept = store.options("kept");
        assert_eq!(kept.message, options().message);
        // A store of the version before limits has no others: their defaults.
        assert_eq!(kept.limits, Options::default().limits);
        assert_eq!(kept.timeouts, Options::default().timeouts);
        let restored = store.options("limited");
        assert_eq!(restored.message, limited().message);
        assert_eq!(restored.limits, limited().limits);
        assert_eq!(restored.timeouts, limited().timeouts);
        assert!(kept.grants.contains(&Grant::ReadSecrets));
        kept.check_namespace("kept", "default").unwrap_err();
        assert_eq!(store.options("changed").message, message(&["everything"], &[]));
        store.put_registration(registration("gone"), Options::default()).unwrap();
        assert!(store.options("gone").grants.is_empty());
        store.close().await;
    }
}
