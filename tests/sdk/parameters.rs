//! The errors for invalid parameters, over a real socket: every problem, with its key and what is
//! allowed, and never a value.

use crate::support::probe::probe;
use crate::support::{Client, EVENT, Setup, Started, within};
use gofer_proto::{ExtensionSubscribeRequest, ExtensionUnsubscribeRequest};
use gofer_sdk::{Error, ErrorKind, Extension, GoDuration, Gofer, NoConfig, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::{Code, Status};

/// What a pipeline sets.
#[derive(Deserialize, JsonSchema)]
struct PickyParams {
    /// The time between two runs, such as `5m` or `1h30m`.
    every: GoDuration,
    /// The token for the chat.
    token: String,
    /// How often to try.
    #[serde(default)]
    retries: u8,
    /// How loud to be.
    #[serde(default)]
    volume: Volume,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Volume {
    #[default]
    Low,
    High,
}

struct Picky;

impl Extension for Picky {
    type Config = NoConfig;
    type Params = PickyParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, params: &PickyParams) -> Result<()> {
        assert!(params.token != "panic-hunter2", "on purpose, with {}", params.token);
        if params.token == "internal-hunter2" {
            return Err(Error::internal(format!("cannot check {}", params.token)));
        }
        let mut problems = Vec::new();
        if params.every < GoDuration::from_mins(1) {
            problems.push(("every", "must be at least 1m0s"));
        }
        if matches!(params.volume, Volume::High) && params.retries > 3 {
            problems.push(("retries", "must be at most 3 if `volume` is high"));
        }
        let Some((key, message)) = problems.pop() else { return Ok(()) };
        let error = Error::invalid_parameter(key, message);
        Err(problems.into_iter().fold(error, |all, (key, message)| all.and_parameter(key, message)))
    }
}

async fn picky() -> (Started, Client) {
    let started = Setup::default().start::<Picky>();
    let client = started.client().await;
    client.init(&[]).await.unwrap();
    (started, client)
}

async fn refused(client: &Client, params: crate::support::Settings<'_>) -> Status {
    let status = client.subscribe("a", params).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(client.registered().await.is_empty(), "what is refused is not listed");
    status
}

#[tokio::test]
async fn all_that_is_wrong_is_reported_at_once_with_its_key() {
    let (_started, client) = picky().await;
    let status =
        refused(&client, &[("every", "hunter2"), ("retries", "hunter3"), ("volume", "hunter4")])
            .await;
    let reported: Vec<_> = status.message().split("; ").collect();
    for key in ["every", "retries", "volume", "token"] {
        let lead = format!("parameter `{key}`: ");
        assert_eq!(
            reported.iter().filter(|text| text.starts_with(&lead)).count(),
            1,
            "{reported:?}"
        );
    }
    assert_eq!(reported.len(), 4, "{reported:?}");
    // What is allowed.
    for right in ["1h30m", "from 0 to 255", "`low`, `high`", "The token for the chat"] {
        assert!(status.message().contains(right), "{right} in {status}");
    }
    assert!(!status.message().contains("hunter"), "a value is shown: {status}");
}

#[tokio::test]
async fn an_unknown_key_is_reported_with_the_one_that_was_probably_meant() {
    let (_started, client) = picky().await;
    let status = refused(&client, &[("evrey", "5m"), ("token", "t"), ("colour", "hunter2")]).await;
    assert!(status.message().contains("`evrey`: unknown; did you mean `every`?"), "{status}");
    assert!(status.message().contains("`colour`: unknown; expected one of"), "{status}");
    assert!(!status.message().contains("hunter2"), "{status}");
}

#[tokio::test]
async fn a_key_given_twice_in_different_case_is_refused() {
    let (_started, client) = picky().await;
    let status = refused(&client, &[("every", "5m"), ("EVERY", "9m"), ("token", "t")]).await;
    assert!(status.message().contains("`every`: given twice"), "{status}");
}

#[tokio::test]
async fn what_the_author_refuses_is_reported_at_once_too() {
    let (_started, client) = picky().await;
    let loud = [("every", "1s"), ("token", "t"), ("retries", "9"), ("volume", "high")];
    let status = refused(&client, &loud).await;
    assert!(status.message().contains("parameter `every`: must be at least 1m0s"), "{status}");
    assert!(status.message().contains("parameter `retries`: must be at most 3"), "{status}");
}

#[tokio::test]
async fn a_changed_subscription_that_is_refused_leaves_the_old_one() {
    let (_started, client) = picky().await;
    client.subscribe("a", &[("EVERY", "5m"), ("Token", "t")]).await.unwrap();
    let status = client.subscribe("a", &[("every", "soon"), ("token", "t")]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(client.registered().await, ["default/a"]);
}

#[tokio::test]
async fn a_validation_that_fails_itself_is_internal_and_shows_nothing() {
    let (_started, client) = picky().await;
    for token in ["panic-hunter2", "internal-hunter2"] {
        let params = [("every", "5m"), ("token", token)];
        let status = client.subscribe("a", &params).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(!status.message().contains("hunter2"), "{status}");
    }
    client.subscribe("a", &[("every", "5m"), ("token", "t")]).await.unwrap();
}

#[tokio::test]
async fn a_subscription_without_a_pipeline_is_refused() {
    let (_started, client) = picky().await;
    let subscribe = ExtensionSubscribeRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: String::new(),
        pipeline_extension_label: "l".to_owned(),
        config: [("every".to_owned(), "5m".to_owned()), ("token".to_owned(), "t".to_owned())]
            .into(),
    };
    let unsubscribe = ExtensionUnsubscribeRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: String::new(),
        pipeline_extension_label: "l".to_owned(),
    };
    for status in [
        within(client.raw().subscribe(subscribe)).await.unwrap_err(),
        within(client.raw().unsubscribe(unsubscribe)).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("`pipeline_id`"), "{status}");
    }
}

#[tokio::test]
async fn a_key_is_accepted_up_to_its_longest_and_no_longer() {
    let (_started, client) = picky().await;
    let params = [("every", "5m"), ("token", "t")];
    // `default`, `/` and the label `l` take nine of the 4096 bytes.
    let longest = "p".repeat(4096 - 9);
    client.subscribe(&longest, &params).await.unwrap();
    let longer = format!("{longest}p");
    for status in [
        client.subscribe(&longer, &params).await.unwrap_err(),
        client.unsubscribe(&longer).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("4097 bytes"), "{status}");
        assert!(status.message().contains("at most 4096"), "{status}");
    }
    assert_eq!(client.registered().await.len(), 1);
}

#[tokio::test]
async fn ten_thousand_wrong_keys_get_a_short_answer() {
    let (_started, client) = picky().await;
    let keys: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
    let params: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "hunter2")).collect();
    let status = refused(&client, &params).await;
    // The declared parameters come first, and all of them.
    assert!(status.message().starts_with("parameter `every`: is required"), "{status}");
    assert!(status.message().contains("parameter `token`: is required"), "{status}");
    assert!(status.message().len() < 4096, "{}", status.message().len());
    assert!(status.message().contains(" more"), "{status}");
}

/// Percent-encoded, the message would have twelve times as many bytes as the key has characters.
#[tokio::test]
async fn an_error_that_names_a_long_key_reaches_its_caller() {
    let (_started, client) = picky().await;
    for key in ["a".repeat(100_000), "🦀".repeat(100_000)] {
        let status = refused(&client, &[("every", "5m"), ("token", "t"), (&key, "")]).await;
        assert!(status.message().contains("unknown"), "{status}");
    }
}

#[tokio::test]
async fn a_long_error_of_the_author_reaches_its_caller() {
    let failing = probe().event(|_, _| async {
        let message = "the chat is away: ".to_owned() + &"%".repeat(1_000_000);
        Err(Error::new(ErrorKind::FailedPrecondition, message))
    });
    let (_probe, _started, client) = failing.start(Setup::default()).await;
    let status = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().starts_with("the chat is away: %"), "{status}");
    assert!(status.message().ends_with("%…"), "{status}");
}

#[tokio::test]
async fn a_reference_that_gofer_has_not_resolved_is_never_used_as_a_value() {
    let (probe, _started, client) = probe().start_bare(Setup::default()).await;
    let refused = client.init(&probe.config_with("global_secret{{ note }}")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let words = "is a reference, which Gofer has not resolved; set the value itself";
    assert_eq!(refused.message(), format!("configuration `note`: {words}"));
    client.init(&probe.config()).await.unwrap();
    let refused = client.subscribe("a", &[("every", " pipeline_secret{{every}}")]).await;
    assert_eq!(refused.unwrap_err().message(), format!("parameter `every`: {words}"));
    assert_eq!(probe.seen().events, ["init"]);
}
