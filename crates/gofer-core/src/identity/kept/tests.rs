use std::os::unix::fs::PermissionsExt as _;

use super::super::{names, outside};
use super::*;

/// A directory that is removed after the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("gofer-identity-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("gofer.redb")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on(address: &str) -> Vec<String> {
    names(Some(address.parse().unwrap()))
}

#[test]
fn the_identity_of_the_first_start_is_used_at_the_next() {
    let directory = Directory::new();
    let first = kept(&directory.store(), &on("127.0.0.1:1")).unwrap();
    let second = kept(&directory.store(), &on("127.0.0.1:2")).unwrap();
    assert_eq!((first.certificate, first.key), (second.certificate, second.key));
}

#[test]
fn it_is_replaced_for_another_name() {
    let directory = Directory::new();
    let first = kept(&directory.store(), &on("127.0.0.1:1")).unwrap();
    let second = kept(&directory.store(), &on("192.0.2.7:1")).unwrap();
    assert_ne!(first.certificate, second.certificate);
    let third = kept(&directory.store(), &on("127.0.0.1:1")).unwrap();
    assert_eq!(second.certificate, third.certificate, "more names do no harm");
}

#[test]
fn one_that_expires_soon_is_no_longer_good() {
    let identity = Identity::for_names(&names(None)).unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    assert!(is_good(&identity.certificate, &names(None), SystemTime::now() + year));
    assert!(!is_good(&identity.certificate, &names(None), SystemTime::now() + 20 * year));
    assert!(!is_good(&identity.certificate, &names(None), SystemTime::now() - year));
}

#[test]
fn a_pair_that_does_not_match_is_replaced() {
    let directory = Directory::new();
    let first = kept(&directory.store(), &names(None)).unwrap();
    let other = Identity::for_names(&names(None)).unwrap();
    std::fs::write(key_path(&directory.store()), other.key).unwrap();
    let second = kept(&directory.store(), &names(None)).unwrap();
    assert_ne!(first.certificate, second.certificate);
    assert!(server_config(&second.certificate, &second.key).is_ok());
}

#[test]
fn only_the_owner_reads_the_key() {
    let directory = Directory::new();
    kept(&directory.store(), &names(None)).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(key_path(&directory.store())), 0o600);
    assert_eq!(mode(certificate_path(&directory.store())) & 0o444, 0o444);
    let files = std::fs::read_dir(&directory.0).unwrap().count();
    assert_eq!(files, 2, "nothing is left beside them");
}

#[test]
fn a_given_pair_that_does_not_match_is_refused_without_repeating_it() {
    let (one, other) =
        (Identity::for_names(&names(None)).unwrap(), Identity::for_names(&names(None)).unwrap());
    let given = |key| outside(Some((one.certificate.clone(), key)), None, None).map(drop);
    assert!(given(one.key.clone()).is_ok());
    let error = given(other.key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
    assert!(!error.to_string().contains("BEGIN"), "{error}");
}
