//! Settings that refer to secrets, in the configurations of extensions and in subscriptions.

use std::sync::Mutex;

use gofer_core::{Core, Installed};
use gofer_proto::embedded::UpdateExtensionRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::{Error, ErrorKind, Extension, Gofer, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

/// The configurations with which instances were initialized: the test's name, then the secret.
static SEEN: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Tells tests apart.
    test: String,
    /// What senders sign with.
    secret: String,
}

#[derive(Deserialize, JsonSchema)]
struct Params {
    /// What to say.
    #[serde(default)]
    text: String,
}

struct Signed;

impl Extension for Signed {
    type Config = Config;
    type Params = Params;

    async fn init(Config { test, secret }: Config, _: Gofer) -> Result<Self> {
        SEEN.lock().unwrap().push((test, secret));
        Ok(Self)
    }

    fn validate(&self, Params { text }: &Params) -> Result<()> {
        SEEN.lock().unwrap().push(("text".to_owned(), text.clone()));
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }
}

fn seen(test: &str) -> Vec<String> {
    let seen = SEEN.lock().unwrap();
    seen.iter().filter(|(of, _)| of == test).map(|(_, secret)| secret.clone()).collect()
}

async fn install(core: &Core, test: &str, secret: &str) -> Result<Installed> {
    core.install::<Signed>("signed", [("test", test), ("secret", secret)]).await
}

#[track_caller]
fn refused(outcome: Result<Installed>, kind: ErrorKind, expected: &str) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    error
}

#[tokio::test]
async fn a_configuration_refers_to_a_global_secret() {
    const TEST: &str = "configuration";
    let core = Core::in_memory().await.unwrap();
    let error = install(&core, TEST, "global_secret{{ hmac }}").await;
    refused(
        error,
        ErrorKind::FailedPrecondition,
        "`global_secret{{ hmac }}`, which does not exist",
    );
    assert!(seen(TEST).is_empty());
    // For whatever namespaces it is.
    core.client().global_secrets().put("hmac", "hunter1").await.unwrap();
    let signed = install(&core, TEST, " global_secret{{hmac}} ").await.unwrap();
    assert_eq!(seen(TEST), ["hunter1"]);
    // Another value counts from the next start on.
    core.client().global_secrets().replace("hmac", "hunter2").await.unwrap();
    assert_eq!(seen(TEST), ["hunter1"]);
    signed.restart().await.unwrap();
    assert_eq!(seen(TEST), ["hunter1", "hunter2"]);
    // One that is gone keeps the extension from starting, and does not become its value.
    core.client().global_secrets().delete("hmac").await.unwrap();
    let error = signed.restart().await.unwrap_err();
    assert!(error.to_string().contains("create it first"), "{error}");
    assert_eq!(seen(TEST).len(), 2);
    core.stop().await;
}

#[tokio::test]
async fn what_looks_like_a_reference_is_not_used_as_a_value() {
    const TEST: &str = "malformed";
    let core = Core::in_memory().await.unwrap();
    core.client().global_secrets().put("hmac", "hunter1").await.unwrap();
    for value in [
        "globalsecret{{hmac}}",
        "global_secret{{hmac}",
        "secret{{ hmac }}",
        "Global_Secret{{hmac}}",
    ] {
        let error = install(&core, TEST, value).await;
        let error = refused(error, ErrorKind::InvalidParameter, "`secret` looks like a reference");
        assert!(!error.to_string().contains("hmac"), "{error}");
    }
    let error = install(&core, TEST, "pipeline_secret{{ hmac }}").await;
    refused(error, ErrorKind::InvalidParameter, "which belongs to a pipeline");
    assert!(seen(TEST).is_empty());

    let signed = install(&core, TEST, "hunter3").await.unwrap();
    let settings = |text: &str| [("text".to_owned(), text.to_owned())];
    for text in ["global_secret {{ hmac }}", "say secret{{ hmac }}", "{{ hmac }}"] {
        let error = signed.subscribe("nightly", "l", settings(text)).await.unwrap_err();
        assert!(error.to_string().contains("looks like a reference"), "{error}");
        assert!(!error.to_string().contains("hmac"), "{error}");
    }
    assert!(seen("text").is_empty());
    // A template is a value, and so is whatever a secret holds.
    signed.subscribe("nightly", "l", settings("Release {{ tag }} is out")).await.unwrap();
    core.client().pipeline_secrets("nightly").put("text", "{{ tag }}").await.unwrap();
    signed.subscribe("nightly", "l", settings("pipeline_secret{{ text }}")).await.unwrap();
    assert_eq!(seen("text"), ["Release {{ tag }} is out", "{{ tag }}"]);
    core.stop().await;
}

#[tokio::test]
async fn an_update_is_checked_although_the_extension_is_disabled() {
    const TEST: &str = "disabled";
    let core = Core::on_loopback().await.unwrap();
    install(&core, TEST, "hunter1").await.unwrap();
    let name = "signed".to_owned();
    let disable = gofer_proto::DisableExtensionRequest { name: name.clone() };
    core.client().api().disable_extension(disable).await.unwrap();
    let mut embedded = EmbeddedCoreClient::new(core.client().transport());
    let update = |secret: &str| UpdateExtensionRequest {
        name: name.clone(),
        variables: [("secret".to_owned(), secret.to_owned())].into(),
        ..Default::default()
    };
    let status = embedded.update_extension(update("global_secret{{ hmac }}")).await.unwrap_err();
    assert!(status.message().contains("does not exist"), "{status}");
    core.client().global_secrets().put("hmac", "hunter2").await.unwrap();
    embedded.update_extension(update("global_secret{{ hmac }}")).await.unwrap();
    let enable = gofer_proto::EnableExtensionRequest { name };
    core.client().api().enable_extension(enable).await.unwrap();
    assert_eq!(seen(TEST), ["hunter1", "hunter2"]);
    core.stop().await;
}
