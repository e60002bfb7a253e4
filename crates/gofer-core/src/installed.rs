//! An extension that is installed in a core, as a test works with it.

use super::conversations::{Conversation, Heard};
use super::core::{Core, pairs, timed, timed_for_pull};
use super::state::ExtensionStatus;
use gofer_proto as proto;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::PipelineId;
use gofer_sdk::internal::error;
use gofer_sdk::{Error, ErrorKind, Result};

/// What an extension tells of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtensionInfo {
    /// The name that it is installed under.
    pub name: String,
    /// Its documentation, in Markdown.
    pub documentation: String,
    /// One `namespace/pipeline` for each subscription.
    pub registered: Vec<String>,
}

/// An extension that is installed in a [`Core`].
#[derive(Clone, Debug)]
pub struct Installed {
    core: Core,
    name: String,
}

impl Installed {
    pub(super) fn new(core: Core, name: String) -> Self {
        Self { core, name }
    }

    /// Subscribes a pipeline under a label, with these parameters. The pipeline
    /// is made where there is none of its name.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) with the
    /// extension's own sentence where it refuses the parameters.
    pub async fn subscribe(
        &self,
        pipeline: impl Into<PipelineId>,
        label: &str,
        params: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<()> {
        let pipeline = pipeline.into();
        let store = &self.core.inner.store;
        store
            .ensure_pipeline(pipeline.namespace(), pipeline.pipeline())
            .map_err(|status| error(&status))?;
        let request = proto::CreatePipelineExtensionSubscriptionRequest {
            namespace_id: pipeline.namespace().to_owned(),
            pipeline_id: pipeline.pipeline().to_owned(),
            extension_name: self.name.clone(),
            extension_label: label.to_owned(),
            settings: pairs(params).into_iter().collect(),
        };
        let mut api = self.core.inner.client.api();
        let outcome = api.create_pipeline_extension_subscription(timed(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// Ends a subscription; returns once it has ended.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) where there is none.
    pub async fn unsubscribe(&self, pipeline: impl Into<PipelineId>, label: &str) -> Result<()> {
        let pipeline = pipeline.into();
        let request = proto::DeletePipelineExtensionSubscriptionRequest {
            namespace_id: pipeline.namespace().to_owned(),
            pipeline_id: pipeline.pipeline().to_owned(),
            extension_name: self.name.clone(),
            extension_label: label.to_owned(),
        };
        let mut api = self.core.inner.client.api();
        let outcome = api.delete_pipeline_extension_subscription(timed(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// What the extension tells of itself now.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub async fn info(&self) -> Result<ExtensionInfo> {
        let client = self.core.inner.extensions.running_client(&self.name);
        let mut client = client.map_err(|status| error(&status))?;
        let info = client.info(proto::ExtensionInfoRequest {}).await;
        let info = info.map_err(|status| error(&status))?.into_inner();
        Ok(ExtensionInfo {
            name: info.name,
            documentation: info.documentation,
            registered: info.registered,
        })
    }

    /// Sends the extension an HTTP request from outside, as raw HTTP/1.1.
    ///
    /// # Errors
    ///
    /// Where the extension refuses it or fails.
    pub async fn external_event(&self, request: impl Into<bytes::Bytes>) -> Result<()> {
        let outcome = self.core.inner.extensions.external_event(&self.name, request.into()).await;
        outcome.map_err(|status| error(&status))
    }

    /// Talks with the extension about a subscription, giving the answers one
    /// after the other and hanging up after the last.
    ///
    /// # Errors
    ///
    /// What the conversation ends with.
    pub async fn converse_with_configurator(
        &self,
        answers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Conversation> {
        use proto::run_pipeline_configurator_client_message::{Init, MessageType};
        use proto::run_pipeline_configurator_extension_message::MessageType as Said;
        let messages = std::iter::once(MessageType::Init(Init { name: self.name.clone() }))
            .chain(answers.into_iter().map(|answer| MessageType::Msg(answer.into())))
            .map(|it| proto::RunPipelineConfiguratorClientMessage { message_type: Some(it) })
            .collect::<Vec<_>>();
        let stream = tonic::codegen::tokio_stream::iter(messages);
        let response = self.core.inner.client.api().run_pipeline_configurator(stream).await;
        let messages = response.map_err(|status| error(&status))?.into_inner();
        Conversation::hear(messages, |message| {
            Some(match message.message_type? {
                Said::Msg(text) => Heard::Said(text),
                Said::Query(text) => Heard::Asked(text),
                Said::ParamSetting(it) => Heard::Set(it.param, it.value),
            })
        })
        .await
    }

    /// Stops the extension, starts it afresh and restores its subscriptions, as
    /// when Gofer restarts.
    ///
    /// # Errors
    ///
    /// Where it does not come up again.
    pub async fn restart(&self) -> Result<()> {
        let outcome = self.core.inner.extensions.restart(&self.name).await;
        outcome.map_err(|status| error(&status))
    }

    /// Stops the extension and forgets it and its subscriptions.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) where it already is.
    pub async fn uninstall(&self) -> Result<()> {
        let request = proto::UninstallExtensionRequest { name: self.name.clone() };
        let outcome = self.core.inner.client.api().uninstall_extension(timed(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// How it fares.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) where it was uninstalled.
    pub fn status(&self) -> Result<ExtensionStatus> {
        self.core.inner.extensions.status(&self.name).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no extension named `{}` is installed", self.name),
            )
        })
    }

    /// Waits until it fares so, and gives how it fares then. Never returns where
    /// it never does.
    pub async fn wait_for(
        &self,
        mut condition: impl FnMut(&ExtensionStatus) -> bool,
    ) -> ExtensionStatus {
        let mut changes = self.core.inner.extensions.changes();
        loop {
            if let Ok(status) = self.status()
                && condition(&status)
            {
                return status;
            }
            if changes.changed().await.is_err() {
                // The sender lives as long as the core, which this holds.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Puts another configuration in the place of the present one, or another
    /// program: keys that are given here are set, all others stay as they are.
    /// Subscriptions are kept; the old extension serves until the new one is
    /// ready, and goes on where the new one does not come up.
    ///
    /// # Errors
    ///
    /// What keeps the new one from coming up.
    pub async fn update(
        &self,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<()> {
        let request = proto::embedded::UpdateExtensionRequest {
            name: self.name.clone(),
            variables: pairs(config).into_iter().collect(),
            ..Default::default()
        };
        let mut embedded = EmbeddedCoreClient::new(self.core.inner.client.transport());
        let outcome = embedded.update_extension(timed_for_pull(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// The name that it is installed under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its process, where it has one of its own.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.core.inner.extensions.process_id(&self.name)
    }
}
