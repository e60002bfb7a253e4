use super::*;
use crate::extension::tests::Random;

fn parse(payload: &[u8]) -> ExternalEvent {
    ExternalEvent::new(payload.to_vec()).unwrap()
}

/// The sentence with which a payload is refused.
fn refusal(payload: &[u8]) -> String {
    let error = ExternalEvent::new(payload.to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    error.to_string()
}

fn chunked(body: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

const PLAIN: &[u8] = b"POST /external/x?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
    Empty: \r\nX-Multi: 1\r\nX-Multi: 2\r\nX-Latin: caf\xe9\r\n\r\nhello";

const CHUNKED: &[u8] =
    b"POST /external/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
    5;note=\"1\"\r\nhello\r\n00A \r\n, chunked \r\n5\r\nworld\r\n0\r\nX-Trailer: t\r\n\r\n";

/// A payload, and the method, path, query and body in it.
type Dump = (&'static [u8], &'static str, &'static str, Option<&'static str>, &'static [u8]);

/// Written by Go's `httputil.DumpRequest` for requests to a real Go server.
const DUMPED: &[Dump] = &[
    (
        b"POST /external/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
          b\r\nhello world\r\n0\r\n\r\n",
        "POST",
        "/external/x",
        None,
        b"hello world",
    ),
    (
        b"POST /external/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST",
        "/external/x",
        None,
        b"",
    ),
    (
        b"POST /external/x?q=1 HTTP/2.0\r\nHost: 127.0.0.1:3000\r\nAccept-Encoding: gzip\r\n\
          X-A: b\r\n\r\nno length",
        "POST",
        "/external/x",
        Some("q=1"),
        b"no length",
    ),
    (
        b"POST http://other/external/x?q HTTP/1.1\r\nContent-Length: 1\r\n\r\nz",
        "POST",
        "/external/x",
        Some("q"),
        b"z",
    ),
    (b"POST http://other HTTP/1.1\r\n\r\n", "POST", "/", None, b""),
    (
        b"POST //external//x HTTP/1.0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "POST",
        "//external//x",
        None,
        b"",
    ),
    (
        "GET /external/\u{e9}?\"{}#f HTTP/1.1\r\nHost: h\r\n\r\n".as_bytes(),
        "GET",
        "/external/\u{e9}",
        Some("\"{}#f"),
        b"",
    ),
    (b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "HEAD", "/", None, b"abc"),
];

#[test]
fn what_go_dumps_is_read() {
    for (payload, method, path, query, body) in DUMPED {
        let event = parse(payload);
        assert_eq!(event.method(), *method);
        assert_eq!(event.path(), *path);
        assert_eq!(event.query(), *query);
        assert_eq!(event.body(), *body);
        assert_eq!(event.payload(), *payload);
    }
}

#[test]
fn headers_are_found_without_regard_to_case_and_keep_their_order() {
    let event = parse(PLAIN);
    assert_eq!(event.header("HOST"), Some("h"));
    assert_eq!(event.header("x-multi"), Some("1"));
    assert_eq!(event.headers().get_all("X-Multi").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(event.header("empty"), Some(""));
    assert_eq!(event.header("missing"), None);
    assert_eq!(event.header("not a name\n"), None);
    assert_eq!(event.header("x-latin"), None);
    assert_eq!(event.headers()["x-latin"], b"caf\xe9"[..]);
}

#[test]
fn the_body_is_a_slice_of_the_payload() {
    let event = parse(PLAIN);
    let payload = event.payload().as_ptr_range();
    assert!(payload.contains(&event.body().as_ptr()));
    assert_eq!(event.body(), "hello");
    assert_eq!(event.clone().body().as_ptr(), event.body().as_ptr());
}

#[test]
fn a_body_may_hold_any_bytes() {
    let body: Vec<u8> = (0..=255).chain(*b"\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\n\r\n").collect();
    let plain = [b"POST / HTTP/1.1\r\n\r\n", &body[..]].concat();
    assert_eq!(parse(&plain).body(), &body);
    let mut coded = chunked(&format!("{:x}\r\n", body.len()));
    coded.extend([&body[..], b"\r\n0\r\n\r\n"].concat());
    assert_eq!(parse(&coded).body(), &body);
}

#[test]
fn chunks_are_put_together_without_extensions_and_trailers() {
    let event = parse(CHUNKED);
    assert_eq!(event.body(), "hello, chunked world");
    assert_eq!(event.header("x-trailer"), None);
    assert_eq!(event.payload(), CHUNKED);
}

#[test]
fn a_request_cut_off_anywhere_is_refused() {
    for whole in [PLAIN, CHUNKED] {
        for length in 0..whole.len() {
            let message = refusal(&whole[..length]);
            assert!(
                message.contains("is cut off") || message.contains("not an HTTP request"),
                "{length}: {message}"
            );
        }
        parse(whole);
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for whole in [PLAIN, CHUNKED] {
        for more in ["\n", "\r\n", "0", "POST / HTTP/1.1\r\n\r\n"] {
            let message = refusal(&[whole, more.as_bytes()].concat());
            assert!(
                message.contains("must not be longer") || message.contains("must end after"),
                "{message}"
            );
        }
    }
}

#[test]
fn payloads_that_are_not_requests_are_refused() {
    for payload in [
        "",
        "\r\n",
        "hello",
        "{\"event\":\"push\"}\n",
        "POST\r\n\r\n",
        "POST /x\r\n\r\n",
        "POST /x HTTP/1.1 x\r\n\r\n",
        "POST  /x HTTP/1.1\r\n\r\n",
        " POST /x HTTP/1.1\r\n\r\n",
        "POST /a path HTTP/1.1\r\n\r\n",
        "PO(ST /x HTTP/1.1\r\n\r\n",
        "POST /x HTTP/1\r\n\r\n",
        "POST /x HTTP/1.10\r\n\r\n",
        "POST /x http/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "\r\nPOST /x HTTP/1.1\r\n\r\n",
    ] {
        let message = refusal(payload.as_bytes());
        assert!(message.contains("not an HTTP request"), "{payload:?}: {message}");
    }
}

#[test]
fn targets_that_are_not_paths_are_refused() {
    for target in [
        &b""[..],
        b"*",
        b"external/x",
        b"host:443",
        b"ftp://host/x",
        b"http:///x",
        b"://host/x",
        b"/\xff",
        b"/a\tb",
        b"/a\0b",
        b"/a\rb",
    ] {
        let message = refusal(&[b"POST ", target, b" HTTP/1.1\r\n\r\n"].concat());
        assert!(message.contains("must be a path"), "{target:?}: {message}");
    }
    assert_eq!(parse(b"POST HTTPS://host?q/ HTTP/1.1\r\n\r\n").path(), "/");
    assert_eq!(parse(b"POST /a?b?c HTTP/1.1\r\n\r\n").query(), Some("b?c"));
    assert_eq!(parse(b"POST /a? HTTP/1.1\r\n\r\n").query(), Some(""));
}

#[test]
fn malformed_headers_are_refused() {
    for header in ["no colon", "a name: v", ": v", " folded: v", "a: b\r\n c", "a: \0", "a : b"] {
        let message = refusal(format!("POST / HTTP/1.1\r\n{header}\r\n\r\n").as_bytes());
        assert!(message.contains("malformed header"), "{header:?}: {message}");
    }
}

#[test]
fn at_most_256_headers_are_read() {
    let with = |count| format!("POST / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count)).into_bytes();
    assert_eq!(parse(&with(256)).headers().len(), 256);
    assert!(refusal(&with(257)).contains("at most 256"));
    assert!(refusal(&with(100_000)).contains("at most 256"));
    let trailers = |count| chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(count)));
    parse(&trailers(256));
    refusal(&trailers(257));
}

#[test]
fn the_length_of_the_body_must_be_clear() {
    for (headers, complaint) in [
        ("Content-Length: 4", "longer than"),
        ("Content-Length: 6", "shorter than"),
        ("Content-Length: 18446744073709551616", "must be a number"),
        ("Content-Length: +5", "must be a number"),
        ("Content-Length: -5", "must be a number"),
        ("Content-Length: 0x5", "must be a number"),
        ("Content-Length:", "must be a number"),
        ("Content-Length: 5, 5", "must be a number"),
        ("Content-Length: 5\r\nContent-Length: 6", "several different"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "not both"),
        ("Transfer-Encoding: gzip, chunked", "must be `chunked`"),
        ("Transfer-Encoding: identity", "must be `chunked`"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "must be `chunked`"),
    ] {
        let message = refusal(format!("POST / HTTP/1.1\r\n{headers}\r\n\r\nhello").as_bytes());
        assert!(message.contains(complaint), "{headers}: {message}");
    }
    let twice = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(parse(twice).body(), "hello");
}

#[test]
fn malformed_chunks_are_refused() {
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 2\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "10000000000000000\r\na\r\n0\r\n\r\n",
        "0\r\nno trailer\r\n\r\n",
    ] {
        let message = refusal(&chunked(body));
        assert!(message.contains("must be chunked"), "{body:?}: {message}");
    }
    assert!(refusal(&chunked("ffffffffffffffff\r\na\r\n0\r\n\r\n")).contains("cut off"));
    assert!(refusal(&chunked("hello")).contains("cut off"));
}

#[test]
fn bare_line_feeds_end_lines_of_the_head() {
    let event = parse(b"POST /x HTTP/1.1\nHost: h\n\nbody\n");
    assert_eq!((event.header("host"), event.body().as_ref()), (Some("h"), &b"body\n"[..]));
}

#[test]
fn printing_an_event_shows_no_secret() {
    let event =
        parse(b"POST /hook?token=hunter2 HTTP/1.1\r\nAuthorization: hunter2\r\n\r\nhunter2");
    let text = format!("{event:?} {:#?} {:?}", event, event.headers());
    assert!(text.contains("POST") && text.contains("/hook") && text.contains('7'), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn refusals_contain_no_part_of_the_payload() {
    for payload in [
        "hunter2",
        "POST hunter2 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nhunter2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: hunter2\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: hunter2\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n",
    ] {
        assert!(!refusal(payload.as_bytes()).contains("hunter2"));
    }
}

fn byte(random: &mut Random) -> u8 {
    const SYNTAX_BYTES: &[u8] = b"\r\n: ;05Af/?\0\xff";
    match random.below(2) {
        0 => SYNTAX_BYTES[random.below(SYNTAX_BYTES.len())],
        _ => random.next().to_le_bytes()[0],
    }
}

#[test]
fn random_and_damaged_payloads_never_panic() {
    let mut random = Random(3);
    for _ in 0..20_000 {
        let length = random.below(80);
        let noise: Vec<u8> = (0..length).map(|_| byte(&mut random)).collect();
        let _ = ExternalEvent::new(noise.clone());
        let _ = ExternalEvent::new([b"POST / HTTP/1.1\r\n", &noise[..]].concat());
        let _ = ExternalEvent::new([&chunked("")[..], &noise].concat());

        let mut damaged = if random.below(2) == 0 { PLAIN } else { CHUNKED }.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(damaged.len());
            match random.below(3) {
                0 => damaged[at] = byte(&mut random),
                1 => damaged.insert(at, byte(&mut random)),
                _ => _ = damaged.remove(at),
            }
        }
        if let Ok(event) = ExternalEvent::new(damaged) {
            assert!(event.path().starts_with('/') && event.body().len() < event.payload().len());
        }
    }
}

#[test]
fn hostile_payloads_take_time_linear_in_their_length() {
    fn time(payload: &Bytes) -> std::time::Duration {
        let start = std::time::Instant::now();
        let _ = std::hint::black_box(ExternalEvent::new(payload.clone()));
        start.elapsed()
    }
    const SHORT: usize = 1 << 11;
    const CODED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, piece, tail) in [
        ("", "A", ""),
        ("", " ", "\n"),
        ("POST /", "?", " HTTP/1.1\r\n\r\n"),
        ("POST http://", "://", " HTTP/1.1\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "A: b\r\n", "\r\n"),
        ("POST / HTTP/1.1\r\nA: ", "b", "\r\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: ", "0", "\r\n\r\n"),
        (CODED, "1\r\na\r\n", "0\r\n\r\n"),
        (CODED, "1;\r\na\r\n", ""),
        (CODED, "0", "\r\n\r\n"),
        (CODED, ";", ""),
    ] {
        let payload = |length: usize| {
            Bytes::from(format!("{head}{}{tail}", piece.repeat(length / piece.len())))
        };
        let (short, long) = (payload(SHORT), payload(32 * SHORT));
        let least = (0..10).map(|_| time(&short)).min().unwrap();
        // 32 times the length: linear is 32 times the time, quadratic 1024 times. Less than a
        // microsecond, for a payload that is refused at its start, is too short to be compared.
        let limit = 200 * least.max(std::time::Duration::from_micros(1));
        // Other load on the machine only makes a measurement longer, so one is enough.
        assert!((0..100).any(|_| time(&long) < limit), "{head:?}{piece:?}… takes over {limit:?}");
    }
}
