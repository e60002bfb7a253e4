use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use super::*;

/// As `openssl req -x509` makes one.
fn own(names: &[&str], years: (i32, i32)) -> (String, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn at(year: u64) -> Duration {
    Duration::from_secs((year - 1970) * 31_557_600)
}

/// Whether a client that was given `given` accepts `served`.
fn accepts(given: &str, served: &str, name: &str, year: u64) -> Result<(), TlsError> {
    let given = certificates(given).unwrap();
    let client = Explicit { signed: verifier(&given).unwrap(), given, is_pinned: false };
    let served = certificates(served).unwrap();
    let (name, at) = (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(at(year)));
    client.verify_server_cert(&served[0], &[], &name, &[], at).map(drop)
}

#[test]
fn ones_own_certificate_that_is_an_authority_too_is_trusted_for_what_it_is() {
    let (own_one, _) = own(&["localhost", "127.0.0.1"], (2020, 2030));
    for name in ["localhost", "127.0.0.1"] {
        accepts(&own_one, &own_one, name, 2025).unwrap();
    }
    accepts(&own_one, &own_one, "example.com", 2025).unwrap_err();
    accepts(&own_one, &own_one, "localhost", 2015).unwrap_err();
    accepts(&own_one, &own_one, "localhost", 2035).unwrap_err();
    // Another one of the same name.
    let (other, _) = own(&["localhost", "127.0.0.1"], (2020, 2030));
    accepts(&own_one, &other, "localhost", 2025).unwrap_err();
}

#[test]
fn what_no_client_would_accept_is_refused_with_the_reason() {
    let check = |(chain, key): &(String, String), year| {
        Served::check(chain, key, UNIX_EPOCH + at(year)).map(drop)
    };
    let good = own(&["localhost"], (2020, 2030));
    check(&good, 2025).unwrap();
    assert_eq!(check(&good, 2035), Err(PemProblem::Expired));
    assert_eq!(check(&good, 2015), Err(PemProblem::NotYetValid));
    assert_eq!(check(&own(&[], (2020, 2030)), 2025), Err(PemProblem::NoName));
    let other = own(&["localhost"], (2020, 2030));
    assert_eq!(check(&(good.0.clone(), other.1), 2025), Err(PemProblem::Pair));
    let served = Served::check(&good.0, &good.1, UNIX_EPOCH + at(2025)).unwrap();
    assert!(served.is_for("localhost") && !served.is_for("127.0.0.1"));
}
