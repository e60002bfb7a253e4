use super::*;
use crate::error::{Error, ErrorKind};
use crate::extension::ExternalEvent;

const NAME: &str = "X-Hub-Signature-256";

/// Of GitHub's documentation.
const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB_BODY: &str = "Hello, World!";
const GITHUB: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

fn event(headers: &str, body: &str) -> ExternalEvent {
    ExternalEvent::new(format!("POST /external/x HTTP/1.1\r\n{headers}\r\n{body}")).unwrap()
}

fn signed(value: &str) -> ExternalEvent {
    event(&format!("{NAME}: {value}\r\n"), GITHUB_BODY)
}

fn verify(event: &ExternalEvent, secret: &str) -> Result<(), Error> {
    event.verify_hmac_sha256(NAME, &secret.into())
}

/// Why it was refused, which is for the log. The sender learns nothing.
fn refusal(event: &ExternalEvent, secret: &str) -> String {
    let error = verify(event, secret).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "the signature is missing or wrong");
    let logged = format!("{error:?}");
    for value in [GITHUB, GITHUB_SECRET, GITHUB_BODY, "hunter2"] {
        assert!(!logged.contains(value), "{logged}");
    }
    let why = error.source().unwrap().to_string();
    assert_eq!(logged, format!("PermissionDenied: {error}: {why}"));
    why
}

#[test]
fn the_signature_of_githubs_documentation_is_verified_however_it_is_written() {
    let upper = GITHUB.to_uppercase();
    for value in [GITHUB.to_owned(), format!("sha256={GITHUB}"), format!("sha256={upper}"), upper] {
        verify(&signed(&value), GITHUB_SECRET).unwrap();
    }
    let lower = event(&format!("x-hub-signature-256:{GITHUB}\r\n"), GITHUB_BODY);
    verify(&lower, GITHUB_SECRET).unwrap();
}

#[test]
fn the_signatures_of_rfc_4231_are_verified() {
    let counted: Vec<u8> = (1..=25).collect();
    for (key, body, signature) in [
        (
            &[0x0b; 20][..],
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            &[0xaa; 20],
            &[0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (&counted, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            &[0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size \
              data. The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        let bytes = decode(signature.as_bytes()).unwrap();
        assert!(is_signature(key, body, &bytes), "{signature}");
        assert!(!is_signature(key, &[body, b" "].concat(), &bytes), "{signature}");
        assert!(!is_signature(&[key, b" "].concat(), body, &bytes), "{signature}");
        // Those whose key is text, all the way.
        if let Ok(secret) = std::str::from_utf8(key) {
            let head = format!("POST / HTTP/1.1\r\nS: {signature}\r\n\r\n");
            let event = ExternalEvent::new([head.as_bytes(), body].concat()).unwrap();
            event.verify_hmac_sha256("s", &secret.into()).unwrap();
        }
    }
}

#[test]
fn what_is_signed_is_the_body_without_its_framing() {
    let headers = format!("{NAME}: {GITHUB}\r\nTransfer-Encoding: chunked\r\n");
    let chunked = event(&headers, "5\r\nHello\r\n8;x=1\r\n, World!\r\n0\r\n\r\n");
    verify(&chunked, GITHUB_SECRET).unwrap();
    let headers = format!("{NAME}: {GITHUB}\r\nContent-Length: 13\r\n");
    verify(&event(&headers, GITHUB_BODY), GITHUB_SECRET).unwrap();
}

#[test]
fn another_body_secret_or_signature_is_refused_for_not_matching() {
    let does_not_match = format!(
        "the header `{NAME}` does not match the body: is the secret the same at the sender?"
    );
    let header = format!("{NAME}: sha256={GITHUB}\r\n");
    for body in ["", "Hello, World", "Hello, World!\n", "hello, World!", "hunter2"] {
        assert_eq!(refusal(&event(&header, body), GITHUB_SECRET), does_not_match, "{body}");
    }
    for secret in ["x", "it's a Secret to Everybody", "It's a Secret to Everybody "] {
        assert_eq!(refusal(&signed(GITHUB), secret), does_not_match, "{secret}");
    }
    for at in 0..GITHUB.len() {
        let mut digits = GITHUB.to_owned().into_bytes();
        digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
        let event = signed(std::str::from_utf8(&digits).unwrap());
        assert_eq!(refusal(&event, GITHUB_SECRET), does_not_match, "{at}");
    }
}

#[test]
fn a_header_that_is_no_signature_is_refused_as_such() {
    let no_signature =
        format!("the header `{NAME}` is not 64 hexadecimal digits, with or without `sha256=`");
    let cut = &GITHUB[1..];
    for value in [
        String::new(),
        "sha256=".to_owned(),
        "hunter2".to_owned(),
        cut.to_owned(),
        format!("{GITHUB}0"),
        format!("{GITHUB}00"),
        format!("g{cut}"),
        format!("+{cut}"),
        format!("sha1={GITHUB}"),
        format!("SHA256={GITHUB}"),
        format!("sha256= {GITHUB}"),
        format!("sha256=sha256={GITHUB}"),
        format!("{GITHUB}, {GITHUB}"),
        format!("0x{}", &GITHUB[2..]),
        format!("é{}", &GITHUB[2..]),
    ] {
        assert_eq!(refusal(&signed(&value), GITHUB_SECRET), no_signature, "{value}");
    }
}

#[test]
fn a_header_that_is_missing_or_given_twice_is_refused_as_such() {
    let missing = format!("there is no header `{NAME}`");
    let other = event(&format!("X-Hub-Signature: {GITHUB}\r\n"), GITHUB_BODY);
    assert_eq!(refusal(&other, GITHUB_SECRET), missing);
    assert_eq!(refusal(&event("", GITHUB_BODY), GITHUB_SECRET), missing);
    let line = format!("{NAME}: {GITHUB}\r\n");
    let wrong = format!("{NAME}: {}\r\n", "0".repeat(64));
    for lines in [[&line, &line], [&line, &wrong], [&wrong, &line]] {
        let twice = event(&lines.map(String::as_str).concat(), GITHUB_BODY);
        assert_eq!(refusal(&twice, GITHUB_SECRET), format!("there are several headers `{NAME}`"));
    }
    let error = signed(GITHUB).verify_hmac_sha256("no name\n", &GITHUB_SECRET.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn an_empty_secret_verifies_nothing() {
    // HMAC-SHA256 of nothing with the empty key.
    let signature = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
    let bytes = decode(signature.as_bytes()).unwrap();
    assert!(is_signature(b"", b"", &bytes));
    let event = event(&format!("{NAME}: {signature}\r\n"), "");
    assert!(refusal(&event, "").contains("the secret is empty"));
}
