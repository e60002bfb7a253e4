//! The client for Gofer's API.
//!
//! [`Gofer`] is cheap to clone and uses one HTTP/2 connection. The calls that extensions make are
//! methods here; all others are reached through `Gofer::api`. Whether a failed call is retried
//! depends on what is known of its effect (see `gofer_net::effect`); starting runs for
//! subscriptions has rules of its own (see `extension::start`).

#![allow(clippy::missing_errors_doc, reason = "errors of every call are documented at `Gofer`")]

mod address;
mod builder;
mod status;
mod store;
mod types;

pub use address::{GoferAddress, InvalidAddress};
pub use builder::GoferBuilder;
pub use store::{Events, Objects, Secrets};
pub use types::{Event, PipelineId, Run, RunInfo, RunState, RunStatus, run_info};

pub(crate) use builder::authorization;
pub use status::error;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gofer_net::tls::Trust;
use gofer_net::{Backoff, Channel, Clock, Connector, Dial, MAX_RESPONSE_BYTES, Transport, effect};
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use http::HeaderValue;
use http::uri::Authority;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Response, Status};

use crate::error::Result;

/// How long a call may take by default, attempts and pauses included. Long enough for a busy Gofer,
/// short enough that an extension notices one that hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pauses between attempts of one call: the first about as long as a process takes to restart, the
/// last so long that attempts cost next to nothing.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// A client for Gofer's API.
///
/// Cheap to clone; all clones share one connection, which is opened at the first call and again
/// after it was lost. Every call has a deadline of 10 s. Within it, a call that was not sent, or
/// that was answered with `UNAVAILABLE`, is retried. (A proxy that loses Gofer during a call also
/// answers `UNAVAILABLE`; such a call may take effect twice.)
///
/// # Errors
///
/// Every call can fail with [`Unavailable`](crate::ErrorKind::Unavailable) if Gofer cannot be
/// reached or the connection is lost, [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) if
/// no response arrives in time, or with the error that Gofer returns, such as
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
///
/// ```
/// use gofer_sdk::Run;
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(); let gofer = core.client();
/// let run = gofer.start_run("ops/nightly", "hourly", Run::because("an hour passed")).await?;
/// assert_eq!((run.id(), run.reason()), (1, "an hour passed"));
/// assert_eq!(gofer.run("ops/nightly", 1).await?.pipeline().pipeline(), "nightly");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Gofer {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    /// The name under which runs are started; of an extension, that under which it is installed.
    name: String,
    is_extension: bool,
    clock: Clock,
}

/// How to reach Gofer, and how calls identify themselves.
pub struct ClientOptions {
    /// Where to connect to.
    pub dial: Dial,
    /// The `:authority` of each call.
    pub authority: Authority,
    /// The name that the certificate must be valid for.
    pub server_name: ServerName<'static>,
    /// Which certificates are trusted.
    pub trust: Trust,
    /// `Bearer <key>`.
    pub authorization: Option<HeaderValue>,
    /// The name under which runs are started.
    pub name: String,
    /// Whether it is an extension's.
    pub is_extension: bool,
    /// The clock that run times are compared with.
    pub clock: Clock,
}

/// A client with options that the builder does not have.
pub fn new_client(options: ClientOptions) -> Gofer {
    Gofer::new(options)
}

/// Carries the calls of generated clients, with the connection, token and deadline of a client.
pub fn transport(gofer: &Gofer) -> Transport {
    gofer.inner.transport.clone()
}

/// Ends the connection and every task of a client.
pub async fn close_client(gofer: &Gofer) {
    gofer.close().await;
}

impl Gofer {
    /// A client for a program that is not an extension; an extension gets its client in
    /// [`init`](crate::Extension::init). `address` is `host[:port]`, by default with port 443.
    ///
    /// ```
    /// use gofer_sdk::Gofer;
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// # let core = gofer_core::Core::on_loopback().await?;
    /// # struct Idle;
    /// # impl gofer_sdk::Extension for Idle {
    /// #     type Config = gofer_sdk::NoConfig;
    /// #     type Params = gofer_sdk::NoParams;
    /// #     async fn init(_: gofer_sdk::NoConfig, _: Gofer) -> gofer_sdk::Result<Self> { Ok(Self) }
    /// # }
    /// # let idle = core.install::<Idle>("idle", gofer_core::NO_SETTINGS).await?;
    /// # idle.subscribe("ops/nightly", "docs", gofer_core::NO_SETTINGS).await?;
    /// # let (address, token) = (core.address().unwrap().to_string(), core.token());
    /// # core.client().start_run("ops/nightly", "docs", gofer_sdk::Run::because("of it")).await?;
    /// let gofer = Gofer::builder(address) // such as gofer.example.com:8080
    ///     .token(token)
    ///     .ca_certificate(core.certificate()) // unless the system trusts it
    ///     .build()?;
    /// for run in gofer.runs("ops/nightly", 10).await? {
    ///     println!("{} {:?}", run.id(), run.status());
    /// }
    /// # assert_eq!(gofer.runs("ops/nightly", 10).await?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn builder(address: impl Into<String>) -> GoferBuilder {
        GoferBuilder::new(address.into())
    }

    fn new(options: ClientOptions) -> Self {
        let ClientOptions { dial, authority, server_name, trust, authorization, .. } = options;
        let (name, is_extension, clock) = (options.name, options.is_extension, options.clock);
        let channel = Channel::new(Connector::new(dial, server_name, trust), clock);
        let transport = Transport::new(channel, authorization, authority, DEADLINE);
        Self { inner: Arc::new(Inner { transport, name, is_extension, clock }) }
    }

    /// Gofer's whole API, as generated from the contract, over the same connection, with the same
    /// token and default deadline. It may change in any release; see [`api`](crate::api).
    ///
    /// Nothing is retried; a call that could not be sent, because there is no connection, fails
    /// with `UNAVAILABLE`. To use another deadline, set it on the request:
    ///
    /// ```
    /// use gofer_sdk::api::{GetSystemInfoRequest, tonic};
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (core, ..) = documented!(); let gofer = core.client();
    /// let mut request = tonic::Request::new(GetSystemInfoRequest {});
    /// request.set_timeout(std::time::Duration::from_secs(2));
    /// let info = gofer.api().get_system_info(request).await?.into_inner();
    /// assert!(!info.semver.is_empty());
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "api")]
    #[cfg_attr(docsrs, doc(cfg(feature = "api")))]
    pub fn api(&self) -> GoferClient<crate::api::Transport> {
        GoferClient::new(self.transport()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    pub(crate) fn raw(&self) -> GoferClient<Transport> {
        GoferClient::new(self.inner.transport.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    /// The transport of [`api`](Self::api)'s calls, for the generated client of another service at
    /// the same address.
    ///
    /// ```
    /// use gofer_sdk::api::GetSystemInfoRequest;
    /// use gofer_sdk::api::gofer_client::GoferClient;
    ///
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (core, ..) = documented!(); let gofer = core.client();
    /// let mut small = GoferClient::new(gofer.transport()).max_decoding_message_size(4096);
    /// small.get_system_info(GetSystemInfoRequest {}).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "api")]
    #[cfg_attr(docsrs, doc(cfg(feature = "api")))]
    pub fn transport(&self) -> crate::api::Transport {
        crate::api::Transport(self.inner.transport.clone())
    }

    /// Starts a run of a pipeline. Its initiator is `<name> (<label>)`.
    ///
    /// For a live subscription prefer [`Subscription::start_run`](crate::Subscription::start_run),
    /// which also keeps trying during an outage.
    ///
    /// # Errors
    ///
    /// [As for every call](Self#errors). If the connection was lost or the deadline passed, the run
    /// may have started.
    pub async fn start_run(
        &self,
        pipeline: impl Into<PipelineId>,
        label: &str,
        run: Run,
    ) -> Result<RunInfo> {
        let pipeline = pipeline.into();
        let (namespace, name) = (pipeline.namespace().to_owned(), pipeline.pipeline().to_owned());
        let request = self.start_request(label, namespace, name, run);
        let response = self
            .call(|mut api| {
                let request = request.clone();
                async move { api.start_run(request).await }
            })
            .await?;
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    /// One run of a pipeline.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown run, and as for every call.
    pub async fn run(&self, pipeline: impl Into<PipelineId>, id: i64) -> Result<RunInfo> {
        let pipeline = pipeline.into();
        let response = self
            .call(|mut api| {
                let request = proto::GetRunRequest {
                    namespace_id: pipeline.namespace().to_owned(),
                    pipeline_id: pipeline.pipeline().to_owned(),
                    id,
                };
                async move { api.get_run(request).await }
            })
            .await?;
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    /// The newest runs of a pipeline, newest first, at most `limit`; 0 means the server's default
    /// (200).
    pub async fn runs(&self, pipeline: impl Into<PipelineId>, limit: u32) -> Result<Vec<RunInfo>> {
        let pipeline = pipeline.into();
        self.list_runs(pipeline.namespace(), pipeline.pipeline(), 0, limit).await
    }

    /// The objects of a pipeline, which its runs share.
    pub fn pipeline_objects(&self, pipeline: impl Into<PipelineId>) -> Objects<'_> {
        Objects::new(self, pipeline.into(), None)
    }

    /// The objects of one run.
    pub fn run_objects(&self, pipeline: impl Into<PipelineId>, run: i64) -> Objects<'_> {
        Objects::new(self, pipeline.into(), Some(run))
    }

    /// The secrets of a pipeline.
    pub fn pipeline_secrets(&self, pipeline: impl Into<PipelineId>) -> Secrets<'_> {
        Secrets::new(self, Some(pipeline.into()))
    }

    /// The secrets that administrators share among namespaces.
    pub fn global_secrets(&self) -> Secrets<'_> {
        Secrets::new(self, None)
    }

    /// What has happened in Gofer, oldest first.
    pub async fn events(&self) -> Result<Events> {
        self.list_events(false).await
    }

    /// What has happened in Gofer, oldest first, and then what happens, as it happens: the stream
    /// does not end by itself.
    pub async fn follow_events(&self) -> Result<Events> {
        self.list_events(true).await
    }

    async fn list_events(&self, follow: bool) -> Result<Events> {
        let response = self
            .call(|mut api| async move {
                api.list_events(proto::ListEventsRequest { reverse: false, follow }).await
            })
            .await?;
        Ok(Events::new(response))
    }

    pub(crate) async fn list_runs(
        &self,
        namespace: &str,
        pipeline: &str,
        offset: i64,
        limit: u32,
    ) -> Result<Vec<RunInfo>> {
        let response = self
            .call(|mut api| {
                let request = proto::ListRunsRequest {
                    offset,
                    limit: limit.into(),
                    namespace_id: namespace.to_owned(),
                    pipeline_id: pipeline.to_owned(),
                };
                async move { api.list_runs(request).await }
            })
            .await?;
        Ok(response.runs.into_iter().map(RunInfo::new).collect())
    }

    /// The name under which this client starts runs.
    pub(crate) fn initiator(&self, label: &str) -> String {
        format!("{} ({label})", self.inner.name)
    }

    pub(crate) fn start_request(
        &self,
        label: &str,
        namespace: String,
        pipeline: String,
        run: Run,
    ) -> proto::StartRunRequest {
        use proto::initiator::Type;
        let kind = if self.inner.is_extension { Type::Extension } else { Type::Bot };
        proto::StartRunRequest {
            namespace_id: namespace,
            pipeline_id: pipeline,
            variables: run.variables.into_iter().collect(),
            initiator: Some(proto::Initiator {
                r#type: kind.into(),
                name: self.initiator(label),
                reason: run.reason.into_owned(),
            }),
        }
    }

    /// Nanoseconds since the client was made, by tokio's clock.
    pub(crate) fn monotonic(&self) -> i64 {
        self.inner.clock.monotonic()
    }

    /// When a run started, in nanoseconds of [`monotonic`](Self::monotonic).
    pub(crate) fn started_at(&self, run: &RunInfo) -> i64 {
        self.inner.clock.monotonic_at(run.started_unix_millis())
    }

    /// Ends the connection and every task of the client. Calls fail from now on.
    pub(crate) async fn close(&self) {
        self.inner.transport.channel().close().await;
    }

    /// The same without waiting for the tasks to notice.
    pub(crate) fn abandon(&self) {
        self.inner.transport.channel().abandon();
    }

    /// Makes a call, and retries it if [`effect`] allows it, within one deadline for all attempts.
    async fn call<T, F, Fut>(&self, attempt: F) -> Result<T>
    where
        F: Fn(GoferClient<Transport>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + self.inner.transport.deadline();
        let mut backoff = BACKOFF;
        loop {
            // Boxed: a call's future is some kilobytes, and would be part of the caller's.
            let status = match Box::pin(attempt(self.raw())).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let again = Instant::now() + backoff.pause();
            if !effect(&status).may_repeat() || again >= until {
                return Err(error(&status));
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

impl fmt::Debug for Gofer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gofer").field("transport", &self.inner.transport).finish_non_exhaustive()
    }
}
