//! The command line on a full Gofer, which says less than an embedded core, and some of it only in
//! words.

use gofer_proto::extension::{ExtensionState, ExtensionStatus};
use tonic::{Code, Status};

use crate::full_gofer::{FullGofer, State, Step};
use crate::shell::Machine;
use crate::support::TOKEN;

/// The exit code and the output of a line with these answers, against a Gofer that is set up so.
async fn outcome_of(
    set_up: impl FnOnce(&mut State),
    line: &'static str,
    answers: &'static str,
) -> (Option<i32>, String, FullGofer) {
    let gofer = FullGofer::start();
    set_up(&mut gofer.state());
    let mut machine = Machine::new(&format!("full-{}", gofer.address.port()));
    machine.connect_to(&gofer.address.to_string(), TOKEN);
    let outcome = move || machine.outcome_with(line, answers);
    let (status, shown) = tokio::task::spawn_blocking(outcome).await.unwrap();
    (status.code(), shown, gofer)
}

const INSTALL: &str = "gofer extension install chat example.com/chat -i";

fn questions(end: Option<Status>) -> Vec<Step> {
    let asked = [
        Step::Say("A chat."),
        Step::Ask("host: The host. (text, required)"),
        Step::SetAnswer("host"),
        Step::Ask("token: The token. (text, required, secret)"),
        Step::SetAnswer("token"),
    ];
    asked.into_iter().chain(end.map(Step::End)).collect()
}

#[tokio::test]
async fn a_conversation_that_ends_as_on_a_full_gofer_succeeds() {
    for end in [
        Status::internal("could not receive message from extension; EOF"),
        Status::unknown("could not receive message: context canceled"),
        Status::internal("client disconnected"),
    ] {
        let steps = questions(Some(end.clone()));
        let (code, shown, gofer) =
            outcome_of(|it| it.conversation = steps, INSTALL, "here\nhunter2\n").await;
        assert_eq!(code, Some(0), "{end}: {shown}");
        assert!(shown.contains("Installed chat.") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(gofer.state().settings[0]["token"], "hunter2");
    }
}

#[tokio::test]
async fn a_conversation_that_ends_while_a_question_is_open_fails() {
    for end in
        [Status::internal("EOF"), Status::internal("rpc error: code = Unavailable desc = EOF")]
    {
        let steps = vec![Step::AskOnly("host?"), Step::End(end)];
        // Its input stays open, and empty.
        let line = "mkfifo open; gofer extension install chat example.com/chat -i <>open";
        let (code, shown, gofer) = outcome_of(|it| it.conversation = steps, line, "").await;
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("error: "), "{shown}");
        assert!(gofer.state().settings.is_empty(), "nothing is installed");
    }
}

#[tokio::test]
async fn a_conversation_gives_up_at_the_end_of_the_input_and_after_ten_refusals() {
    let (code, shown, gofer) =
        outcome_of(|it| it.conversation = questions(None), INSTALL, "here\n").await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("standard input ended before all questions were answered"), "{shown}");
    assert!(gofer.state().settings.is_empty());

    let refusing = [Step::Ask("host?"), Step::Say("`host`: is unknown")];
    let refusing = refusing.iter().cycle().take(60).cloned().collect();
    let line = "yes | gofer extension install chat example.com/chat -i";
    let (code, shown, gofer) = outcome_of(|it| it.conversation = refusing, line, "").await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("10 answers to one question were refused"), "{shown}");
    assert_eq!(gofer.state().answers.len(), 10);
}

#[tokio::test]
async fn what_the_extension_refuses_is_asked_again() {
    let refusal = "could not initialize: rpc error: code = InvalidArgument desc = \
                   configuration `token`: has expired";
    let set_up = |state: &mut State| {
        state.conversation = questions(Some(Status::internal("EOF")));
        state.refusals.push_back(Status::failed_precondition(refusal));
    };
    let (code, shown, gofer) = outcome_of(set_up, INSTALL, "here\nold\nnew\n").await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Refused: configuration `token`: has expired\n"), "{shown}");
    assert_eq!(gofer.state().answers, ["here", "old", "here", "new"], "{shown}");
    assert_eq!(shown.matches("host: The host.").count(), 1, "only the token is asked for again");
    assert_eq!(gofer.state().settings[1]["token"], "new");
}

#[tokio::test]
async fn a_conversation_with_a_disabled_extension_says_that_it_is_disabled() {
    let set_up = |state: &mut State| {
        let disabled = (ExtensionState::Running, ExtensionStatus::Disabled);
        state.extensions.insert("chat".to_owned(), disabled);
    };
    let line = "gofer extension sub chat hourly --pipeline nightly -i";
    let (code, shown, _) = outcome_of(set_up, line, "").await;
    assert_eq!(code, Some(4), "{shown}");
    assert!(shown.contains("error: the extension `chat` is disabled"), "{shown}");
    assert!(shown.contains("hint: `gofer extension enable chat`"), "{shown}");
    let (code, shown, _) = outcome_of(|_| {}, line, "").await;
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains("hint: `gofer extension list`"), "{shown}");
}

#[tokio::test]
async fn a_pipeline_says_that_it_has_to_be_deployed() {
    let (code, shown, _) = outcome_of(|_| {}, "gofer pipeline create nightly", "").await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("`gofer pipeline deploy default/nightly 3`"), "{shown}");
    let deployed = |state: &mut State| state.deployed = true;
    let (_, shown, _) = outcome_of(deployed, "gofer pipeline create nightly", "").await;
    assert!(!shown.contains("deploy"), "{shown}");

    let start = "gofer run start nightly";
    let (code, shown, _) = outcome_of(|_| {}, start, "").await;
    assert_eq!(code, Some(4), "{shown}");
    assert!(shown.contains("hint: `gofer pipeline deploy default/nightly 3`"), "{shown}");
    let disabled = |state: &mut State| state.pipeline_disabled = true;
    let (_, shown, _) = outcome_of(disabled, start, "").await;
    assert!(shown.contains("hint: `gofer pipeline enable default/nightly`"), "{shown}");
    let (_, shown, _) = outcome_of(deployed, start, "").await;
    assert!(shown.contains("hint: `gofer service toggle-events`"), "{shown}");
}

#[tokio::test]
async fn what_a_full_gofer_only_marks_is_not_claimed_to_be_done() {
    let running = |state: &mut State| {
        let running = (ExtensionState::Running, ExtensionStatus::Enabled);
        state.extensions.insert("chat".to_owned(), running);
    };
    let (code, shown, _) = outcome_of(running, "gofer extension disable chat", "").await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Marked chat as disabled. It is still running"), "{shown}");
    let exited = |state: &mut State| {
        let exited = (ExtensionState::Exited, ExtensionStatus::Disabled);
        state.extensions.insert("chat".to_owned(), exited);
    };
    let (_, shown, _) = outcome_of(exited, "gofer extension disable chat", "").await;
    assert!(shown.contains("Disabled chat."), "{shown}");
    let (_, shown, _) = outcome_of(exited, "gofer extension enable chat", "").await;
    assert!(shown.contains("Marked chat as enabled. It is not running"), "{shown}");
    let line = "gofer subscription disable nightly chat hourly";
    let (_, shown, _) = outcome_of(|_| {}, line, "").await;
    assert!(shown.contains("Marked the subscription as disabled."), "{shown}");
}

#[tokio::test]
async fn hints_name_only_what_this_gofer_has() {
    let running = |state: &mut State| {
        let running = (ExtensionState::Running, ExtensionStatus::Enabled);
        state.extensions.insert("chat".to_owned(), running);
    };
    let line = "gofer extension install chat example.com/chat";
    let (code, shown, _) = outcome_of(running, line, "").await;
    assert_eq!(code, Some(4), "{shown}");
    assert!(shown.contains("`gofer extension uninstall chat`"), "{shown}");
    assert!(!shown.contains("extension update"), "{shown}");
    let (code, shown, _) = outcome_of(|_| {}, "gofer run retry nightly 7", "").await;
    assert_eq!(code, Some(4), "{shown}");
    assert!(shown.contains("refuses all retries"), "{shown}");
}

#[tokio::test]
async fn an_image_that_is_no_extension_ends_in_an_error() {
    let exits = |state: &mut State| state.installed_as = ExtensionState::Exited;
    let line = "gofer extension install nginx example.com/nginx";
    let (code, shown, _) = outcome_of(exits, line, "").await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("is `example.com/nginx` an extension?"), "{shown}");
    assert!(shown.contains("hint: `gofer extension uninstall nginx`"), "{shown}");
}

#[tokio::test]
async fn exit_codes_are_those_of_an_embedded_core() {
    let (code, shown, _) = outcome_of(|_| {}, "gofer pipeline get other", "").await;
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains("hint: `gofer pipeline list`"), "{shown}");
    let (code, shown, _) = outcome_of(|_| {}, "gofer extension enable other", "").await;
    assert_eq!(code, Some(3), "{shown}");

    let text = "could not subscribe; rpc error: code = InvalidArgument desc = parameter `every`: \
                must be at least 1m";
    for outer in [Code::Unknown, Code::Internal, Code::FailedPrecondition] {
        let set_up = |state: &mut State| state.refusals.push_back(Status::new(outer, text));
        let line = "gofer extension sub interval hourly -p nightly -s every=1s";
        let (code, shown, _) = outcome_of(set_up, line, "").await;
        assert_eq!(code, Some(2), "{shown}");
        assert!(shown.contains("error: parameter `every`: must be at least 1m\n"), "{shown}");
    }

    let line = "GOFER_TOKEN= gofer pipeline get nightly";
    let (code, shown, _) = outcome_of(|_| {}, line, "").await;
    assert_eq!(code, Some(5), "{shown}");
    assert!(shown.contains("error: a token is required, and none is set"), "{shown}");
}

#[tokio::test]
async fn values_are_read_from_files_and_from_standard_input() {
    let line = "printf 'a=b\\n\\n' > it; gofer extension install chat i -c file=@it -c token=- \
                -c name=@@me -c key=a=@b";
    let (code, shown, gofer) = outcome_of(|_| {}, line, "hunter2\n").await;
    assert_eq!(code, Some(0), "{shown}");
    let settings = gofer.state().settings[0].clone();
    for (key, value) in [("file", "a=b\n"), ("token", "hunter2"), ("name", "@me"), ("key", "a=@b")]
    {
        assert_eq!(settings[key], value, "{key}");
    }
    let line = "gofer pipeline extend nightly interval hourly -s token=-";
    let (code, shown, gofer) = outcome_of(|_| {}, line, "hunter2").await;
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(gofer.state().settings[0]["token"], "hunter2");

    for (line, code, why) in [
        ("gofer extension install chat i -c a=- -c b=-", 2, "standard input is read for"),
        ("gofer extension install chat i -i -c a=-", 2, "the answers of -i"),
        ("gofer extension install chat i -c a=@missing", 1, "cannot read `missing`"),
        ("gofer extension install chat i -c a=@missing", 1, "`@@` stands for an `@`"),
    ] {
        let (actual, shown, gofer) = outcome_of(|_| {}, line, "hunter2\n").await;
        assert_eq!(actual, Some(code), "{line}: {shown}");
        assert!(shown.contains(why) && !shown.contains("hunter2"), "{line}: {shown}");
        assert!(gofer.state().settings.is_empty());
    }
}
