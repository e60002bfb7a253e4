use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::super::{names, public_identity};
use super::*;
use crate::files::tests::Scratch;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn on(address: &str) -> Vec<String> {
    names(Some(address.parse().unwrap()))
}

fn start(directory: &Scratch, names: &[String]) -> PublicIdentity {
    let identity = load_or_create(&directory.path("gofer.redb"), names).unwrap();
    assert!(server_config(&identity.served.certificate, &identity.served.key).is_ok());
    let saved = std::fs::read_to_string(certificate(directory)).unwrap();
    assert_eq!(saved, identity.trusted, "what clients copy is what is beside the store");
    let now = SystemTime::now();
    assert!(accepts(&identity.trusted, &identity.served.certificate, names, now));
    identity
}

fn certificate(directory: &Scratch) -> PathBuf {
    files::with_suffix(&directory.path("gofer.redb"), CERTIFICATE_SUFFIX)
}

fn key(directory: &Scratch) -> PathBuf {
    files::with_suffix(&directory.path("gofer.redb"), KEY_SUFFIX)
}

/// What the version before made: self-signed, valid for ten years from a day before its start.
/// `at` is the clock then.
fn earlier(directory: &Scratch, names: &[String], at: SystemTime) -> String {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    let epoch = date_time_ymd(1970, 1, 1);
    let at = at.duration_since(UNIX_EPOCH).unwrap();
    (params.not_before, params.not_after) = (epoch + at - DAY, epoch + at + 10 * YEAR);
    let pem = params.self_signed(&pair).unwrap().pem();
    std::fs::write(key(directory), pair.serialize_pem()).unwrap();
    std::fs::write(certificate(directory), &pem).unwrap();
    pem
}

#[test]
fn what_clients_trust_stays_the_same_whatever_the_address() {
    let directory = Scratch::new();
    let first = start(&directory, &on("127.0.0.1:1"));
    let moved = start(&directory, &on("192.0.2.7:1"));
    let back = start(&directory, &on("127.0.0.1:2"));
    assert_eq!(first.trusted, moved.trusted);
    assert_eq!(first.trusted, back.trusted);
    assert_eq!(first.served.key, moved.served.key);
    let only = |name: &str| [name.to_owned()];
    let accepted = |by: &PublicIdentity, name| {
        accepts(&first.trusted, &by.served.certificate, &only(name), SystemTime::now())
    };
    assert!(accepted(&moved, "192.0.2.7") && accepted(&moved, "localhost"));
    assert!(!accepted(&back, "192.0.2.7"), "only the names of this start");
}

#[test]
fn no_clock_makes_it_invalid() {
    let directory = Scratch::new();
    let PublicIdentity { served, trusted } = start(&directory, &names(None));
    for years in [1, 10, 50, 500] {
        let at = UNIX_EPOCH + years * YEAR;
        assert!(accepts(&trusted, &served.certificate, &names(None), at), "{years}");
    }
}

#[test]
fn a_good_one_of_an_earlier_version_is_served_as_it_is() {
    let directory = Scratch::new();
    let trusted = earlier(&directory, &on("192.0.2.7:1"), SystemTime::now());
    for address in ["192.0.2.7:1", "127.0.0.1:1"] {
        let identity = start(&directory, &on(address));
        assert_eq!((&identity.trusted, &identity.served.certificate), (&trusted, &trusted));
    }
}

#[test]
fn clients_that_trust_one_of_an_earlier_version_accept_its_successors() {
    let now = SystemTime::now();
    for (why, made, names) in [
        ("another address", now, on("192.0.2.7:1")),
        ("a clock that was ahead", now + 30 * DAY, on("127.0.0.1:1")),
        ("the end of its validity", now - 10 * YEAR + 30 * DAY, on("127.0.0.1:1")),
        ("long after its validity", now - 12 * YEAR, on("127.0.0.1:1")),
    ] {
        let directory = Scratch::new();
        let trusted = earlier(&directory, &on("127.0.0.1:1"), made);
        let identity = start(&directory, &names);
        assert_ne!(identity.served.certificate, trusted, "{why}");
        assert!(accepts(&trusted, &identity.served.certificate, &names, now), "{why}");
        // From then on it is as for a new core.
        let next = start(&directory, &on("198.51.100.3:1"));
        assert_eq!(next.trusted, identity.trusted, "{why}");
        let names = on("198.51.100.3:1");
        assert!(accepts(&trusted, &next.served.certificate, &names, now), "{why}");
    }
}

#[test]
fn the_key_decides_if_the_certificate_is_lost_or_of_another_key() {
    let directory = Scratch::new();
    let first = start(&directory, &names(None));
    std::fs::remove_file(certificate(&directory)).unwrap();
    let second = start(&directory, &names(None));
    let other = start(&Scratch::new(), &names(None));
    std::fs::write(certificate(&directory), other.trusted).unwrap();
    let third = start(&directory, &names(None));
    for next in [second, third] {
        assert_eq!(next.served.key, first.served.key);
        let served = &next.served.certificate;
        assert!(accepts(&first.trusted, served, &names(None), SystemTime::now()));
    }
}

#[test]
fn without_its_key_clients_have_to_trust_another_one() {
    let directory = Scratch::new();
    let first = start(&directory, &names(None));
    std::fs::remove_file(key(&directory)).unwrap();
    let second = start(&directory, &names(None));
    let served = &second.served.certificate;
    assert!(!accepts(&first.trusted, served, &names(None), SystemTime::now()));
}

#[test]
fn a_file_that_holds_no_key_is_refused_and_left_as_it_is() {
    let directory = Scratch::new();
    start(&directory, &names(None));
    std::fs::write(key(&directory), "secret, but no key").unwrap();
    let refused = load_or_create(&directory.path("gofer.redb"), &names(None)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    let refused = refused.to_string();
    assert!(refused.contains(".crt.key`") && !refused.contains("secret,"), "{refused}");
    assert_eq!(std::fs::read_to_string(key(&directory)).unwrap(), "secret, but no key");
}

#[test]
fn only_the_owner_reads_the_key() {
    let directory = Scratch::new();
    start(&directory, &names(None));
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(key(&directory)), 0o600);
    assert_eq!(mode(certificate(&directory)) & 0o444, 0o444);
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
