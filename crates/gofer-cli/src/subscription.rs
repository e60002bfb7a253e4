//! `gofer subscription`, `gofer extension sub` and `gofer pipeline extend`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::PipelineExtensionSubscription;
use gofer_proto::pipeline_extension_subscription::Status;
use serde_json::{Value, json};
use tonic::Code;

use crate::conversation::{self, ask_until_accepted};
use crate::extension::NOT_INSTALLED;
use crate::failure::Failure;
use crate::output::{Cell, Health, Row, word};
use crate::pairs::settings;
use crate::progress::with_progress;
use crate::session::{Pipeline, Session, with_long_timeout};

#[derive(Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// List the subscriptions of a pipeline.
    #[command(after_help = "Example:\n  gofer subscription list nightly")]
    List {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Show a subscription with its parameters.
    #[command(after_help = "Example:\n  gofer subscription get nightly interval hourly")]
    Get {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Name of the extension.
        extension: String,
        /// Label that distinguishes the pipeline's subscriptions to this extension.
        label: String,
    },
    /// Resume a suspended subscription.
    #[command(after_help = "Example:\n  gofer subscription enable nightly interval hourly")]
    Enable {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Name of the extension.
        extension: String,
        /// Label that distinguishes the pipeline's subscriptions to this extension.
        label: String,
    },
    /// Suspend a subscription.
    #[command(after_help = "Example:\n  gofer subscription disable nightly interval hourly")]
    Disable {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Name of the extension.
        extension: String,
        /// Label that distinguishes the pipeline's subscriptions to this extension.
        label: String,
    },
}

/// The parameters of a subscription.
#[derive(Args)]
pub(crate) struct Parameters {
    /// Parameter of the subscription; can be repeated.
    #[arg(short, long = "setting", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Let the extension ask for the parameters, apart from those that -s sets.
    #[arg(short, long)]
    interactive: bool,
}

/// A request that names a subscription.
macro_rules! named {
    ($Request:ident, $pipeline:expr, $extension:expr, $label:expr) => {
        proto::$Request {
            namespace_id: $pipeline.namespace.clone(),
            pipeline_id: $pipeline.id.clone(),
            extension_name: $extension.into(),
            extension_label: $label.into(),
        }
    };
}

impl SubscriptionCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List { pipeline } => list(session, &session.pipeline(&pipeline)).await,
            Self::Get { pipeline, extension, label } => {
                get(session, &session.pipeline(&pipeline), extension, label).await
            }
            Self::Enable { pipeline, extension, label } => {
                let pipeline = session.pipeline(&pipeline);
                let request =
                    named!(EnablePipelineExtensionSubscriptionRequest, pipeline, extension, label);
                let mut api = session.api();
                api.enable_pipeline_extension_subscription(with_long_timeout(request))
                    .await
                    .map_err(not_found)?;
                changed(session, true).await
            }
            Self::Disable { pipeline, extension, label } => {
                let pipeline = session.pipeline(&pipeline);
                let request =
                    named!(DisablePipelineExtensionSubscriptionRequest, pipeline, extension, label);
                let mut api = session.api();
                api.disable_pipeline_extension_subscription(with_long_timeout(request))
                    .await
                    .map_err(not_found)?;
                changed(session, false).await
            }
        }
    }
}

/// A full Gofer only marks a subscription; an embedded core tells the extension.
async fn changed(session: &Session, is_enabled: bool) -> Result<(), Failure> {
    let word = if is_enabled { "enabled" } else { "disabled" };
    let sentence = match (is_enabled, session.is_full_gofer().await) {
        (true, false) => "Enabled the subscription.".to_owned(),
        (false, false) => "Disabled the subscription.".to_owned(),
        (_, true) => format!(
            "Marked the subscription as {word}. The extension may not know before Gofer is restarted."
        ),
    };
    Ok(session.out.done(&sentence, &json!({ "enabled": is_enabled }))?)
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(
        Code::NotFound,
        "`gofer subscription list <pipeline>` shows a pipeline's subscriptions",
    )
}

pub(crate) async fn create(
    session: &Session,
    pipeline: &Pipeline,
    extension: &str,
    label: &str,
    parameters: Parameters,
) -> Result<(), Failure> {
    let form = "-s, --setting KEY=VALUE";
    let stdin_is = parameters.interactive.then_some("the answers of -i");
    let given = settings(&parameters.settings, form, str::eq_ignore_ascii_case, stdin_is)?;
    let outcome = ask_until_accepted(
        parameters.interactive,
        &given,
        async |interview| {
            conversation::subscribe(session, extension, interview)
                .await
                .map_err(|failure| failure.hint_on(Code::NotFound, NOT_INSTALLED))
        },
        async |settings| {
            let request = proto::CreatePipelineExtensionSubscriptionRequest {
                namespace_id: pipeline.namespace.clone(),
                pipeline_id: pipeline.id.clone(),
                extension_name: extension.to_owned(),
                extension_label: label.to_owned(),
                settings,
            };
            let request = with_long_timeout(request);
            let mut api = session.api();
            let call = api.create_pipeline_extension_subscription(request);
            let doing = format!("subscribing {pipeline} to {extension}");
            Ok(with_progress(session, extension, &doing, call).await)
        },
    );
    let namespace = &pipeline.namespace;
    outcome.await?.map_err(|status| {
        Failure::from(status)
            .hint_if(|it| it.starts_with("no extension named"), NOT_INSTALLED)
            .hint_on(
                Code::NotFound,
                "`gofer pipeline list` shows the pipelines of a namespace, and `gofer pipeline \
                 create` creates one",
            )
            .hint_if(
                |it| it.starts_with("the extension") && it.contains("is disabled"),
                format!("`gofer extension enable {extension}` starts it again"),
            )
            .hint_if(
                |it| it.contains("is not for the namespace"),
                format!(
                    "`gofer extension update {extension} --for {namespace}` makes it one for that \
                     namespace; repeat --for to keep others"
                ),
            )
            .hint_if(
                |it| it.contains("not available to this namespace"),
                format!(
                    "`gofer secret put <key> --global --for {namespace}` stores one for that \
                     namespace; --force replaces an existing one"
                ),
            )
            .hint_on(
                Code::InvalidArgument,
                format!("`gofer extension get {extension}` shows its parameters; -i asks for them"),
            )
    })?;
    let sentence = format!("Subscribed {pipeline} to {extension} ({label}).");
    let json = json!({
        "namespace": pipeline.namespace,
        "pipeline": pipeline.id,
        "extension": extension,
        "label": label,
    });
    Ok(session.out.done(&sentence, &json)?)
}

pub(crate) async fn delete(
    session: &Session,
    pipeline: &Pipeline,
    extension: &str,
    label: &str,
) -> Result<(), Failure> {
    let request = named!(DeletePipelineExtensionSubscriptionRequest, pipeline, extension, label);
    let mut api = session.api();
    api.delete_pipeline_extension_subscription(with_long_timeout(request))
        .await
        .map_err(not_found)?;
    let sentence = format!("Unsubscribed {pipeline} from {extension} ({label}).");
    Ok(session.out.done(&sentence, &json!({ "deleted": true }))?)
}

async fn list(session: &Session, pipeline: &Pipeline) -> Result<(), Failure> {
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        namespace_id: pipeline.namespace.clone(),
        pipeline_id: pipeline.id.clone(),
    };
    let answer = session.api().list_pipeline_extension_subscriptions(request).await;
    let answer = answer.map_err(|status| {
        Failure::from(status).hint_on(Code::NotFound, "`gofer pipeline list` shows the pipelines")
    })?;
    let nothing = format!("{pipeline} has no subscriptions; `gofer extension sub` creates one.");
    Ok(session.out.list(&answer.into_inner().subscriptions, &nothing)?)
}

async fn get(
    session: &Session,
    pipeline: &Pipeline,
    extension: String,
    label: String,
) -> Result<(), Failure> {
    let request = named!(GetPipelineExtensionSubscriptionRequest, pipeline, extension, label);
    let answer = session.api().get_pipeline_extension_subscription(request).await;
    let subscription = answer.map_err(not_found)?.into_inner().subscription.unwrap_or_default();
    let mut lines = vec![
        ("pipeline", format!("{}/{}", subscription.namespace, subscription.pipeline).into()),
        ("extension", subscription.name.clone().into()),
        ("label", subscription.label.clone().into()),
        ("status", status(&subscription)),
        ("reason", reason(&subscription).into()),
    ];
    // As given: a reference to a secret does not show the secret.
    for (key, value) in sorted(&subscription) {
        lines.push(("setting", format!("{key} = {value}").into()));
    }
    Ok(session.out.details(lines, &subscription.json())?)
}

impl Row for PipelineExtensionSubscription {
    const HEADER: &'static [&'static str] = &["EXTENSION", "LABEL", "STATUS", "REASON"];

    fn cells(&self) -> Vec<Cell> {
        vec![self.name.clone().into(), self.label.clone().into(), status(self), reason(self).into()]
    }

    fn json(&self) -> Value {
        json!({
            "namespace": self.namespace,
            "pipeline": self.pipeline,
            "extension": self.name,
            "label": self.label,
            "settings": sorted(self),
            "status": word(self.status().as_str_name()),
            "reason": reason(self),
        })
    }
}

fn sorted(subscription: &PipelineExtensionSubscription) -> BTreeMap<&String, &String> {
    subscription.settings.iter().collect()
}

fn reason(subscription: &PipelineExtensionSubscription) -> &str {
    subscription.status_reason.as_ref().map_or("", |reason| &reason.description)
}

fn status(subscription: &PipelineExtensionSubscription) -> Cell {
    let health = match subscription.status() {
        Status::Active => Health::Good,
        Status::Disabled => Health::Off,
        Status::Error | Status::Unknown => Health::Bad,
    };
    Cell::health(word(subscription.status().as_str_name()), health)
}
