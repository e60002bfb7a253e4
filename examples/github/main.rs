//! The github extension: runs a pipeline when GitHub sends a webhook.
//!
//! `cargo run --example github -- --send push` shows it at work on an embedded core; started by
//! Gofer, it is the extension itself. Without `--send`, it waits for webhooks on a port of loopback
//! and shows how to send one.
//!
//! - [`github`] is the extension: what it is configured with, what a pipeline subscribes with, and
//!   what it does for an event. [`events`](github::events) is what is known of GitHub's events.
//! - This file is the program: which extension, on which runtime, with which examples of webhooks.
//! - `image.rs` and Cargo.toml beside it are for an image: the same extension without the demo, and
//!   so without the core.

mod github;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use github::Github;
use gofer_core::{Demo, DemoError, run_or_demo};
use ring::hmac;

const SECRET: &str = "It's a Secret to Everybody";

const PUSH: &str = r#"{
  "ref": "refs/heads/main",
  "repository": { "full_name": "octo-org/octo-repo" },
  "head_commit": {
    "id": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "author": { "name": "Mona Lisa", "email": "mona@example.com", "username": "octocat" },
    "committer": { "name": "GitHub", "email": "noreply@github.com", "username": "web-flow" }
  },
  "sender": { "login": "octocat" }
}"#;

const RELEASE: &str = r#"{
  "action": "published",
  "repository": { "full_name": "octo-org/octo-repo" },
  "release": { "tag_name": "v1.2.0", "author": { "login": "octocat" } },
  "sender": { "login": "octocat" }
}"#;

/// The headers that GitHub sends with an event.
fn headers(event: &str, delivery: &str, body: &str) -> [(&'static str, String); 4] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, body.as_bytes());
    [
        ("Content-Type", "application/json".to_owned()),
        ("X-GitHub-Event", event.to_owned()),
        ("X-GitHub-Delivery", delivery.to_owned()),
        ("X-Hub-Signature-256", format!("sha256={}", hex::encode(signature))),
    ]
}

// An extension mostly waits: one thread responds faster and needs less memory than several.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DemoError> {
    let push = headers("push", "72d3162e-cc78-11e3-81ab-4c9367dc0958", PUSH);
    let release = headers("release", "8aa2bb6c-cc78-11e3-9e4c-4c9367dc0958", RELEASE);
    let demo = Demo::new("github")
        .config("app_id", "1")
        .config("app_installation", "1")
        // Not a key, but it looks like one; nothing needs it.
        .config("app_key", STANDARD.encode("-----BEGIN RSA PRIVATE KEY-----\n"))
        .config("app_webhook_secret", SECRET)
        .param("repository", "octo-org/octo-repo")
        .param("event_filter", "push")
        .webhook("push", push, PUSH)
        .webhook("release", release, RELEASE);
    run_or_demo::<Github>(demo).await
}
