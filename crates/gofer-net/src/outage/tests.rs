use std::io;

use super::*;

fn outages() -> Arc<Outages> {
    Arc::new(Outages::new("gofer.example.com:8080".to_owned(), Clock::derived()))
}

fn answer(outages: &Arc<Outages>, code: Code, message: &str) {
    let mut head = HeaderMap::new();
    Status::new(code, message).add_header(&mut head).unwrap();
    outages.call().answered(&HeaderMap::new(), Some(&head));
}

fn reason(outages: &Outages) -> String {
    outages.current().map(|outage| outage.reason.to_string()).unwrap_or_default()
}

fn refused() -> BoxError {
    let reason =
        io::Error::other(Layer("the handshake failed", Some(Box::new(Layer("expired", None)))));
    NotSent::because(reason).into()
}

#[derive(Debug)]
struct Layer(&'static str, Option<Box<Layer>>);

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Layer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|reason| reason as &(dyn Error + 'static))
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_has_its_whole_reason_and_ends_with_the_first_call_that_works() {
    let outages = outages();
    answer(&outages, Code::Ok, "");
    assert!(!outages.is_current());
    outages.call().unanswered(&refused());
    assert_eq!(reason(&outages), "cannot connect: the handshake failed: expired");
    answer(&outages, Code::NotFound, "no such run");
    assert!(!outages.is_current(), "Gofer answers");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_known_is_an_outage_at_once() {
    let outages = outages();
    answer(&outages, Code::Ok, "");
    answer(&outages, Code::Unauthenticated, "two\nlines");
    assert_eq!(reason(&outages), "the answer is Unauthenticated: two lines");
}

#[tokio::test(start_paused = true)]
async fn what_may_concern_one_call_is_an_outage_if_it_meets_all_of_them() {
    for code in [Code::PermissionDenied, Code::Unavailable, Code::ResourceExhausted] {
        let outages = outages();
        answer(&outages, code, "");
        assert!(outages.is_current(), "no call has worked yet: {code:?}");
        answer(&outages, Code::Ok, "");
        for _ in 0..5 {
            answer(&outages, code, "");
            answer(&outages, code, "");
            assert!(!outages.is_current(), "others work: {code:?}");
            answer(&outages, Code::Ok, "");
        }
        for _ in 0..3 {
            answer(&outages, code, "");
        }
        assert!(outages.is_current(), "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_server_does_not_have_is_no_outage_and_a_server_without_any_is() {
    let outages = outages();
    answer(&outages, Code::Unimplemented, "");
    assert!(!outages.is_current());
    answer(&outages, Code::Unimplemented, "");
    answer(&outages, Code::Unimplemented, "");
    assert!(outages.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_while_others_work_says_nothing() {
    let outages = outages();
    let slow = outages.call();
    answer(&outages, Code::Ok, "");
    slow.unanswered(&refused());
    let slow = outages.call();
    tokio::time::sleep(Duration::from_secs(9)).await;
    answer(&outages, Code::Ok, "");
    drop(slow);
    assert!(!outages.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_has_an_outage() {
    let outages = outages();
    drop(outages.call());
    assert!(!outages.is_current(), "it was given up at once");
    let call = outages.call();
    tokio::time::sleep(Duration::from_secs(9)).await;
    drop(call);
    assert_eq!(reason(&outages), "no answer within 9 s");
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_bounded() {
    let outages = outages();
    answer(&outages, Code::Unauthenticated, &"long ".repeat(1000));
    assert_eq!(reason(&outages).chars().count(), MAX_REASON_CHARS + 1);
}
