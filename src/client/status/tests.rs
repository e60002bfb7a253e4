use std::error::Error as _;

use tonic::{Code, Status};

use super::{error, is_permanent, meaning};
use crate::error::ErrorKind;

/// The codes that Gofer 0.6.2 has for what it says in words.
const VAGUE: [Code; 3] = [Code::Unknown, Code::Internal, Code::FailedPrecondition];

#[test]
fn what_gofer_says_in_words_has_the_kind_that_the_client_promises() {
    let missing = [
        "pipeline not found",
        "Pipeline not found.",
        "the requested run could not be found",
        "could not find extension \"interval\"",
        "could not find the namespace `ops`",
        "no such secret",
        "secret key `token` does not exist",
        "could not get object: storage: entity not found",
        "extension not found; install it first",
        "could not get run: sql: no rows in result set",
    ];
    let there = [
        "namespace already exists",
        "could not insert namespace: storage: entity already exists",
        "the key exists already",
        "could not insert: UNIQUE constraint failed: namespaces.id",
        "extension interval is already installed",
    ];
    for code in VAGUE {
        for text in missing {
            assert_eq!(error(&Status::new(code, text)).kind(), ErrorKind::NotFound, "{text}");
        }
        for text in there {
            assert_eq!(error(&Status::new(code, text)).kind(), ErrorKind::AlreadyExists, "{text}");
        }
    }
}

#[test]
fn other_words_leave_the_code_as_it_was_sent() {
    for text in [
        "",
        "could not start run",
        "pipeline is not active",
        "the pipeline has no live configuration",
        "could not pull image: manifest not found",
        "could not find a free port for the extension",
        "task image registry not found in configuration file",
        "a file already exists",
        "not found",
        "already exists",
        "an initiator and its name are required",
    ] {
        for code in VAGUE {
            let status = Status::new(code, text);
            assert_eq!(meaning(&status), (code, text.into()), "{text}");
        }
    }
    // A code that says it already is never overruled by words.
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::InvalidArgument, Code::Aborted] {
        assert_eq!(meaning(&Status::new(code, "run not found")).0, code);
    }
}

#[test]
fn a_missing_token_is_told_from_one_without_access() {
    for text in [
        "a token is required",
        "malformed token",
        "missing authorization header",
        "no token provided",
        "invalid token",
        "token not found",
        "token has expired",
    ] {
        let error = error(&Status::permission_denied(text));
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{text}");
    }
    for text in [
        "access denied",
        "the token has no access to namespace `ops`",
        "a management token is required",
        "this token is not permitted to do that",
    ] {
        let error = error(&Status::permission_denied(text));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
    }
}

#[test]
fn the_refusal_of_an_extension_is_unwrapped() {
    let refusal = "parameter `every`: must be at least 1m";
    for (name, kind) in [
        ("InvalidArgument", ErrorKind::InvalidParameter),
        ("NotFound", ErrorKind::NotFound),
        ("FailedPrecondition", ErrorKind::FailedPrecondition),
        ("PermissionDenied", ErrorKind::PermissionDenied),
        ("ResourceExhausted", ErrorKind::ResourceExhausted),
        ("Internal", ErrorKind::Internal),
    ] {
        let inner = format!("rpc error: code = {name} desc = {refusal}");
        for text in [
            inner.clone(),
            format!("could not subscribe: {inner}"),
            format!("could not subscribe; rpc error: code = Unknown desc = from interval: {inner}"),
        ] {
            for code in VAGUE {
                let error = error(&Status::new(code, &text));
                assert_eq!(error.kind(), kind, "{text}");
                assert_eq!(error.to_string(), format!("Gofer: {refusal}"), "{text}");
            }
        }
    }
}

#[test]
fn an_extension_that_cannot_be_reached_is_not_a_gofer_that_cannot() {
    for name in ["Unavailable", "DeadlineExceeded", "Canceled", "Unauthenticated", "Code(99)"] {
        let text = format!("could not subscribe: rpc error: code = {name} desc = no connection");
        let status = Status::failed_precondition(text);
        let expected = (Code::FailedPrecondition, "could not subscribe: no connection".into());
        assert_eq!(meaning(&status), expected, "{name}");
    }
    // Not quite a status, or nothing behind it.
    for text in ["rpc error: code = NotFound", "rpc error: code = NotFound desc = "] {
        assert_eq!(meaning(&Status::internal(text)).0, Code::Internal, "{text}");
    }
}

#[test]
fn what_this_side_made_is_left_as_it_is() {
    let mut status = Status::unknown("rpc error: code = NotFound desc = run not found");
    status.set_source(std::sync::Arc::new(std::io::Error::other("broken pipe")));
    assert!(status.source().is_some());
    assert_eq!(meaning(&status), (Code::Unknown, status.message().into()));
    assert_eq!(error(&status).kind(), ErrorKind::Unavailable);
}

#[test]
fn words_never_decide_whether_a_call_is_repeated() {
    let refused = Status::unknown("pipeline not found");
    assert!(!is_permanent(&refused), "only the code as it was sent counts");
    for text in [
        "rpc error: code = Unavailable desc = draining",
        "could not start: rpc error: code = DeadlineExceeded desc = pipeline not found",
    ] {
        for code in VAGUE {
            let kind = error(&Status::new(code, text)).kind();
            assert!(
                !matches!(kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded),
                "{text}: {kind:?}"
            );
        }
    }
}
