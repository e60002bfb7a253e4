use super::*;

#[test]
fn the_status_of_an_extension_becomes_an_http_status() {
    let of = |code, bytes| Answer::of(&Status::new(code, "hunter2"), bytes).status().as_u16();
    assert_eq!(of(Code::Unavailable, 1), 503);
    assert_eq!(of(Code::DeadlineExceeded, 1), 504);
    assert_eq!(of(Code::OutOfRange, 1), 413);
    assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES + 1), 413);
    assert_eq!(of(Code::ResourceExhausted, COMMON_MESSAGE_BYTES), 500);
    assert_eq!(of(Code::PermissionDenied, 1), 401);
    assert_eq!(of(Code::InvalidArgument, 1), 400);
    assert_eq!(of(Code::NotFound, 1), 404);
    assert_eq!(of(Code::Unimplemented, 1), 501);
    // The last is what it says of a wrong token of the core's.
    for code in [Code::Internal, Code::FailedPrecondition, Code::Unauthenticated] {
        assert_eq!(of(code, 1), 500, "{code:?}");
    }
}
