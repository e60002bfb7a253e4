//! Both conversations over real streams: questions, repeated questions, the resulting settings, and
//! how either side ends a conversation.

use crate::support::conversation::{Conversation, Message};
use crate::support::{Client, Setup, Started, long_grace, within};
use gofer_sdk::internal::is_secret_question;
use gofer_sdk::{
    Dialogue, Error, Extension, GoDuration, Gofer, Limits, NoConfig, NoParams, Result, Secret,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::{Code, Status};

/// What the administrator sets.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct AskingConfig {
    /// The shortest interval that a pipeline may ask for.
    #[serde(default = "one_minute")]
    min_interval: GoDuration,
    /// The token for the chat.
    token: String,
}

fn one_minute() -> GoDuration {
    GoDuration::from_mins(1)
}

/// What a pipeline sets.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct AskingParams {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
    /// How often to try.
    #[serde(default)]
    retries: u8,
}

struct Asking {
    min_interval: GoDuration,
}

impl Extension for Asking {
    type Config = AskingConfig;
    type Params = AskingParams;

    async fn init(config: AskingConfig, _: Gofer) -> Result<Self> {
        Ok(Self { min_interval: config.min_interval })
    }

    fn validate(&self, params: &AskingParams) -> Result<()> {
        if params.every < self.min_interval {
            let message = format!("must be at least {}", self.min_interval);
            return Err(Error::invalid_parameter("every", message));
        }
        Ok(())
    }
}

async fn asking(limits: Limits) -> (Started, Client) {
    let started = Setup { limits, ..Setup::default() }.start::<Asking>();
    let client = started.client().await;
    (started, client)
}

const MIN_INTERVAL: &str = "min_interval: The shortest interval that a pipeline may ask for. \
    (duration, such as `5m` or `1h30m`, default 1m0s; leave empty for the default)";
const TOKEN: &str = "token: The token for the chat. (text, required)";
const EVERY: &str =
    "every: The time between two runs, such as `5m` or `1h30m`. (duration, required)";
const RETRIES: &str = "retries: How often to try. \
    (whole number from 0 to 255, default 0; leave empty for the default)";

fn setting(key: &str, value: &str) -> Message {
    Message::Setting(key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn the_installer_asks_for_each_setting_and_returns_the_answers() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    assert_eq!(talk.query().await, MIN_INTERVAL);
    talk.answer(" 5m ").await;
    assert_eq!(talk.query().await, TOKEN);
    talk.answer("sesame").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("min_interval", "5m"), setting("token", "sesame")]);
    end.unwrap();
}

#[tokio::test]
async fn an_empty_answer_takes_the_default() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    talk.query().await;
    talk.answer("").await;
    talk.query().await;
    talk.answer("sesame").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("token", "sesame")]);
    end.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_with_the_reason() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    for wrong in ["hunter2", "5 minutes", "1", "1h-5m"] {
        assert_eq!(talk.query().await, MIN_INTERVAL);
        talk.answer(wrong).await;
        let reason = talk.message().await;
        assert!(reason.starts_with("`min_interval`: "), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
    }
    assert_eq!(talk.query().await, MIN_INTERVAL);
    talk.answer("2m").await;
    for _ in 0..2 {
        assert_eq!(talk.query().await, TOKEN);
        talk.answer("  ").await;
        assert_eq!(talk.message().await, "`token`: is required");
    }
    assert_eq!(talk.query().await, TOKEN);
    talk.answer("sesame").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("min_interval", "2m"), setting("token", "sesame")]);
    end.unwrap();
}

#[tokio::test]
async fn what_the_installer_returns_is_a_configuration_for_init() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    talk.query().await;
    talk.answer("2m").await;
    talk.query().await;
    talk.answer("sesame").await;
    let (messages, _) = talk.rest().await;
    let config: Vec<_> = messages
        .iter()
        .map(|messages| match messages {
            Message::Setting(key, value) => (key.as_str(), value.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    client.init(&config).await.unwrap();
}

#[tokio::test]
async fn the_configurator_asks_for_each_parameter_before_init_too() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::configurator(&client).await.unwrap();
    assert_eq!(talk.query().await, EVERY);
    talk.answer("1s").await;
    assert_eq!(talk.query().await, RETRIES);
    talk.answer("3").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("every", "1s"), setting("retries", "3")]);
    end.unwrap();
}

#[tokio::test]
async fn after_init_the_configurator_asks_again_for_what_subscribe_would_refuse() {
    let (_started, client) = asking(long_grace()).await;
    client.init(&[("token", "sesame")]).await.unwrap();
    let mut talk = Conversation::configurator(&client).await.unwrap();
    assert_eq!(talk.query().await, EVERY);
    talk.answer("1s").await;
    assert_eq!(talk.query().await, RETRIES);
    talk.answer("").await;
    assert_eq!(talk.message().await, "`every`: must be at least 1m0s");
    // Only what was wrong.
    assert_eq!(talk.query().await, EVERY);
    talk.answer("5m").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("every", "5m")]);
    end.unwrap();
    client.subscribe("a", &[("every", "5m")]).await.unwrap();
}

#[tokio::test]
async fn answers_that_end_before_the_questions_end_the_conversation_with_an_error() {
    let (_started, client) = asking(long_grace()).await;
    for mut talk in [
        Conversation::installer(&client).await.unwrap(),
        Conversation::configurator(&client).await.unwrap(),
    ] {
        talk.query().await;
        talk.answer("5m").await;
        talk.query().await;
        talk.stop_answering();
        let (messages, end) = talk.rest().await;
        assert!(messages.is_empty(), "no setting is returned: {messages:?}");
        let status = end.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert_eq!(
            status.message(),
            "the answers ended before the last question was answered; nothing was set"
        );
    }
}

#[tokio::test]
async fn a_caller_that_never_answers_well_is_given_up_on() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::configurator(&client).await.unwrap();
    // As from a pipe that never ends.
    for _ in 0..10 {
        assert_eq!(talk.query().await, EVERY);
        talk.answer("y").await;
        assert!(talk.message().await.starts_with("`every`: "));
    }
    let (messages, end) = talk.rest().await;
    assert!(messages.is_empty(), "{messages:?}");
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(status.message(), "gave up after 10 refused answers for `every`; nothing was set");
}

#[tokio::test]
async fn answers_that_are_refused_together_are_given_up_on_too() {
    let (_started, client) = asking(long_grace()).await;
    client.init(&[("token", "sesame")]).await.unwrap();
    let mut talk = Conversation::configurator(&client).await.unwrap();
    for round in 0..10 {
        assert_eq!(talk.query().await, EVERY);
        // It decodes, but `validate` refuses it.
        talk.answer("1s").await;
        if round == 0 {
            assert_eq!(talk.query().await, RETRIES);
            talk.answer("").await;
        }
        assert_eq!(talk.message().await, "`every`: must be at least 1m0s");
    }
    let (messages, end) = talk.rest().await;
    assert!(messages.is_empty(), "{messages:?}");
    assert_eq!(end.unwrap_err().code(), Code::FailedPrecondition);
}

/// What has a secret.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct GuardedConfig {
    /// The token for the chat.
    #[schemars(extend("writeOnly" = true))]
    token: GoDuration,
    /// The password for the chat.
    password: Secret,
}

/// Asks for secrets, of its own and in the standard way.
struct Guarded;

impl Extension for Guarded {
    type Config = GuardedConfig;
    type Params = NoParams;

    async fn init(_: GuardedConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn configure(dialogue: &mut Dialogue) -> Result<()> {
        let answer = dialogue.ask_secret("What is the token?").await?;
        dialogue.set("length", answer.len().to_string()).await
    }
}

#[tokio::test]
async fn questions_about_secrets_say_so_and_no_message_repeats_the_answer() {
    let started = Setup::default().start::<Guarded>();
    let client = started.client().await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    let question = talk.query().await;
    let expected = "token: The token for the chat. \
                    (duration, such as `5m` or `1h30m`, required, secret)";
    assert_eq!(question, expected);
    assert!(is_secret_question(&question));
    talk.answer("hunter2").await;
    let refusal = talk.message().await;
    assert!(refusal.starts_with("`token`: ") && !refusal.contains("hunter2"), "{refusal}");
    assert!(!is_secret_question(&refusal));
    talk.query().await;
    talk.answer("5m").await;
    let question = talk.query().await;
    assert_eq!(question, "password: The password for the chat. (text, required, secret)");
    assert!(is_secret_question(&question));
    talk.answer("hunter2").await;
    let (messages, end) = talk.rest().await;
    end.unwrap();
    assert_eq!(messages, [setting("token", "5m"), setting("password", "hunter2")]);

    let mut talk = Conversation::configurator(&client).await.unwrap();
    let question = talk.query().await;
    assert_eq!(question, "What is the token? (secret)");
    assert!(is_secret_question(&question) && !is_secret_question(EVERY));
    talk.answer("hunter2").await;
    let (messages, end) = talk.rest().await;
    end.unwrap();
    assert_eq!(messages, [setting("length", "7")]);
}

#[tokio::test]
async fn answers_may_come_before_their_questions() {
    let (_started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    talk.answer("5m").await;
    talk.answer("sesame").await;
    talk.stop_answering();
    let (messages, end) = talk.rest().await;
    end.unwrap();
    assert_eq!(messages[2..], [setting("min_interval", "5m"), setting("token", "sesame")]);
}

async fn open_once_allowed(client: &Client) -> Conversation {
    // The server may notice the disconnect later.
    within(async {
        loop {
            match Conversation::configurator(client).await {
                Ok(talk) => return talk,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn conversations_beyond_the_limit_are_refused_until_one_ends() {
    let (started, client) = asking(long_grace().with_conversations(1)).await;
    // Administrators and owners of pipelines have a limit each.
    let second = Conversation::installer(&client).await.unwrap();
    let mut first = Conversation::configurator(&client).await.unwrap();
    let other = started.client().await;
    for refused in [Conversation::installer(&other).await, Conversation::configurator(&other).await]
    {
        let status = refused.err().unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    // Other calls are not affected.
    other.init(&[("token", "sesame")]).await.unwrap();
    first.query().await;
    first.stop_answering();
    first.rest().await.1.unwrap_err();
    open_once_allowed(&other).await.query().await;
    drop(second);
}

#[tokio::test]
async fn a_caller_that_disconnects_frees_its_permit() {
    let (started, client) = asking(long_grace().with_conversations(1)).await;
    // It cancels only the call.
    let mut talk = Conversation::installer(&client).await.unwrap();
    talk.query().await;
    drop(talk);
    // It closes the whole connection.
    let disconnecting = started.client().await;
    let mut talk = open_once_allowed(&disconnecting).await;
    talk.query().await;
    drop((talk, disconnecting));
    open_once_allowed(&client).await.query().await;
}

#[tokio::test]
async fn a_shutdown_ends_a_conversation() {
    let (started, client) = asking(long_grace()).await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    talk.query().await;
    client.shutdown().await.unwrap();
    let (_, end) = talk.rest().await;
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    started.stopped().await.unwrap();
}

/// Has a custom installer conversation.
struct Talking;

impl Extension for Talking {
    type Config = gofer_sdk::NoConfig;
    type Params = gofer_sdk::NoParams;

    async fn init(_: gofer_sdk::NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn install(dialogue: &mut Dialogue) -> Result<()> {
        dialogue.say("Welcome.").await?;
        match dialogue.ask("What now?").await?.as_str() {
            "panic" => panic!("on purpose, with hunter2"),
            "fail" => Err(Error::internal("hunter2 is not known")),
            "refuse" => Err(Error::unavailable("the chat does not answer")),
            "idle" => std::future::pending().await,
            "talk" => loop {
                dialogue.say("and another thing").await?;
            },
            answer => dialogue.set("answer", answer).await,
        }
    }
}

async fn talking(answer: &str) -> (Started, Client, Conversation) {
    let limits = long_grace().with_conversations(1);
    let started = Setup { limits, ..Setup::default() }.start::<Talking>();
    let client = started.client().await;
    let mut talk = Conversation::installer(&client).await.unwrap();
    assert_eq!(talk.message().await, "Welcome.");
    assert_eq!(talk.query().await, "What now?");
    talk.answer(answer).await;
    (started, client, talk)
}

#[tokio::test]
async fn an_author_can_write_a_custom_conversation() {
    let (_started, client, talk) = talking("go on").await;
    let (messages, end) = talk.rest().await;
    assert_eq!(messages, [setting("answer", "go on")]);
    end.unwrap();
    // The default one has nothing to ask, and ends cleanly.
    let (messages, end) = open_once_allowed(&client).await.rest().await;
    assert!(messages.is_empty());
    end.unwrap();
}

#[tokio::test]
async fn a_conversation_that_fails_ends_with_what_may_be_shown() {
    let ends: [(&str, Code, &str); 3] = [
        ("panic", Code::Internal, "the extension failed; see its log"),
        ("fail", Code::Internal, "the extension failed; see its log"),
        ("refuse", Code::Unavailable, "the chat does not answer"),
    ];
    for (answer, code, message) in ends {
        let (_started, client, talk) = talking(answer).await;
        let (messages, end) = talk.rest().await;
        let status: Status = end.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
        assert!(messages.is_empty());
        client.info().await.unwrap();
        drop(open_once_allowed(&client).await);
    }
}

#[tokio::test]
async fn a_disconnect_ends_a_conversation_that_is_idle_or_never_stops() {
    for answer in ["idle", "talk"] {
        let (_started, client, talk) = talking(answer).await;
        client.info().await.unwrap();
        drop(talk);
        drop(open_once_allowed(&client).await);
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_conversation_that_goes_on() {
    for answer in ["idle", "talk"] {
        let (started, client, talk) = talking(answer).await;
        client.info().await.unwrap();
        // Nobody reads the messages, and waiting for the grace would time out.
        client.shutdown().await.expect(answer);
        started.stopped().await.unwrap();
        drop(talk);
    }
}

/// Gives up the first question at once.
struct Impatient;

impl Extension for Impatient {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn install(dialogue: &mut Dialogue) -> Result<()> {
        let given_up = tokio::select! {
            biased;
            _ = dialogue.ask("one") => false,
            () = std::future::ready(()) => true,
        };
        assert!(given_up);
        let answer = dialogue.ask("two").await?;
        dialogue.set("two", answer).await
    }
}

#[tokio::test]
async fn the_answer_to_a_question_that_was_given_up_is_skipped() {
    let started = Setup::default().start::<Impatient>();
    let mut talk = Conversation::installer(&started.client().await).await.unwrap();
    for question in ["one", "two"] {
        assert_eq!(talk.query().await, question);
        talk.answer(&format!("to {question}")).await;
    }
    let (messages, end) = talk.rest().await;
    end.unwrap();
    assert_eq!(messages, [setting("two", "to two")]);
}

/// Asks for a group of settings that go together, or for none of them.
struct Grouped;

/// What a pipeline sets.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct GroupedParams {
    /// The time between two runs.
    every: GoDuration,
    #[serde(flatten)]
    alert: Option<Alert>,
    #[serde(flatten)]
    note: Note,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct Alert {
    channel: String,
    threshold: u8,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "asked for, not used")]
struct Note {
    note: Option<String>,
}

impl Extension for Grouped {
    type Config = NoConfig;
    type Params = GroupedParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }
}

/// Answers the next question, which is about `key`.
async fn answer(talk: &mut Conversation, key: &str, text: &str) {
    let question = talk.query().await;
    assert!(question.starts_with(&format!("{key} ")) || question.starts_with(&format!("{key}:")));
    talk.answer(text).await;
}

const THRESHOLD_IS_REQUIRED: &str = "`threshold`: is required: whole number from 0 to 255";

/// A conversation in which half of the group has been given and is refused.
async fn half_of_a_group(client: &Client) -> Conversation {
    let mut talk = Conversation::configurator(client).await.unwrap();
    for (key, text) in [("every", "5m"), ("channel", "ops"), ("note", "x"), ("threshold", "")] {
        answer(&mut talk, key, text).await;
    }
    assert_eq!(talk.message().await, THRESHOLD_IS_REQUIRED);
    talk
}

/// What says how to leave the group out.
async fn way_out(talk: &mut Conversation) {
    assert_eq!(talk.message().await, "or leave `channel` empty too");
}

#[tokio::test]
async fn an_optional_group_can_be_completed_or_dropped_after_half_of_it_was_given() {
    let started = Setup::default().start::<Grouped>();
    let client = started.client().await;
    let both = [setting("channel", "ops"), setting("threshold", "3")];
    for (channel, threshold, group) in [("ops", "3", &both[..]), ("", "", &[])] {
        let mut talk = half_of_a_group(&client).await;
        way_out(&mut talk).await;
        answer(&mut talk, "channel", channel).await;
        answer(&mut talk, "threshold", threshold).await;
        let (mut messages, end) = talk.rest().await;
        end.unwrap();
        messages.retain(|message| {
            *message != setting("every", "5m") && *message != setting("note", "x")
        });
        assert_eq!(messages, group);
    }
}

#[tokio::test]
async fn half_of_an_optional_group_is_given_up_on() {
    let started = Setup::default().start::<Grouped>();
    let client = started.client().await;
    let mut talk = half_of_a_group(&client).await;
    for _ in 1..10 {
        way_out(&mut talk).await;
        answer(&mut talk, "channel", "ops").await;
        answer(&mut talk, "threshold", "").await;
        assert_eq!(talk.message().await, THRESHOLD_IS_REQUIRED);
    }
    let (messages, end) = talk.rest().await;
    assert!(messages.is_empty(), "{messages:?}");
    assert_eq!(end.unwrap_err().code(), Code::FailedPrecondition);
}
