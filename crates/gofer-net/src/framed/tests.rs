use super::*;

fn answer(data: &'static [u8], trailers: Option<&'static str>) -> Answer {
    let (head, ()) = Response::new(()).into_parts();
    let status = |status| HeaderMap::from_iter([(STATUS, HeaderValue::from_static(status))]);
    Answer { head, data: Bytes::from_static(data), trailers: trailers.map(status) }
}

const STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

fn refusal(answer: Answer) -> (Code, String) {
    let status = answer.message().unwrap_err();
    if status.code() == Code::Internal {
        assert_eq!(
            crate::effect(&status),
            crate::Effect::Unknown,
            "the call may have had its effect"
        );
    }
    (status.code(), status.message().to_owned())
}

#[test]
fn a_framed_message_is_read_as_it_was() {
    let long = vec![7; 70_000];
    for message in [&b""[..], b"m", &*long] {
        // Whatever was expected.
        for expected in [0, message.len(), 100_000] {
            let framed = Framed::new(expected, |buffer| buffer.put_slice(message));
            assert_eq!(framed.message(), message);
            let answer = Answer { data: framed.0, ..answer(b"", Some("0")) };
            assert_eq!(answer.message().unwrap(), message);
        }
    }
}

#[test]
fn a_status_comes_before_a_message() {
    let message = b"\0\0\0\0\x01m";
    assert_eq!(answer(message, None).message().unwrap(), &b"m"[..]);
    assert_eq!(refusal(answer(message, Some("9"))).0, Code::FailedPrecondition);
    assert_eq!(refusal(answer(b"", Some("14"))).0, Code::Unavailable);
    let mut in_head = answer(message, None);
    in_head.head.headers.insert(STATUS, HeaderValue::from_static("5"));
    assert_eq!(refusal(in_head).0, Code::NotFound);
}

#[test]
fn what_is_no_message_is_refused() {
    for (data, why) in [
        (&b""[..], "the response has no message"),
        (b"\0\0\0\0", "the response has no message"),
        (b"\x01\0\0\0\x01m", "the response is compressed, which was not asked for"),
        (b"\0\0\0\0\x02m", "the response is not one message"),
        (b"\0\0\0\0\x01mm", "the response is not one message"),
        (b"\0\0\0\0\x01m\0\0\0\0\0", "the response is not one message"),
        (b"\0\xff\xff\xff\xffm", "the response is not one message"),
    ] {
        assert_eq!(refusal(answer(data, Some("0"))), (Code::Internal, why.to_owned()));
    }
}
