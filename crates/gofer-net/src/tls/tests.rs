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

/// As `openssl x509 -req -signkey` makes one if it is given no extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBJDCBywIUPT579FaXjx1SQarwEad7kVc5cgIwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTE1MTk1NloYDzIxMjYxMTA1MTUxOTU2
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARCj4EnuEq0R2+fHYSgpArD0zA/uAbINJXTaOnGJr10gaQyLbDhup4zc85rIDF7
+K88DOrVmn1duVUa99yNobW/MAoGCCqGSM49BAMCA0gAMEUCIQDl33fBC3MaIYs/
r5+qKIgiIFCuhRyjyTFOhCfuVPdJRQIgR9cx+cJjNQzqIp1ErTPQc9ZHWUrqd87t
sWmMlIhsYXY=
-----END CERTIFICATE-----";

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
    assert_eq!(check(&(VERSION_1.to_owned(), good.1.clone()), 2025), Err(PemProblem::Version));
    let served = Served::check(&good.0, &good.1, UNIX_EPOCH + at(2025)).unwrap();
    assert!(served.is_for("localhost") && !served.is_for("127.0.0.1"));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let why = |given, served, name, year| {
        let error = accepts(given, served, name, year).unwrap_err();
        rejection(io::Error::other(error)).to_string()
    };
    let (good, _) = own(&["localhost", "127.0.0.1"], (2020, 2030));
    let (other, _) = own(&["localhost"], (2020, 2030));
    let said = |what| format!("the server's certificate is not accepted: {what}");
    let untrusted = said("it is neither one that this client trusts nor issued by one");
    assert_eq!(why(&good, &other, "localhost", 2025), untrusted);
    let expired = said("it has expired, by the clock of this machine");
    assert_eq!(why(&good, &good, "localhost", 2035), expired);
    let early = said("it is not valid yet, by the clock of this machine");
    assert_eq!(why(&good, &good, "localhost", 2015), early);
    assert_eq!(
        why(&good, &good, "example.com", 2025),
        said("it is not for `example.com`, but for `localhost`, `127.0.0.1`")
    );
    let (nameless, _) = own(&[], (2020, 2030));
    let for_none = said("it is not for `example.com`");
    assert_eq!(why(&nameless, &nameless, "example.com", 2025), for_none);
    // What is no certificate's fault stays as it is.
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    assert_eq!(rejection(reset).kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn what_cannot_be_verified_is_not_trusted() {
    for error in [
        CertificateError::UnknownIssuer,
        CertificateError::BadSignature,
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![6, 8],
            public_key_algorithm_id: vec![6, 7],
        },
    ] {
        let why = rejection(io::Error::other(TlsError::InvalidCertificate(error))).to_string();
        assert!(
            why.ends_with("it is neither one that this client trusts nor issued by one"),
            "{why}"
        );
    }
}
