use super::*;

#[test]
fn the_status_of_an_extension_becomes_an_http_status() {
    let of = |code, bytes| Answer::of(&Status::new(code, "hunter2"), bytes).status().as_u16();
    assert_eq!(of(Code::Unavailable, 1), 503);
    assert_eq!(of(Code::DeadlineExceeded, 1), 504);
    assert_eq!(of(Code::OutOfRange, 1), 413);
    assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES + 1), 413);
    assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES), 500);
    for code in [Code::NotFound, Code::InvalidArgument, Code::Unimplemented, Code::Internal] {
        assert_eq!(of(code, 1), 500, "{code:?}");
    }
}
