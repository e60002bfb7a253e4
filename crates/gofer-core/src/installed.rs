//! An extension that is installed in a core, as tests and embedders use it.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::complete;
use super::conversations::{Conversation, Reply};
use super::core::{Core, pairs, timed, timed_for_pull};
use super::grants::InstallOptions;
use super::state::ExtensionStatus;
use super::store::{RESET, not_installed};
use gofer_net::BoxFuture;
use gofer_proto as proto;
use gofer_proto::embedded::UpdateExtensionRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_sdk::internal::{error, transport};
use gofer_sdk::{PipelineId, Result};

/// What an extension reports about itself; see [`Installed::info`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtensionInfo {
    /// The name that it is installed under.
    pub name: String,
    /// Its documentation, in Markdown.
    pub documentation: String,
    /// The `namespace/pipeline` of each subscription.
    pub registered: Vec<String>,
}

/// An extension that is installed in a [`Core`]. A cheap clone.
///
/// ```
/// use gofer_core::{Core, ExtensionState, minutes};
/// # use gofer_sdk::ErrorKind;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<()> {
/// let core = Core::in_memory().await?;
/// let interval = core.install::<Interval>("interval", [("min_interval", "30s")]).await?;
/// let status = interval.wait_for(|status| status.state == ExtensionState::Running).await;
/// assert_eq!(status.restarts, 0);
///
/// let conversation = interval.converse_with_configurator(["5m"]).await?;
/// interval.subscribe("default/nightly", "often", conversation.settings).await?;
/// assert_eq!(interval.info().await?.registered, ["default/nightly"]);
/// interval.update([("min_interval", "1m")]).await?;
/// core.elapse(minutes(10)).await;
/// assert_eq!(core.runs("default/nightly").len(), 2);
///
/// let unhandled = interval.external_event("POST / HTTP/1.1\r\n\r\n").await.unwrap_err();
/// assert_eq!(unhandled.kind(), ErrorKind::Unimplemented);
///
/// interval.unsubscribe("default/nightly", "often").await?;
/// interval.uninstall().await?;
/// assert_eq!(interval.status().unwrap_err().kind(), ErrorKind::NotFound);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Installed {
    core: Core,
    name: String,
}

impl Installed {
    pub(super) fn new(core: Core, name: String) -> Self {
        Self { core, name }
    }

    /// Subscribes a pipeline under a label. The pipeline is created if it does not exist.
    ///
    /// If the future is dropped, the pipeline may have been created, and the subscription is
    /// completed or has not begun.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) with the extension's message if
    /// it refuses the parameters.
    pub async fn subscribe(
        &self,
        pipeline: impl Into<PipelineId>,
        label: &str,
        params: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<()> {
        self.subscribe_pipeline(pipeline.into(), label.to_owned(), pairs(params)).await
    }

    fn subscribe_pipeline(
        &self,
        pipeline: PipelineId,
        label: String,
        params: HashMap<String, String>,
    ) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let store = &self.core.inner.store;
            store
                .ensure_pipeline(pipeline.namespace(), pipeline.pipeline())
                .map_err(|status| error(&status))?;
            let request = proto::CreatePipelineExtensionSubscriptionRequest {
                namespace_id: pipeline.namespace().to_owned(),
                pipeline_id: pipeline.pipeline().to_owned(),
                extension_name: self.name.clone(),
                extension_label: label,
                settings: params,
            };
            let mut api = self.core.api();
            let outcome = api.create_pipeline_extension_subscription(timed(request)).await;
            outcome.map(drop).map_err(|status| error(&status))
        })
    }

    /// Ends a subscription; returns once it has ended.
    ///
    /// If the future is dropped, the end is completed or has not begun.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) if there is none.
    pub async fn unsubscribe(&self, pipeline: impl Into<PipelineId>, label: &str) -> Result<()> {
        let pipeline = pipeline.into();
        let request = proto::DeletePipelineExtensionSubscriptionRequest {
            namespace_id: pipeline.namespace().to_owned(),
            pipeline_id: pipeline.pipeline().to_owned(),
            extension_name: self.name.clone(),
            extension_label: label.to_owned(),
        };
        let mut api = self.core.api();
        let outcome = api.delete_pipeline_extension_subscription(timed(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// Asks the extension for its documentation and subscriptions.
    ///
    /// If the future is dropped, nothing has changed.
    ///
    /// # Errors
    ///
    /// If it does not answer.
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

    /// Sends the extension an external event: a raw HTTP/1.1 request.
    ///
    /// If the future is dropped,
    /// [`Extension::external_event`](gofer_sdk::Extension::external_event) goes on, unless it has not
    /// begun.
    ///
    /// # Errors
    ///
    /// If the extension refuses it or fails, and
    /// [`Unavailable`](gofer_sdk::ErrorKind::Unavailable) if it does not have all of its subscriptions
    /// yet.
    pub async fn external_event(&self, request: impl Into<bytes::Bytes>) -> Result<()> {
        let outcome = self.core.inner.extensions.external_event(&self.name, request.into()).await;
        outcome.map_err(|status| error(&status))
    }

    /// Sends the extension a webhook, as the listener for external events would: `POST
    /// /external/<extension>` with these headers and this body.
    ///
    /// ```
    /// use gofer_core::{Core, NO_SETTINGS};
    /// use gofer_sdk::{
    ///     ErrorKind, Extension, ExternalEvent, Gofer, NoConfig, NoParams, Result, Run, Subscriptions,
    /// };
    ///
    /// struct Inbox;
    ///
    /// impl Extension for Inbox {
    ///     type Config = NoConfig;
    ///     type Params = NoParams;
    ///
    ///     async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
    ///         Ok(Self)
    ///     }
    ///
    ///     async fn external_event(
    ///         &self,
    ///         event: ExternalEvent,
    ///         subscriptions: Subscriptions<NoParams>,
    ///     ) -> Result<()> {
    ///         let text = std::str::from_utf8(event.body())?;
    ///         let run = || Run::because("a message").variable("TEXT", text);
    ///         subscriptions.start_runs(|_| Some(run())).await.map(drop)
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// let gofer = Core::in_memory().await?;
    /// let inbox = gofer.install::<Inbox>("inbox", NO_SETTINGS).await?;
    /// inbox.subscribe("ops/alert", "mail", NO_SETTINGS).await?;
    /// inbox.post([("Content-Type", "text/plain")], "disk full").await?;
    /// let runs = gofer.wait_for_runs("ops/alert", 1).await?;
    /// assert_eq!(runs[0].variable("TEXT"), Some("disk full"));
    /// assert_eq!(inbox.post([], [0xff]).await.unwrap_err().kind(), ErrorKind::Internal);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`external_event`](Self::external_event).
    pub async fn post<'a>(
        &self,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: impl AsRef<[u8]>,
    ) -> Result<()> {
        let body = body.as_ref();
        let path = self.name.bytes().map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        });
        let path = path.collect::<String>();
        let headers = headers.into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers = headers.collect::<String>();
        let request = format!(
            "POST /external/{path} HTTP/1.1\r\nHost: localhost\r\n{headers}\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.external_event([request.as_bytes(), body].concat()).await
    }

    /// Holds a configurator conversation with the extension: gives the answers in order and ends
    /// the conversation after the last.
    ///
    /// If the future is dropped, the conversation ends.
    ///
    /// # Errors
    ///
    /// The error that the conversation ends with.
    pub async fn converse_with_configurator(
        &self,
        answers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Conversation> {
        use proto::run_pipeline_configurator_client_message::{Init, MessageType};
        use proto::run_pipeline_configurator_extension_message::MessageType as Sent;
        let messages = std::iter::once(MessageType::Init(Init { name: self.name.clone() }))
            .chain(answers.into_iter().map(|answer| MessageType::Msg(answer.into())))
            .map(|it| proto::RunPipelineConfiguratorClientMessage { message_type: Some(it) })
            .collect::<Vec<_>>();
        let stream = tonic::codegen::tokio_stream::iter(messages);
        let response = self.core.api().run_pipeline_configurator(stream).await;
        let messages = response.map_err(|status| error(&status))?.into_inner();
        Conversation::collect(messages, |message| {
            Some(match message.message_type? {
                Sent::Msg(text) => Reply::Message(text),
                Sent::Query(text) => Reply::Question(text),
                Sent::ParamSetting(it) => Reply::Setting(it.param, it.value),
            })
        })
        .await
    }

    /// Stops the extension, launches it anew and restores its subscriptions, as when Gofer
    /// restarts.
    ///
    /// If the future is dropped, the restart is completed or has not begun.
    ///
    /// # Errors
    ///
    /// If it does not become ready again.
    pub async fn restart(&self) -> Result<()> {
        let (extensions, name) = (Arc::clone(&self.core.inner.extensions), self.name.clone());
        let outcome = complete(async move { extensions.restart(&name).await }).await;
        outcome.map_err(|status| error(&status))
    }

    /// Stops the extension and removes it and its subscriptions.
    ///
    /// If the future is dropped, the removal is completed or has not begun.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) if it is not installed any more.
    pub async fn uninstall(&self) -> Result<()> {
        let request = proto::UninstallExtensionRequest { name: self.name.clone() };
        let outcome = self.core.api().uninstall_extension(timed(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// Its current status.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) if it was uninstalled.
    pub fn status(&self) -> Result<ExtensionStatus> {
        let status = self.core.inner.extensions.status(&self.name);
        status.ok_or_else(|| error(&not_installed(&self.name)))
    }

    /// Waits until its status fulfils the condition, and returns that status.
    ///
    /// If the future is dropped, nothing has changed.
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
                // Unreachable: `self` keeps the core and so the sender alive.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Updates the configuration: sets the given keys and leaves all others as they are. The
    /// extension is replaced by a new instance with the same subscriptions. The old one takes calls
    /// until the new one is ready, and stays if the new one does not become ready.
    ///
    /// If the future is dropped, the update is completed or has not begun.
    ///
    /// # Errors
    ///
    /// The reason why the new one does not become ready.
    pub async fn update(
        &self,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<()> {
        let variables = pairs(config);
        self.change(UpdateExtensionRequest { variables, ..Default::default() }).await
    }

    /// Replaces its [options](InstallOptions), as [`update`](Self::update) does the configuration:
    /// those that are not given get their defaults. A subscription of a namespace that may no
    /// longer use it is marked as refused.
    ///
    /// If the future is dropped, the update is completed or has not begun.
    ///
    /// What the new options do not allow is taken back at once, from the old instance too, and also
    /// if the new one does not become ready. What they allow in addition begins with the new one.
    ///
    /// # Errors
    ///
    /// The reason why the new instance does not become ready;
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) if an option cannot be used.
    pub async fn set_options(&self, InstallOptions(options): InstallOptions) -> Result<()> {
        let reset_options = RESET.map(|(name, _)| name.to_owned()).into();
        let options = Some(options);
        self.change(UpdateExtensionRequest { options, reset_options, ..Default::default() }).await
    }

    /// As [`set_options`](Self::set_options), but keeps those that are not given.
    ///
    /// If the future is dropped, the update is completed or has not begun.
    ///
    /// # Errors
    ///
    /// As for [`set_options`](Self::set_options).
    pub async fn update_options(&self, InstallOptions(options): InstallOptions) -> Result<()> {
        self.change(UpdateExtensionRequest { options: Some(options), ..Default::default() }).await
    }

    async fn change(&self, change: UpdateExtensionRequest) -> Result<()> {
        let request = UpdateExtensionRequest { name: self.name.clone(), ..change };
        let mut embedded = EmbeddedCoreClient::new(transport(&self.core.inner.client));
        let outcome = embedded.update_extension(timed_for_pull(request)).await;
        outcome.map(drop).map_err(|status| error(&status))
    }

    /// The name that it is installed under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ID of its process, if it has its own.
    pub fn process_id(&self) -> Option<u32> {
        self.core.inner.extensions.process_id(&self.name)
    }
}
