use super::*;

#[test]
fn hosts_with_and_without_port_are_parsed() {
    for (text, host, port) in [
        ("localhost:8080", "localhost", 8080),
        ("gofer.example.com", "gofer.example.com", 443),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("10.0.0.1", "10.0.0.1", 443),
        ("[::1]:8080", "::1", 8080),
        ("[fe80::1]", "fe80::1", 443),
        ("::1", "::1", 443),
    ] {
        let address: GoferAddress = text.parse().unwrap();
        assert_eq!((address.host(), address.port()), (host, port), "{text}");
    }
}

#[test]
fn invalid_addresses_are_refused_with_the_expected_form() {
    for (text, word) in [
        ("https://gofer:8080", "scheme"),
        ("gofer/api", "path"),
        ("gofer:http", "port"),
        ("gofer:0", "port"),
        ("gofer:65536", "port"),
        ("[::1", "bracket"),
        ("[::1]8080", ":port"),
        ("", "host"),
        (":8080", "host"),
        ("two words", "host"),
        ("[not-an-ip]:1", "host"),
    ] {
        let error = text.parse::<GoferAddress>().unwrap_err();
        assert!(error.to_string().contains(word), "{text:?}: {error}");
    }
}
