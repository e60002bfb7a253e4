use super::*;

const HOST: &str = "host (text): The host of the chat.";
const TOKEN: &str = "token (text): The token for the host.";

/// Asks both questions, as a conversation does, and answers what is not known.
fn converse(interview: &mut Interview, answer: &str) -> Vec<(String, String)> {
    interview.begin();
    [("host", HOST), ("token", TOKEN)]
        .into_iter()
        .map(|(key, question)| {
            let known = interview.asked(question).unwrap();
            let given = known.unwrap_or_else(|| {
                interview.answered(question.to_owned(), answer);
                answer.to_owned()
            });
            (key.to_owned(), given)
        })
        .collect()
}

fn settings(host: &str, token: &str) -> HashMap<String, String> {
    let pairs = [("host", host), ("token", token)];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn only_what_was_refused_is_asked_again() {
    for (refusal, first, second) in [
        ("configuration `token`: has expired", settings("1", "1"), settings("1", "2")),
        ("it does not work", settings("1", "1"), settings("2", "2")),
        ("configuration `other`: is required", settings("1", "1"), settings("2", "2")),
    ] {
        let none = HashMap::new();
        let (rounds, calls) = (std::cell::Cell::new(0), std::cell::RefCell::new(Vec::new()));
        let outcome = ask_until_accepted(
            true,
            &none,
            async |interview| {
                rounds.set(rounds.get() + 1);
                Ok(converse(interview, &rounds.get().to_string()))
            },
            async |settings| {
                calls.borrow_mut().push(settings);
                let is_first = calls.borrow().len() == 1;
                Ok(if is_first { Err(Status::invalid_argument(refusal)) } else { Ok(()) })
            },
        );
        outcome.await.unwrap().unwrap();
        assert_eq!(calls.into_inner(), [first, second], "{refusal}");
    }
}

#[tokio::test]
async fn what_asking_again_cannot_mend_is_reported_at_once() {
    let given = HashMap::from([("TOKEN".to_owned(), "x".to_owned())]);
    for (is_interactive, refusal) in [
        (true, Status::unavailable("starting")),
        (true, Status::invalid_argument("configuration `token`: has expired")),
        (false, Status::invalid_argument("configuration `host`: is required")),
    ] {
        let calls = std::cell::Cell::new(0);
        let outcome = ask_until_accepted(
            is_interactive,
            &given,
            async |interview| Ok(converse(interview, "1")),
            async |_| {
                calls.set(calls.get() + 1);
                Ok(Err::<(), _>(refusal.clone()))
            },
        );
        assert!(outcome.await.unwrap().is_err());
        assert_eq!(calls.get(), 1, "{refusal}");
    }
}

#[tokio::test]
async fn ten_refusals_are_enough() {
    let (none, calls) = (HashMap::new(), std::cell::Cell::new(0));
    let outcome = ask_until_accepted(
        true,
        &none,
        async |interview| Ok(converse(interview, "1")),
        async |_| {
            calls.set(calls.get() + 1);
            Ok(Err::<(), _>(Status::invalid_argument("no")))
        },
    );
    assert!(outcome.await.unwrap().is_err());
    assert_eq!(calls.get(), 10);
}

#[test]
fn a_question_is_answered_ten_times_at_most() {
    let mut interview = Interview::default();
    interview.begin();
    for _ in 0..10 {
        assert_eq!(interview.asked(HOST).unwrap(), None);
        interview.answered(HOST.to_owned(), "no");
    }
    assert!(interview.asked(HOST).is_err());
    assert_eq!(interview.asked(TOKEN).unwrap(), None, "another question has its own");
}

#[test]
fn what_a_flag_gives_is_not_asked_for_unless_the_extension_refuses_it() {
    let given = HashMap::from([("HOST".to_owned(), "x".to_owned())]);
    let mut interview = Interview { given, ..Interview::default() };
    interview.begin();
    assert_eq!(interview.asked(HOST).unwrap().as_deref(), Some("x"));
    assert_eq!(interview.asked(HOST).unwrap(), None);
    assert_eq!(interview.asked(TOKEN).unwrap(), None, "it only names the host");
    assert_eq!(interview.asked("Which host?").unwrap(), None);
    interview.begin();
    assert_eq!(interview.asked("host: The host. (text)").unwrap().as_deref(), Some("x"));
}

#[test]
fn a_key_is_found_only_as_a_word() {
    assert!(is_about(TOKEN, "TOKEN"));
    assert!(is_about("Which token?", "token"));
    assert!(!is_about("Which token_file?", "token"));
    assert_eq!(
        refused_keys("configuration `a`: is required; configuration `b.c`: must be a number"),
        ["a", "b.c"]
    );
    assert!(refused_keys("configuration is wrong").is_empty());
}
