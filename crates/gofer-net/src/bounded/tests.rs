use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tonic::{Code, Status};

use super::*;

/// What arrives of a status.
fn arrives(status: Status) -> Status {
    let response = bounded(status.into_http::<tonic::body::Body>());
    let bytes: usize =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < 8 * 1024, "{bytes}");
    Status::from_header_map(response.headers()).unwrap()
}

#[test]
fn a_message_is_cut_at_a_character_in_bytes_as_it_travels() {
    for text in ["a", "é", "€", "🦀", "%", "`x` ", "a€", "ab€", "abc€", "é🦀a"] {
        for length in [0, 1, 2, 20_000] {
            let message = format!("{}{}", "-".repeat(length % 7), text.repeat(length));
            let arrived = arrives(Status::not_found(message.clone()));
            assert_eq!(arrived.code(), Code::NotFound, "{text}");
            if length < 20_000 {
                assert_eq!(arrived.message(), message);
                continue;
            }
            let kept = arrived.message().strip_suffix('…').unwrap();
            assert!(message.starts_with(kept), "{text}: {kept}");
            // As much as fits: at most 12 bytes for a character.
            let encoded = arrived.into_http::<tonic::body::Body>().headers()["grpc-message"].len();
            assert!((MAX_MESSAGE_BYTES - 12..=MAX_MESSAGE_BYTES).contains(&encoded), "{encoded}");
        }
    }
}

#[test]
fn what_fits_is_left_as_it_is() {
    let message = "é".repeat(MAX_MESSAGE_BYTES / 6);
    let mut status = Status::with_details(Code::Aborted, message.clone(), Bytes::from("details"));
    status.metadata_mut().insert("retry-after", "5".parse().unwrap());
    let arrived = arrives(status);
    assert_eq!((arrived.message(), arrived.details()), (&*message, &b"details"[..]));
    assert_eq!(arrived.metadata().get("retry-after").unwrap(), "5");
}

#[test]
fn details_that_are_too_long_are_dropped_and_the_message_is_kept() {
    let details = Bytes::from(vec![7; 100_000]);
    let arrived = arrives(Status::with_details(Code::Aborted, "why", details));
    assert_eq!((arrived.code(), arrived.message()), (Code::Aborted, "why"));
    assert!(arrived.details().is_empty());

    let mut status = Status::aborted("why");
    for _ in 0..1000 {
        status.metadata_mut().append("trace", "again and again".parse().unwrap());
    }
    assert_eq!(arrives(status).message(), "why");
}

/// Of a peer that does not encode what it sends.
#[test]
fn any_bytes_are_cut() {
    for byte in [b'%', b'8', 0x80, 0xbf, 0xff] {
        let message = HeaderValue::from_bytes(&vec![byte; 100_000]).unwrap();
        let mut headers: HeaderMap =
            [(STATUS, "5".parse().unwrap()), (MESSAGE, message)].into_iter().collect();
        bound(&mut headers);
        assert!(headers[MESSAGE].len() <= MAX_MESSAGE_BYTES);
    }
}

#[tokio::test]
async fn trailers_are_bounded_too() {
    let mut trailers = HeaderMap::new();
    Status::not_found("a".repeat(100_000)).add_header(&mut trailers).unwrap();
    let body = Full::new(Bytes::from("data")).with_trailers(async { Some(Ok(trailers)) });
    let collected = bounded(Response::new(Box::pin(body))).into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()[MESSAGE].len(), MAX_MESSAGE_BYTES);
}

#[test]
fn a_response_that_is_no_status_is_left_as_it_is() {
    let mut response = Response::new(());
    let long: HeaderValue = "a".repeat(100_000).parse().unwrap();
    response.headers_mut().insert(MESSAGE, long.clone());
    assert_eq!(bounded(response).headers()[MESSAGE], long);
}
