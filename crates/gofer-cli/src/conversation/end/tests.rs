use super::*;

#[test]
fn the_end_of_a_conversation_on_a_full_gofer_is_no_failure() {
    for text in [
        "EOF",
        "could not receive message from extension; EOF",
        "could not receive message from extension: EOF",
        "could not send message; context canceled",
        "could not receive: rpc error: code = Canceled desc = context canceled",
        "client disconnected",
        "could not receive message from client; Client disconnected.",
    ] {
        for code in [Code::Internal, Code::Unknown, Code::Cancelled] {
            assert!(is_normal(&Status::new(code, text)), "{text}");
        }
    }
}

#[test]
fn what_breaks_a_conversation_is_a_failure() {
    for text in [
        "",
        "unexpected EOF",
        "could not receive message; unexpected EOF",
        "the EOF was not reached",
        "EOF; the extension crashed",
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "error reading from server: EOF",
        "could not start extension: rpc error: code = Unavailable desc = connection refused",
        "the extension failed; see its log",
    ] {
        assert!(!is_normal(&Status::internal(text)), "{text}");
    }
    for code in [Code::Unavailable, Code::InvalidArgument, Code::PermissionDenied] {
        assert!(!is_normal(&Status::new(code, "EOF")), "{code:?}");
    }
    let mut broken = Status::unknown("EOF");
    broken.set_source(std::sync::Arc::new(std::io::Error::other("broken pipe")));
    assert!(!is_normal(&broken));
}
