//! The guarantees of the github extension, on a paused clock, over real TLS and gRPC inside one
//! process: what GitHub sends becomes one run of each pipeline that it is for, and nothing else
//! becomes any.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::doctest::restarts_and_unsubscribes;
use crate::github_extension::Github;
use crate::github_extension::events::EVENTS;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gofer_core::{Core, Installed};
use gofer_sdk::{ErrorKind, Result};
use ring::hmac;
use serde_json::{Value, json};

const NIGHTLY: &str = "default/nightly";
const SECRET: &str = "hunter2";
const DELIVERY: &str = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
const REPOSITORY: &str = "octo-org/octo-repo";

fn config() -> [(&'static str, String); 4] {
    [
        ("app_id", "1234".to_owned()),
        ("app_installation", "5678".to_owned()),
        ("app_key", STANDARD.encode("-----BEGIN RSA PRIVATE KEY-----\nhunter3\n")),
        ("app_webhook_secret", SECRET.to_owned()),
    ]
}

async fn core() -> Result<(Core, Installed)> {
    let core = Core::in_memory().await?;
    let github = core.install::<Github>("github", config()).await?;
    Ok((core, github))
}

fn params<'a>(repository: &'a str, filter: &'a str) -> [(&'static str, &'a str); 2] {
    [("repository", repository), ("event_filter", filter)]
}

fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    format!("sha256={}", hex::encode(tag))
}

/// Sends what GitHub would.
async fn send(
    github: &Installed,
    event: &str,
    delivery: &str,
    body: impl AsRef<[u8]>,
) -> Result<()> {
    let signature = signature(SECRET, body.as_ref());
    let headers = [
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", event),
        ("X-GitHub-Delivery", delivery),
        ("X-Hub-Signature-256", &signature),
    ];
    github.post(headers, body).await
}

/// A payload of any event.
fn payload(action: Option<&str>) -> Value {
    let mut payload = json!({
        "repository": { "id": 1, "full_name": REPOSITORY, "owner": { "login": "octo-org" } },
        "sender": { "login": "octocat", "id": 2 },
        "installation": { "id": 5678 },
    });
    if let Some(action) = action {
        payload["action"] = action.into();
    }
    payload
}

fn push() -> Value {
    let mut push = payload(None);
    push["ref"] = "refs/heads/main".into();
    push["head_commit"] = json!({
        "id": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
        "message": "Boil \"the\" water\n",
        "author": { "name": "Mona Lisa", "email": "mona@example.com", "username": "octocat" },
        "committer": { "name": "GitHub", "email": "noreply@github.com", "username": "web-flow" },
    });
    push
}

/// All variables of a pipeline's newest run. Names lose what all of them begin with.
fn variables(core: &Core, pipeline: &str) -> BTreeMap<String, String> {
    let runs = core.runs(pipeline);
    let variables = runs[0].variables().map(|(name, value)| {
        let name = name.strip_prefix("GOFER_EXTENSION_GITHUB_").unwrap_or(name);
        (name.to_owned(), value.to_owned())
    });
    variables.collect()
}

fn expected<const N: usize>(variables: [(&str, &str); N]) -> BTreeMap<String, String> {
    let key = ("GOFER_EXTENSION_RUN_KEY", DELIVERY);
    let all = variables.into_iter().chain([key]);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Subscribes to an event, sends it, and returns the variables of its one run.
async fn variables_of(event: &str, payload: &Value) -> Result<BTreeMap<String, String>> {
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, event)).await?;
    send(&github, event, DELIVERY, payload.to_string()).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(variables(&core, NIGHTLY))
}

#[tokio::test(start_paused = true)]
async fn each_event_runs_what_is_subscribed_to_it_and_nothing_else() -> Result<()> {
    let (core, github) = core().await?;
    assert_eq!(EVENTS.iter().collect::<HashSet<_>>().len(), EVENTS.len());
    assert!(EVENTS.is_sorted());
    for event in EVENTS {
        let pipeline = format!("default/{event}");
        github.subscribe(&*pipeline, "all", params(REPOSITORY, event)).await?;
        github.subscribe(&*pipeline, "some", params(REPOSITORY, &format!("{event}/did"))).await?;
        github.subscribe(&*pipeline, "others", params("octo-org/other", event)).await?;
    }
    for (sent, event) in EVENTS.into_iter().enumerate() {
        send(&github, event, &format!("a-{sent}"), payload(None).to_string()).await?;
        send(&github, event, &format!("b-{sent}"), payload(Some("did")).to_string()).await?;
        for (other, pipeline) in EVENTS.into_iter().enumerate() {
            let count = if other <= sent { 3 } else { 0 };
            assert_eq!(core.runs(format!("default/{pipeline}")).len(), count, "{pipeline}");
        }
        let runs = core.runs(format!("default/{event}"));
        assert!(runs.iter().all(|run| run.initiator() != "github (others)"));
        let reasons: HashSet<_> = runs.iter().map(|run| run.reason().to_owned()).collect();
        let expected = [
            format!("GitHub: {event} in {REPOSITORY}"),
            format!("GitHub: {event}/did in {REPOSITORY}"),
        ];
        assert_eq!(reasons, HashSet::from(expected));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_push_has_its_variables() -> Result<()> {
    let variables = variables_of("push", &push()).await?;
    let wanted = expected([
        ("EVENT", "push"),
        ("ACTION", ""),
        ("REF", "refs/heads/main"),
        ("REPOSITORY", REPOSITORY),
        ("HEAD_COMMIT_ID", "6dcb09b5b57875f334f61aebed695e2e4193db5e"),
        ("HEAD_COMMIT_AUTHOR_NAME", "Mona Lisa"),
        ("HEAD_COMMIT_AUTHOR_EMAIL", "mona@example.com"),
        ("HEAD_COMMIT_AUTHOR_USERNAME", "octocat"),
        ("HEAD_COMMIT_COMMITTER_NAME", "GitHub"),
        ("HEAD_COMMIT_COMMITTER_EMAIL", "noreply@github.com"),
        ("HEAD_COMMIT_COMMITTER_USERNAME", "web-flow"),
    ]);
    assert_eq!(variables, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_push_that_deletes_a_branch_has_no_head_commit() -> Result<()> {
    let mut push = push();
    push["head_commit"] = Value::Null;
    push["deleted"] = true.into();
    let variables = variables_of("push", &push).await?;
    let wanted = expected([
        ("EVENT", "push"),
        ("ACTION", ""),
        ("REF", "refs/heads/main"),
        ("REPOSITORY", REPOSITORY),
        ("HEAD_COMMIT_ID", ""),
        ("HEAD_COMMIT_AUTHOR_NAME", ""),
        ("HEAD_COMMIT_AUTHOR_EMAIL", ""),
        ("HEAD_COMMIT_AUTHOR_USERNAME", ""),
        ("HEAD_COMMIT_COMMITTER_NAME", ""),
        ("HEAD_COMMIT_COMMITTER_EMAIL", ""),
        ("HEAD_COMMIT_COMMITTER_USERNAME", ""),
    ]);
    assert_eq!(variables, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_pull_request_has_its_variables() -> Result<()> {
    let mut payload = payload(Some("opened"));
    payload["number"] = 7.into();
    payload["pull_request"] = json!({
        "head": { "ref": "tea", "sha": "c0ffee", "repo": { "full_name": "mona/octo-repo" } },
        "base": { "ref": "main", "sha": "deadbeef" },
        "user": { "login": "octocat", "email": "mona@example.com", "name": "Mona Lisa" },
        "body": null,
    });
    let wanted = expected([
        ("EVENT", "pull_request"),
        ("ACTION", "opened"),
        ("REPOSITORY", REPOSITORY),
        ("PULLREQUEST_HEAD_REF", "tea"),
        ("PULLREQUEST_HEAD_SHA", "c0ffee"),
        ("PULLREQUEST_AUTHOR_USERNAME", "octocat"),
        ("PULLREQUEST_AUTHOR_EMAIL", "mona@example.com"),
        ("PULLREQUEST_AUTHOR_NAME", "Mona Lisa"),
    ]);
    assert_eq!(variables_of("pull_request", &payload).await?, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_release_has_its_variables() -> Result<()> {
    let mut payload = payload(Some("published"));
    payload["release"] = json!({
        "tag_name": "v1.2.0",
        "target_commitish": "main",
        "author": { "login": "octocat" },
        "created_at": "2024-05-01T10:00:00Z",
        "published_at": "2024-05-02T10:00:00Z",
        "assets": [{ "name": "kettle.tar.gz" }],
    });
    let wanted = expected([
        ("EVENT", "release"),
        ("ACTION", "published"),
        ("REPOSITORY", REPOSITORY),
        ("RELEASE_TAG_NAME", "v1.2.0"),
        ("RELEASE_TARGET_COMMITISH", "main"),
        ("RELEASE_AUTHOR_LOGIN", "octocat"),
        ("RELEASE_CREATED_AT", "2024-05-01T10:00:00Z"),
        ("RELEASE_PUBLISHED_AT", "2024-05-02T10:00:00Z"),
    ]);
    assert_eq!(variables_of("release", &payload).await?, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_new_tag_has_its_variables_and_so_has_any_other_event() -> Result<()> {
    let mut payload = payload(None);
    payload["ref"] = "v1.2.0".into();
    payload["ref_type"] = "tag".into();
    let wanted = expected([
        ("EVENT", "create"),
        ("REF", "v1.2.0"),
        ("REF_TYPE", "tag"),
        ("REPOSITORY", REPOSITORY),
    ]);
    assert_eq!(variables_of("create", &payload).await?, wanted);
    payload["action"] = "labeled".into();
    let wanted = expected([
        ("EVENT", "issues"),
        ("ACTION", "labeled"),
        ("REPOSITORY", REPOSITORY),
        ("SENDER", "octocat"),
    ]);
    assert_eq!(variables_of("issues", &payload).await?, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_github_has_changed_yields_what_can_still_be_read() -> Result<()> {
    let changed = json!({
        "action": ["opened"],
        "ref": 7,
        "new": { "ref": "no" },
        "repository": { "full_name": REPOSITORY, "head_commit": { "id": "no" } },
        "head_commit": {
            "id": { "sha1": "no" },
            "author": "Mona Lisa",
            "committer": { "name": "a\u{0}b", "email": "x".repeat(5000), "username": false },
        },
        "sender": null,
    });
    let wanted = expected([
        ("EVENT", "push"),
        ("ACTION", ""),
        ("REF", "7"),
        ("REPOSITORY", REPOSITORY),
        ("HEAD_COMMIT_ID", ""),
        ("HEAD_COMMIT_AUTHOR_NAME", ""),
        ("HEAD_COMMIT_AUTHOR_EMAIL", ""),
        ("HEAD_COMMIT_AUTHOR_USERNAME", ""),
        // No environment can hold NUL, and no name is that long.
        ("HEAD_COMMIT_COMMITTER_NAME", "a\u{fffd}b"),
        ("HEAD_COMMIT_COMMITTER_EMAIL", ""),
        ("HEAD_COMMIT_COMMITTER_USERNAME", ""),
    ]);
    assert_eq!(variables_of("push", &changed).await?, wanted);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_repository_runs_nothing_and_is_no_error() -> Result<()> {
    let (core, github) = core().await?;
    for event in ["ping", "organization", "push"] {
        github.subscribe(NIGHTLY, event, params(REPOSITORY, event)).await?;
    }
    for (n, body) in [
        "{}",
        r#"{"zen":"Keep it simple."}"#,
        r#"{"repository":null}"#,
        r#"{"repository":[]}"#,
        r#"{"repository":{"full_name":null}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        for event in ["ping", "organization", "push", "invented_since"] {
            send(&github, event, &format!("{event}-{n}").replace('_', "-"), body).await?;
        }
    }
    assert!(core.runs(NIGHTLY).is_empty());
    // The ping of a repository's webhook.
    send(&github, "ping", DELIVERY, payload(None).to_string()).await?;
    send(&github, "invented_since", "8", payload(None).to_string()).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    assert_eq!(core.runs(NIGHTLY)[0].initiator(), "github (ping)");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_not_signed_with_the_secret_starts_nothing() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, "push")).await?;
    let body = push().to_string();
    let mut short = signature(SECRET, body.as_bytes());
    short.pop();
    for signature in [
        None,
        Some(signature(SECRET, format!("{body} ").as_bytes())),
        Some(signature("hunter3", body.as_bytes())),
        Some(signature("", body.as_bytes())),
        Some(short),
        Some(String::new()),
        Some("sha256=".to_owned()),
    ] {
        let mut headers = vec![
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", DELIVERY),
        ];
        headers.extend(signature.as_deref().map(|it| ("X-Hub-Signature-256", it)));
        let error = github.post(headers, &body).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{signature:?}: {error}");
        assert!(!error.to_string().contains(SECRET), "{error}");
    }
    assert!(core.runs(NIGHTLY).is_empty());
    send(&github, "push", DELIVERY, &body).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_signed_and_malformed_starts_nothing() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, "push")).await?;
    let body = push().to_string();
    let long = "a".repeat(129);
    for (left_out, replaced, expected) in [
        (Some("X-GitHub-Event"), None, "`X-GitHub-Event` is missing"),
        (Some("X-GitHub-Delivery"), None, "`X-GitHub-Delivery` is missing"),
        (Some("Content-Type"), None, "choose the content type `application/json`"),
        (
            None,
            Some(("Content-Type", "application/x-www-form-urlencoded")),
            "choose the content type `application/json`",
        ),
        (None, Some(("Content-Type", "text/plain")), "choose the content type"),
        (None, Some(("X-GitHub-Delivery", "")), "1 to 128 letters"),
        (None, Some(("X-GitHub-Delivery", "gofer-sdk:1")), "1 to 128 letters"),
        (None, Some(("X-GitHub-Delivery", "a\tb")), "1 to 128 letters"),
        (None, Some(("X-GitHub-Delivery", &*long)), "1 to 128 letters"),
    ] {
        let signature = signature(SECRET, body.as_bytes());
        let headers = [
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Delivery", DELIVERY),
            ("X-Hub-Signature-256", &*signature),
        ];
        let headers = headers
            .into_iter()
            .filter(|(name, _)| left_out != Some(*name))
            .map(|it| replaced.filter(|(name, _)| *name == it.0).unwrap_or(it));
        let error = github.post(headers, &body).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let form = format!("payload={body}");
    for body in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"push\"",
        "{}}",
        "{\"ref\":}",
        "{\"repository\":{\"full_name\":\"o/r\"",
        &form,
    ] {
        let error = send(&github, "push", DELIVERY, body).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{body}: {error}");
        assert!(!error.to_string().contains("refs/heads"), "{error}");
    }
    let error = send(&github, "push", DELIVERY, b"{\"action\":\"\xff\"}").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
    assert!(core.runs(NIGHTLY).is_empty());

    // Nested far deeper than what is read.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = body.replacen('{', &format!("{{\"new\":{deep},"), 1);
    send(&github, "push", DELIVERY, &body).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn events_actions_and_repositories_are_compared_without_regard_to_case() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params("Octo-Org/OCTO-repo", "Issues/Opened, REOPENED")).await?;
    let mut payload = payload(Some("opened"));
    send(&github, "ISSUES", "1", payload.to_string()).await?;
    payload["action"] = "Reopened".into();
    payload["repository"]["full_name"] = "octo-ORG/Octo-Repo".into();
    send(&github, "issues", "2", payload.to_string()).await?;
    payload["action"] = "closed".into();
    send(&github, "issues", "3", payload.to_string()).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn one_event_starts_one_run_of_each_subscription() -> Result<()> {
    let (core, github) = core().await?;
    for (pipeline, label, repository) in [
        ("default/one", "a", REPOSITORY),
        ("default/one", "b", REPOSITORY),
        ("default/two", "a", REPOSITORY),
        ("default/three", "a", "octo-org/other"),
    ] {
        github.subscribe(pipeline, label, params(repository, "push")).await?;
    }
    // A second time, as a Gofer that restarts does.
    github.subscribe("default/two", "a", params(REPOSITORY, "push")).await?;
    let count = || ["one", "two", "three"].map(|it| core.runs(format!("default/{it}")).len());
    send(&github, "push", "1", push().to_string()).await?;
    assert_eq!(count(), [2, 1, 0]);
    let mut other = push();
    other["repository"]["full_name"] = "octo-org/other".into();
    send(&github, "push", "2", other.to_string()).await?;
    assert_eq!(count(), [2, 1, 1]);
    github.unsubscribe("default/one", "b").await?;
    send(&github, "push", "3", push().to_string()).await?;
    assert_eq!(count(), [3, 2, 1]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_sent_again_starts_nothing_twice() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe("default/one", "a", params(REPOSITORY, "push")).await?;
    github.subscribe("default/one", "b", params(REPOSITORY, "push")).await?;
    github.subscribe("default/two", "a", params(REPOSITORY, "push")).await?;
    for sent in 0..10 {
        if sent == 5 {
            github.restart().await?;
        }
        send(&github, "push", DELIVERY, push().to_string()).await?;
        assert_eq!(core.runs("default/one").len(), 2);
        assert_eq!(core.runs("default/two").len(), 1);
    }
    // The same push as another delivery is another event.
    send(&github, "push", "another", push().to_string()).await?;
    assert_eq!(core.runs("default/one").len(), 4);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_could_not_start_its_runs_starts_them_when_it_is_sent_again() -> Result<()>
{
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, "push")).await?;
    core.close_api().await;
    let error = send(&github, "push", DELIVERY, push().to_string()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    core.reopen_api().await?;
    send(&github, "push", DELIVERY, push().to_string()).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_restart_starts_nothing_and_an_unsubscribe_takes_no_grace() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe("ops/nightly", "docs", params(REPOSITORY, "push")).await?;
    send(&github, "push", DELIVERY, push().to_string()).await?;
    restarts_and_unsubscribes(&core, &github).await
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_refused_when_a_pipeline_subscribes() -> Result<()> {
    let (core, github) = core().await?;
    let forms = "must be an owner and a name";
    for (repository, filter, setting, expected) in [
        (REPOSITORY, "psh", "event_filter", "did you mean `push`?"),
        (REPOSITORY, "pull-request/opened", "event_filter", "did you mean `pull_request`?"),
        (REPOSITORY, "issue", "event_filter", "did you mean `issues`?"),
        (REPOSITORY, "hunter2hunter2", "event_filter", "no such event; write one such as `push`"),
        (REPOSITORY, "", "event_filter", "no such event"),
        (REPOSITORY, "push,release", "event_filter", "no such event"),
        (REPOSITORY, "issues/", "event_filter", "must name an action"),
        (REPOSITORY, "issues/opened,,closed", "event_filter", "must name an action"),
        (REPOSITORY, "issues/opened,", "event_filter", "must name an action"),
        (REPOSITORY, "issues/a\u{7}b", "event_filter", "control characters"),
        ("hunter2", "push", "repository", forms),
        ("/hunter2", "push", "repository", forms),
        ("hunter2/", "push", "repository", forms),
        ("a/b/hunter2", "push", "repository", forms),
        ("https://github.com/octo-org/hunter2", "push", "repository", forms),
        ("octo-org/hunter2.git", "push", "repository", forms),
        ("octo-org/hunter 2", "push", "repository", forms),
        ("octo-org/..", "push", "repository", forms),
    ] {
        let error = github.subscribe(NIGHTLY, "l", params(repository, filter)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("parameter `{setting}`: ")), "{text}");
        assert!(text.contains(expected) && !text.contains("hunter2"), "{text}");
    }
    let long = format!("issues/{}", "x".repeat(101));
    assert!(github.subscribe(NIGHTLY, "l", params(REPOSITORY, &long)).await.is_err());
    let missing = github.subscribe(NIGHTLY, "l", [("repository", REPOSITORY)]).await.unwrap_err();
    assert!(missing.to_string().contains("parameter `event_filter`: is required"), "{missing}");
    assert!(github.info().await?.registered.is_empty());
    // What a repository_dispatch is called is up to its sender.
    let filter = "repository_dispatch/Brew the tea/now";
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, filter)).await?;
    let event = payload(Some("Brew the tea/now")).to_string();
    send(&github, "repository_dispatch", DELIVERY, event).await?;
    assert_eq!(
        core.runs(NIGHTLY)[0].reason(),
        format!("GitHub: repository_dispatch in {REPOSITORY}")
    );
    core.stop().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_refused_by_the_name_of_the_setting() -> Result<()> {
    let core = Core::in_memory().await?;
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nhunter3\n";
    let broken = STANDARD.encode(pem).replace("LS0", "LS0\n");
    let other = STANDARD.encode("hunter3");
    for (setting, value, expected) in [
        ("app_id", "hunter3", "app_id"),
        ("app_id", "-1", "app_id"),
        ("app_installation", "", "app_installation"),
        ("app_key", pem, "must be a PEM file in base64 without line breaks"),
        ("app_key", &*broken, "must be a PEM file in base64 without line breaks"),
        ("app_key", &*other, "must be a PEM file in base64"),
        ("app_key", "", "must not be empty"),
        ("app_webhook_secret", "", "must not be empty"),
    ] {
        let config =
            config().map(|it| if it.0 == setting { (setting, value.to_owned()) } else { it });
        let error = core.install::<Github>("github", config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("configuration `{setting}`: ")), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter3") && !text.contains(&other), "{text}");
    }
    for (left_out, _) in config() {
        let config = config().into_iter().filter(|(name, _)| *name != left_out);
        let error = core.install::<Github>("github", config).await.unwrap_err();
        let expected = format!("configuration `{left_out}`: is required");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    // As a file of it ends.
    let config = config().map(|(name, value)| match name {
        "app_key" => (name, format!("{value}\n")),
        _ => (name, value),
    });
    core.install::<Github>("github", config).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_conversations_hide_what_is_secret_and_the_documentation_names_all_settings()
-> Result<()> {
    let core = Core::in_memory().await?;
    let answers = config().map(|(_, value)| value);
    let talk = core.converse_with_installer::<Github>(answers).await?;
    assert!(talk.is_complete, "{talk:?}");
    let secret: Vec<_> =
        talk.questions.iter().map(|it| gofer_sdk::internal::is_secret_question(it)).collect();
    assert_eq!(secret, [false, false, true, true], "{:?}", talk.questions);
    let github = core.install::<Github>("github", talk.settings).await?;

    let talk = github.converse_with_configurator([REPOSITORY, "psh", "push"]).await?;
    assert!(talk.messages.iter().any(|it| it.contains("did you mean `push`?")), "{talk:?}");
    github.subscribe(NIGHTLY, "l", talk.settings).await?;
    send(&github, "push", DELIVERY, push().to_string()).await?;
    assert_eq!(core.runs(NIGHTLY).len(), 1);

    let documentation = github.info().await?.documentation;
    for (setting, _) in config() {
        assert!(documentation.contains(&format!("`{setting}`")), "{setting}: {documentation}");
    }
    for setting in ["repository", "event_filter"] {
        assert!(documentation.contains(&format!("`{setting}`")), "{setting}: {documentation}");
    }
    for (name, _) in core.runs(NIGHTLY)[0].variables() {
        let name = name.strip_prefix("GOFER_EXTENSION_GITHUB_").unwrap_or("EVENT");
        assert!(documentation.contains(&format!("`{name}`")), "{name}: {documentation}");
    }
    assert!(!documentation.contains(SECRET));
    Ok(())
}

/// Of this thread so far, on which everything runs, so that other work on the machine counts for
/// nothing. Zero if the system does not say.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The largest payloads that GitHub sends have 25 MB.
#[tokio::test]
async fn a_push_of_20_mb_runs_its_pipeline() -> Result<()> {
    let (core, github) = core().await?;
    github.subscribe(NIGHTLY, "l", params(REPOSITORY, "push")).await?;
    let commit = json!({
        "id": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
        "message": "Boil \"the\" water, für alle",
        "author": { "name": "Mona Lisa", "email": "mona@example.com" },
        "added": ["src/kettle.rs", "src/tea.rs"],
        "distinct": true,
    });
    let mut push = push();
    let length = 20_000_000 / commit.to_string().len();
    push["commits"] = vec![commit; length].into();
    let body = push.to_string();
    assert!(body.len() > 19_000_000);
    let begun = processor_time();
    send(&github, "push", DELIVERY, &body).await?;
    let took = processor_time().saturating_sub(begun);
    println!("a push of {} bytes took {took:?}, signed and sent", body.len());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(core.runs(NIGHTLY).len(), 1);
    Ok(())
}
