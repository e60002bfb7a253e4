//! The client for Gofer's API.
//!
//! [`Gofer`] is cheap to clone and uses one HTTP/2 connection. The calls that extensions make are
//! methods here; all others are reached through `Gofer::api`. Whether a failed call is retried
//! depends on what is known of its effect (see `gofer_net::effect`); starting runs has rules of its
//! own (see [`start`]).

#![allow(clippy::missing_errors_doc, reason = "errors of every call are documented at `Gofer`")]

mod address;
mod builder;
mod follow;
mod pipelines;
mod run;
mod start;
mod start_call;
mod starts;
mod status;
mod store;
mod stored;
mod types;

pub use address::{GoferAddress, InvalidAddress};
pub use builder::{GoferBuilder, pin};
pub use follow::{EventFilter, EventFollower};
pub use run::Run;
pub use store::{Events, Objects, Secrets};
pub(crate) use types::PipelineRef;
pub use types::{Event, PipelineId, RunInfo, RunState, RunStatus, run_info};

pub(crate) use builder::authorization;
pub(crate) use run::{Occurrence, Scheduled, system_time, unique, unix_nanos};
pub use run::{RUN_KEY, SCHEDULED_AT};
pub(crate) use start::{Cancellation, Known, Started};
pub(crate) use status::is_permanent;
pub use status::{error, meaning};

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gofer_net::tls::Trust;
use gofer_net::{
    Backoff, BoxFuture, Channel, Clock, Connector, Dial, Effect, MAX_RESPONSE_BYTES, Outage,
    Outages, Transport, effect, is_lost,
};
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use http::HeaderValue;
use http::uri::Authority;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Code, Request, Response, Status};

use crate::error::{Error, ErrorKind, Result};
use follow::Followers;
use starts::Starts;

/// How long a call may take by default, attempts and pauses included. Long enough for a busy Gofer,
/// short enough that an extension notices one that hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pauses between attempts of one call: the first about as long as a process takes to restart, the
/// last so long that attempts cost next to nothing.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// How many of a pipeline's newest runs are searched for those of a label, and how many at a time.
const SEARCHED_RUNS: i64 = 1000;
const RUNS_PAGE: i64 = 200;

/// A client for Gofer's API.
///
/// Cheap to clone; all clones share one connection, which is opened at the first call and again
/// after it was lost. Every call has a deadline of 10 s, attempts and pauses included; of a stream
/// of events, it is for opening it. Within the deadline a call is retried if Gofer has certainly not
/// processed it, and one that only reads also if the response is `UNAVAILABLE` or its connection is
/// lost. While Gofer cannot be reached, the calls of all clones share one attempt to connect at a
/// time, with a growing, jittered pause of at most 2 s between them; meanwhile calls fail with the
/// last reason.
///
/// When calls begin to fail, since Gofer cannot be reached, does not answer or refuses the token, one
/// warning with the reason is logged, and one line when they work again. Those of an extension are
/// also shown by [Info and health](crate::guide::authors#when-gofer-cannot-be-reached).
///
/// # Errors
///
/// Every call can fail with [`Unavailable`](crate::ErrorKind::Unavailable) if Gofer cannot be
/// reached or the connection is lost, [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) if
/// no response arrives in time, or with the error that Gofer returns, such as
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied). Gofer 0.6.2 says much in words only,
/// or as the text of an extension's error; the kinds are the same as with an embedded core.
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
    starts: Starts,
    followers: Followers,
    outages: Arc<Outages>,
}

/// Whether a call that Gofer may have processed is retried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// If the response is `UNAVAILABLE` or lost: the call only reads.
    Read,
    /// Never.
    Write,
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
        let channel = Channel::new(Connector::new(dial, server_name, trust), clock, BACKOFF);
        let outages = Arc::new(Outages::new(authority.to_string(), clock));
        let transport = Transport::new(channel, authorization, authority, DEADLINE)
            .with_outages(Arc::clone(&outages));
        Self {
            inner: Arc::new(Inner {
                transport,
                name,
                is_extension,
                clock,
                starts: Starts::default(),
                followers: Followers::default(),
                outages,
            }),
        }
    }

    /// The name under which runs are started: of an extension's client, the name under which the
    /// extension is installed, and so the last part of the path of its webhooks; of another
    /// program's, what [`GoferBuilder::name`] set.
    ///
    /// ```
    /// use gofer_sdk::{Extension, Gofer, NoConfig, NoParams, Result};
    ///
    /// struct Chat {
    ///     webhook: String,
    /// }
    ///
    /// impl Extension for Chat {
    ///     type Config = NoConfig;
    ///     type Params = NoParams;
    ///
    ///     async fn init(_: NoConfig, gofer: Gofer) -> Result<Self> {
    /// #       assert_eq!(gofer.name(), "chat");
    ///         Ok(Self { webhook: format!("https://gofer.example.com/external/{}", gofer.name()) })
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// # let core = gofer_core::Core::in_memory().await?;
    /// # core.install::<Chat>("chat", gofer_core::NO_SETTINGS).await?;
    /// # assert_eq!(core.client().name(), "gofer-core");
    /// # Ok(()) }
    /// ```
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Gofer's whole API, as generated from the contract, over the same connection, with the same
    /// token and default deadline. It may change in any release; see [`api`](crate::api).
    ///
    /// Only a call that Gofer, or a proxy, says it has not processed is sent again. One that could
    /// not be sent, because there is no connection, fails with `UNAVAILABLE`. To use another
    /// deadline, set it on the request:
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

    /// Starts a run of a pipeline. Its initiator is `<name> (<label>)`, of the type of an extension
    /// for an extension's client, and of a bot for a program's.
    ///
    /// For a live subscription prefer [`Subscription::start_run`](crate::Subscription::start_run),
    /// which also keeps trying during an outage. This one has 10 s. An extension's run has a
    /// [key](Run::key), by which it is not started twice within that time; that of another program
    /// is started once or not at all.
    ///
    /// If the future is dropped, the run may have started.
    ///
    /// # Errors
    ///
    /// [As for every call](Self#errors). If the connection was lost or the deadline passed, the run
    /// may have started. [`InvalidParameter`](ErrorKind::InvalidParameter) if the run's key or a
    /// variable is not acceptable.
    pub async fn start_run(
        &self,
        pipeline: impl Into<PipelineId>,
        label: &str,
        run: Run,
    ) -> Result<RunInfo> {
        let pipeline = pipeline.into();
        if self.inner.is_extension {
            let deadline = Deadline(Instant::now() + self.inner.transport.deadline());
            let started = Box::pin(self.start_once(
                label,
                pipeline.borrowed(),
                run,
                Known::default(),
                &deadline,
            ))
            .await?;
            return Ok(started.run);
        }
        let (reason, variables) = run.unkeyed()?;
        let request = self.start_request(label, &pipeline, reason, variables);
        let response =
            self.call(Repeat::Write, request, |mut api, request| async move {
                api.start_run(request).await
            })
            .await?;
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    /// One run of a pipeline.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown run, and as for every call.
    pub async fn run(&self, pipeline: impl Into<PipelineId>, id: i64) -> Result<RunInfo> {
        let request = get_run(&pipeline.into(), id);
        let response =
            self.call(Repeat::Read, request, |mut api, request| async move {
                api.get_run(request).await
            })
            .await?;
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    /// One attempt to list some runs of a pipeline, newest first.
    pub(crate) async fn runs_page(
        &self,
        namespace: &str,
        pipeline: &str,
        offset: i64,
        limit: i64,
    ) -> Result<Vec<RunInfo>, Status> {
        let request = list_runs(namespace, pipeline, offset, limit);
        let runs = self.raw().list_runs(request).await?.into_inner().runs;
        Ok(runs.into_iter().map(RunInfo::new).collect())
    }

    /// The newest runs of a pipeline that this client started under a label, at most `limit`.
    ///
    /// Boxed: it is compiled once, and a subscription that waits holds none of it.
    pub(crate) fn runs_of_label(
        &self,
        pipeline: PipelineId,
        label: &str,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<RunInfo>>> {
        let initiator = self.initiator(label);
        Box::pin(async move {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut found = Vec::new();
            let mut offset = 0;
            while found.len() < limit && offset < SEARCHED_RUNS {
                let (namespace, name) = (pipeline.namespace(), pipeline.pipeline());
                let request = list_runs(namespace, name, offset, RUNS_PAGE);
                let runs = self.list_runs(request).await?;
                let len = i64::try_from(runs.len()).unwrap_or(RUNS_PAGE);
                found.extend(runs.into_iter().filter(|run| run.is_by_extension(&initiator)));
                if len < RUNS_PAGE {
                    break;
                }
                offset += len;
            }
            found.truncate(limit);
            Ok(found)
        })
    }

    /// One attempt to read a run.
    pub(crate) async fn raw_run(&self, pipeline: &PipelineId, id: i64) -> Result<RunInfo, Status> {
        let response = self.raw().get_run(get_run(pipeline, id)).await?.into_inner();
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    /// The newest runs of a pipeline, newest first, at most `limit`; 0 means the server's default
    /// (200).
    ///
    /// If the future is dropped, nothing has happened.
    pub async fn runs(&self, pipeline: impl Into<PipelineId>, limit: u32) -> Result<Vec<RunInfo>> {
        let pipeline = pipeline.into();
        self.list_runs(list_runs(pipeline.namespace(), pipeline.pipeline(), 0, limit.into())).await
    }

    async fn list_runs(&self, request: proto::ListRunsRequest) -> Result<Vec<RunInfo>> {
        let response =
            self.call(Repeat::Read, request, |mut api, request| async move {
                api.list_runs(request).await
            })
            .await?;
        Ok(response.runs.into_iter().map(RunInfo::new).collect())
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
    ///
    /// If the future is dropped, nothing has happened.
    pub async fn events(&self) -> Result<Events> {
        self.list_events(false).await
    }

    /// What has happened in Gofer, oldest first, and then what happens, as it happens: the stream
    /// does not end by itself. [`follow`](Self::follow) is without the history, and goes on after the
    /// connection was lost.
    ///
    /// If the future is dropped, nothing has happened.
    pub async fn follow_events(&self) -> Result<Events> {
        self.list_events(true).await
    }

    async fn list_events(&self, follow: bool) -> Result<Events> {
        let request = proto::ListEventsRequest { reverse: false, follow };
        let response = self
            .call(Repeat::Read, request, |mut api, request| async move {
                // Its deadline would end the stream, too.
                api.list_events(request.into_inner()).await
            })
            .await?;
        Ok(Events::new(response))
    }

    /// The name under which this client starts runs.
    pub(crate) fn initiator(&self, label: &str) -> String {
        format!("{} ({label})", self.inner.name)
    }

    /// For a program that is not an extension.
    fn start_request(
        &self,
        label: &str,
        pipeline: &PipelineId,
        reason: String,
        variables: HashMap<String, String>,
    ) -> proto::StartRunRequest {
        proto::StartRunRequest {
            namespace_id: pipeline.namespace().to_owned(),
            pipeline_id: pipeline.pipeline().to_owned(),
            variables,
            initiator: Some(proto::Initiator {
                r#type: proto::initiator::Type::Bot.into(),
                name: self.initiator(label),
                reason,
            }),
        }
    }

    /// Nanoseconds since the client was made, by tokio's clock.
    pub(crate) fn monotonic(&self) -> i64 {
        self.inner.clock.monotonic()
    }

    /// The time by the clock that ticks follow: of a program, the system's; of an extension inside
    /// the process of an embedded core, the core's, which tests can set.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// let leap_day = UNIX_EPOCH + Duration::from_secs(1_709_164_800);
    /// let core = gofer_core::Core::builder().starts_at(leap_day).start().await?;
    /// core.elapse(gofer_core::hours(1)).await;
    /// let passed = core.client().now().duration_since(leap_day)?;
    /// assert_eq!(passed.as_secs(), 60 * 60);
    /// # Ok(()) }
    /// ```
    pub fn now(&self) -> SystemTime {
        system_time(self.now_nanos())
    }

    /// Now, in Unix nanoseconds.
    pub(crate) fn now_nanos(&self) -> i64 {
        self.inner.clock.unix_nanos()
    }

    /// Whether [`now`](Self::now) may pass otherwise than [`monotonic`](Self::monotonic).
    pub(crate) fn clock_may_be_set(&self) -> bool {
        self.inner.clock.may_be_set()
    }

    /// When the next attempt to connect may be made; `None` if it may be made now.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        self.inner.transport.channel().next_attempt()
    }

    /// The outage of Gofer that there is now.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.inner.outages.current()
    }

    /// Whether there is an outage of Gofer, which is logged once for all that it concerns.
    pub(crate) fn has_outage(&self) -> bool {
        self.inner.outages.is_current()
    }

    /// The outage of Gofer that there is now, and each change.
    pub(crate) fn watch_outages(&self) -> watch::Receiver<Option<Outage>> {
        self.inner.outages.watch()
    }

    /// Ends the connection and every task of the client. Calls fail from now on.
    pub(crate) async fn close(&self) {
        self.inner.followers.close().await;
        self.inner.transport.channel().close().await;
    }

    /// The same without waiting for the tasks to notice.
    pub(crate) fn abandon(&self) {
        self.inner.followers.abandon();
        self.inner.transport.channel().abandon();
    }

    /// A full Gofer denies a call without a token the same as one whose token has no access.
    fn error(&self, status: &Status) -> Error {
        if status.code() == Code::PermissionDenied && !self.inner.transport.has_token() {
            return error(&Status::unauthenticated(status.message()));
        }
        error(status)
    }

    /// Makes a call, and retries it as far as `repeat` allows, within one deadline for all attempts.
    async fn call<Q, T, F, Fut>(&self, repeat: Repeat, request: Q, attempt: F) -> Result<T>
    where
        Q: Clone,
        F: Fn(GoferClient<Transport>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self.inner.transport.deadline();
        let until = Instant::now() + deadline;
        let mut backoff = BACKOFF;
        let mut is_repeat = false;
        loop {
            let mut message = Request::new(request.clone());
            if is_repeat {
                message.set_timeout(until.saturating_duration_since(Instant::now()));
            }
            // Boxed: a call's future is some kilobytes, and would be part of the caller's.
            let attempt = tokio::time::timeout_at(until, Box::pin(attempt(self.raw(), message)));
            let status = match attempt.await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {deadline:?}")),
            };
            let (may_repeat, next) = match effect(&status) {
                // All that wait for the connection share the next attempt.
                Effect::None => (true, self.next_attempt()),
                Effect::Unavailable => (repeat == Repeat::Read, None),
                Effect::Unknown => (repeat == Repeat::Read && is_lost(&status), None),
                Effect::Refused => (false, None),
            };
            let again = next.unwrap_or_else(|| Instant::now() + backoff.pause());
            if !may_repeat || again >= until {
                return Err(self.error(&status));
            }
            tokio::time::sleep_until(again).await;
            is_repeat = true;
        }
    }
}

fn list_runs(namespace: &str, pipeline: &str, offset: i64, limit: i64) -> proto::ListRunsRequest {
    let (namespace_id, pipeline_id) = (namespace.to_owned(), pipeline.to_owned());
    proto::ListRunsRequest { offset, limit, namespace_id, pipeline_id }
}

fn get_run(pipeline: &PipelineId, id: i64) -> proto::GetRunRequest {
    proto::GetRunRequest {
        namespace_id: pipeline.namespace().to_owned(),
        pipeline_id: pipeline.pipeline().to_owned(),
        id,
    }
}

/// By a deadline.
struct Deadline(Instant);

impl Cancellation for Deadline {
    async fn while_waiting(&self) {
        tokio::time::sleep_until(self.0).await;
    }

    async fn while_calling(&self) {
        self.while_waiting().await;
    }

    fn error(&self, last: Option<&Status>) -> Error {
        match last {
            Some(last) if effect(last) == Effect::None => error(last),
            _ => Error::new(
                ErrorKind::DeadlineExceeded,
                "the deadline passed; the run may or may not have started",
            ),
        }
    }
}

impl fmt::Debug for Gofer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gofer").field("transport", &self.inner.transport).finish_non_exhaustive()
    }
}
