use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::super::{names, public_identity};
use super::*;
use crate::files::tests::Scratch;

fn on(address: &str) -> Vec<String> {
    names(Some(address.parse().unwrap()))
}

#[test]
fn the_identity_of_the_first_start_is_used_at_the_next() {
    let directory = Scratch::new();
    let first = load_or_create(&directory.path("gofer.redb"), &on("127.0.0.1:1")).unwrap();
    let second = load_or_create(&directory.path("gofer.redb"), &on("127.0.0.1:2")).unwrap();
    assert_eq!((first.certificate, first.key), (second.certificate, second.key));
}

#[test]
fn it_is_replaced_for_another_name() {
    let directory = Scratch::new();
    let first = load_or_create(&directory.path("gofer.redb"), &on("127.0.0.1:1")).unwrap();
    let second = load_or_create(&directory.path("gofer.redb"), &on("192.0.2.7:1")).unwrap();
    assert_ne!(first.certificate, second.certificate);
    let third = load_or_create(&directory.path("gofer.redb"), &on("127.0.0.1:1")).unwrap();
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
    let directory = Scratch::new();
    let first = load_or_create(&directory.path("gofer.redb"), &names(None)).unwrap();
    let other = Identity::for_names(&names(None)).unwrap();
    std::fs::write(files::with_suffix(&directory.path("gofer.redb"), KEY_SUFFIX), other.key)
        .unwrap();
    let second = load_or_create(&directory.path("gofer.redb"), &names(None)).unwrap();
    assert_ne!(first.certificate, second.certificate);
    assert!(server_config(&second.certificate, &second.key).is_ok());
}

#[test]
fn only_the_owner_reads_the_key() {
    let directory = Scratch::new();
    load_or_create(&directory.path("gofer.redb"), &names(None)).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(files::with_suffix(&directory.path("gofer.redb"), KEY_SUFFIX)), 0o600);
    assert_eq!(
        mode(files::with_suffix(&directory.path("gofer.redb"), CERTIFICATE_SUFFIX)) & 0o444,
        0o444
    );
    let files = directory.names().len();
    assert_eq!(files, 2, "nothing is left beside them");
}

#[test]
fn a_given_pair_that_does_not_match_is_refused_without_repeating_it() {
    let (one, other) =
        (Identity::for_names(&names(None)).unwrap(), Identity::for_names(&names(None)).unwrap());
    let given = |key| public_identity(Some((one.certificate.clone(), key)), None, None).map(drop);
    assert!(given(one.key.clone()).is_ok());
    let error = given(other.key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
    assert!(!error.to_string().contains("BEGIN"), "{error}");
}
