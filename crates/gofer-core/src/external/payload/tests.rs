use super::*;
use http::Request;

fn payload(request: http::request::Builder, body: &[&[u8]]) -> Bytes {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut payload = Payload::new(&parts).unwrap();
    let most = body.iter().map(|piece| piece.len()).sum();
    for piece in body {
        payload.push(piece, most);
    }
    assert!(payload.buffer.capacity() <= payload.bytes_with(most));
    payload.finish()
}

#[test]
fn it_is_what_was_sent_with_a_correct_length() {
    let request = Request::post("/external/a%20b?x=%2F&x=")
        .header("host", "example.com")
        .header("x-github-event", "push")
        .header("transfer-encoding", "chunked")
        .header("trailer", "x-sum")
        .header("x-b", "1")
        .header("x-b", &b"\xc3\xbc\t2"[..]);
    assert_eq!(
        payload(request, &[b"{\"a\":", b"\x00\xff}"]),
        &b"POST /external/a%20b?x=%2F&x= HTTP/1.1\r\nHost: example.com\r\n\
           X-Github-Event: push\r\nX-B: 1\r\nX-B: \xc3\xbc\t2\r\n\
           Content-Length: 8\r\n\r\n{\"a\":\x00\xff}"[..]
    );
}

#[test]
fn lengths_of_any_number_of_digits_fit_before_the_body() {
    for length in [0, 9, 10, 99_999, 100_000] {
        let body = vec![b'x'; length];
        let raw = payload(Request::post("/external/a"), &[&body]);
        let event = ExternalEvent::new(raw).unwrap();
        assert_eq!(event.header("content-length"), Some(&*length.to_string()));
        assert_eq!(event.body().len(), length);
    }
}

#[test]
fn what_the_extension_cannot_parse_is_rejected() {
    let (parts, ()) = Request::post("*").body(()).unwrap().into_parts();
    assert!(Payload::new(&parts).is_err());
    let mut many = Request::post("/external/a");
    for n in 0..256 {
        many = many.header(format!("x-{n}"), "y");
    }
    let (parts, ()) = many.body(()).unwrap().into_parts();
    assert!(Payload::new(&parts).is_err());
}

#[test]
fn an_absolute_target_becomes_its_path() {
    let raw = payload(Request::post("http://example.com/external/a?b"), &[]);
    assert!(raw.starts_with(b"POST /external/a?b HTTP/1.1\r\n"));
}
