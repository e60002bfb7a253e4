//! What the github extension does.

#[path = "events.rs"]
pub(crate) mod events;

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gofer_sdk::{
    Error, ErrorKind, Extension, ExternalEvent, Gofer, Parsed, Result, Run, Secret, Subscriptions,
};
use schemars::JsonSchema;
use serde::Deserialize;

use events::Payload;

/// How the names of all variables begin.
const PREFIX: &str = "GOFER_EXTENSION_GITHUB_";

/// What the administrator sets at install time. Each doc comment is the
/// installer's question and a line of the documentation.
#[derive(Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the names are a contract")]
pub(crate) struct Config {
    /// The ID of the GitHub App, a number in the App's settings.
    app_id: u64,
    /// The ID of the App's installation: the number at the end of the address
    /// of the installation's settings.
    app_installation: u64,
    /// The App's private key: the PEM file in base64 without line breaks, as
    /// `base64 -w0 key.pem` prints it.
    app_key: Secret,
    /// The secret of the webhook, as it is in the App's settings.
    app_webhook_secret: Secret,
}

/// What a pipeline sets when it subscribes.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The repository whose events run the pipeline: its owner and its name,
    /// such as `octo-org/octo-repo`.
    repository: Parsed<Repository>,
    /// The event that runs the pipeline, such as `push`, or some of its
    /// actions, such as `pull_request/opened,reopened`.
    event_filter: Parsed<EventFilter>,
}

/// A repository, by its owner and its name.
pub(crate) struct Repository(String);

impl FromStr for Repository {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_part = |part: &str| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=100).contains(&part.len())
                && !matches!(part, "." | "..")
                && part.chars().all(is_name)
        };
        match text.split_once('/') {
            Some((owner, name))
                if is_part(owner)
                    && is_part(name)
                    && !name.to_ascii_lowercase().ends_with(".git") =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err("must be an owner and a name, as in `octo-org/octo-repo`, \
                without an address and without `.git`"),
        }
    }
}

/// An event, and which of its actions; all if there are none.
pub(crate) struct EventFilter {
    event: &'static str,
    actions: Vec<String>,
}

/// The longest action: what a `repository_dispatch` may have.
const MAX_ACTION_CHARS: usize = 100;

impl FromStr for EventFilter {
    type Err = Cow<'static, str>;

    // What it says must not repeat the text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (event, actions) = match text.split_once('/') {
            Some((event, actions)) => (event.trim(), Some(actions)),
            None => (text.trim(), None),
        };
        let Some(event) = events::named(event) else {
            return Err(match events::nearest(event) {
                Some(nearest) => {
                    format!("GitHub has no such event; did you mean `{nearest}`?").into()
                }
                None => "GitHub has no such event; write one such as `push`, or one with actions \
                    such as `pull_request/opened,reopened`"
                    .into(),
            });
        };
        let actions: Vec<_> =
            actions.iter().flat_map(|it| it.split(',')).map(|it| it.trim().to_owned()).collect();
        for action in &actions {
            if action.is_empty() {
                return Err("must name an action after the `/` and after each comma, as in \
                    `pull_request/opened,reopened`"
                    .into());
            }
            if action.chars().count() > MAX_ACTION_CHARS || action.contains(char::is_control) {
                let what = format!(
                    "an action has at most {MAX_ACTION_CHARS} characters, and no control characters"
                );
                return Err(what.into());
            }
        }
        Ok(Self { event, actions })
    }
}

impl Params {
    fn is_for(&self, event: &str, payload: &Payload) -> bool {
        let EventFilter { event: wanted, actions } = &*self.event_filter;
        let is_action = |action: &String| action.eq_ignore_ascii_case(payload.action());
        *wanted == event
            && self.repository.0.eq_ignore_ascii_case(payload.repository())
            && (actions.is_empty() || actions.iter().any(is_action))
    }
}

/// The extension, once the administrator's configuration is known.
pub(crate) struct Github {
    webhook_secret: Secret,
}

impl Extension for Github {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, gofer: Gofer) -> Result<Self> {
        check_key(&config.app_key)?;
        tracing::info!(
            app = config.app_id,
            installation = config.app_installation,
            "GitHub's webhooks are expected at /external/{}",
            gofer.name()
        );
        Ok(Self { webhook_secret: config.app_webhook_secret })
    }

    // Starts the runs before it returns: GitHub learns of a failure, and the
    // delivery can be sent again.
    async fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<Params>,
    ) -> Result<()> {
        // Nothing is read before it is known who sent it.
        event.verify_hmac_sha256("X-Hub-Signature-256", &self.webhook_secret)?;
        let name = header(&event, "X-GitHub-Event")?;
        let delivery = delivery(&event)?;
        check_content_type(&event)?;
        let payload: Payload = event.json()?;
        let Some(name) = events::named(name) else {
            tracing::info!(delivery, "an event that no pipeline can be subscribed to");
            return Ok(());
        };
        let run = run(name, &payload).key(delivery);
        let runs = subscriptions
            .start_runs(|it| it.params().is_for(name, &payload).then(|| run.clone()))
            .await?;
        tracing::debug!(event = name, delivery, runs = runs.len(), "handled an event");
        Ok(())
    }

    fn documentation() -> Cow<'static, str> {
        include_str!("documentation.md").into()
    }
}

/// What nothing here needs is checked all the same: a mistake shows when it is
/// made.
fn check_key(key: &Secret) -> Result<()> {
    // A `Secret`, so that the copy is overwritten too.
    let decoded = STANDARD.decode(key.expose().trim_end()).ok();
    let pem = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).map(Secret::from);
    if pem.is_some_and(|pem| pem.expose().starts_with("-----BEGIN")) {
        return Ok(());
    }
    let message = "must be a PEM file in base64 without line breaks, as `base64 -w0 key.pem` \
        prints it";
    Err(Error::invalid_configuration("app_key", message))
}

fn refuse(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

fn header<'a>(event: &'a ExternalEvent, name: &str) -> Result<&'a str> {
    event.header(name).ok_or_else(|| refuse(format!("the header `{name}` is missing")))
}

/// The delivery's ID, which is a GUID, and the same if GitHub delivers again.
fn delivery(event: &ExternalEvent) -> Result<&str> {
    let delivery = header(event, "X-GitHub-Delivery")?;
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=128).contains(&delivery.len()) && delivery.bytes().all(is_id) {
        return Ok(delivery);
    }
    Err(refuse("the header `X-GitHub-Delivery` must be 1 to 128 letters, digits and dashes"))
}

fn check_content_type(event: &ExternalEvent) -> Result<()> {
    let media_type = event.header("Content-Type").and_then(|text| text.split(';').next());
    if media_type.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(refuse(
        "the payload must be JSON: choose the content type `application/json` in the settings of \
         the webhook",
    ))
}

/// The run for an event, with everything but its key.
fn run(event: &str, payload: &Payload) -> Run {
    let action = payload.action();
    // That of a `repository_dispatch` may be any text.
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let action = if (1..=64).contains(&action.len()) && is_word(action) {
        format!("/{action}")
    } else {
        String::new()
    };
    let run = Run::because(format!("GitHub: {event}{action} in {}", payload.repository()))
        .variable(format!("{PREFIX}EVENT"), event);
    payload
        .variables(event)
        .fold(run, |run, (name, value)| run.variable(format!("{PREFIX}{name}"), value))
}
