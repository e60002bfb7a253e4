//! What is sent to Gofer and received from it, in plain Rust types.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use gofer_net::from_unix_millis;
use gofer_proto as proto;
use serde::Deserialize;

use super::run::{RUN_KEY, SCHEDULED_AT};

/// A pipeline and the namespace it is in.
///
/// ```
/// use gofer_sdk::PipelineId;
///
/// let nightly = PipelineId::from("ops/nightly");
/// assert_eq!((nightly.namespace(), nightly.pipeline()), ("ops", "nightly"));
/// assert_eq!(PipelineId::from("nightly").namespace(), "default");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipelineId {
    namespace: String,
    pipeline: String,
}

impl PipelineId {
    /// A pipeline in a namespace; an empty namespace is `default`.
    pub fn new(namespace: impl Into<String>, pipeline: impl Into<String>) -> Self {
        let mut namespace = namespace.into();
        if namespace.is_empty() {
            "default".clone_into(&mut namespace);
        }
        Self { namespace, pipeline: pipeline.into() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The pipeline, without its namespace.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    pub(crate) fn borrowed(&self) -> PipelineRef<'_> {
        PipelineRef { namespace: &self.namespace, pipeline: &self.pipeline }
    }
}

/// A [`PipelineId`] without copies of its names, which the start of a run mostly does not need.
#[derive(Clone, Copy)]
pub(crate) struct PipelineRef<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pipeline: &'a str,
}

impl From<PipelineRef<'_>> for PipelineId {
    fn from(id: PipelineRef<'_>) -> Self {
        Self::new(id.namespace, id.pipeline)
    }
}

/// `namespace/pipeline`, or a pipeline of the namespace `default`.
impl From<&str> for PipelineId {
    fn from(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, pipeline)) => Self::new(namespace, pipeline),
            None => Self::new("", text),
        }
    }
}

impl From<String> for PipelineId {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&PipelineId> for PipelineId {
    fn from(id: &PipelineId) -> Self {
        id.clone()
    }
}

impl fmt::Display for PipelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}

impl fmt::Display for PipelineRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pipeline)
    }
}

/// Whether a run is waiting, being executed or complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunState {
    /// A state that is unknown to this version of the SDK.
    Unknown,
    /// Waiting to be executed.
    Pending,
    /// Being executed.
    Running,
    /// Ended; the [`RunStatus`] says how.
    Complete,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunStatus {
    /// It has not ended, or its status is unknown to this version of the SDK.
    Unknown,
    /// All went well.
    Successful,
    /// A task failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A run, as Gofer reports it.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(); let gofer = core.client();
/// if let Some(latest) = gofer.runs("ops/nightly", 1).await?.first() {
///     println!("run {} was started because {}", latest.id(), latest.reason());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RunInfo(proto::Run);

/// A run from its message.
pub fn run_info(run: proto::Run) -> RunInfo {
    RunInfo::new(run)
}

impl RunInfo {
    pub(crate) fn new(run: proto::Run) -> Self {
        Self(run)
    }

    /// The number of the run; counts up from 1 in each pipeline.
    pub fn id(&self) -> i64 {
        self.0.id
    }

    /// The pipeline that runs.
    pub fn pipeline(&self) -> PipelineId {
        PipelineId::new(&*self.0.namespace, &*self.0.pipeline)
    }

    /// When it started, by Gofer's clock, to the millisecond.
    pub fn started(&self) -> SystemTime {
        from_unix_millis(self.0.started)
    }

    /// In Unix nanoseconds.
    pub(crate) fn started_at(&self) -> i64 {
        self.0.started.saturating_mul(1_000_000)
    }

    /// When it ended, by Gofer's clock, to the millisecond; `None` before.
    pub fn ended(&self) -> Option<SystemTime> {
        let ended = self.0.ended;
        (ended > 0).then(|| from_unix_millis(ended))
    }

    /// Whether it is waiting, being executed or complete.
    pub fn state(&self) -> RunState {
        use proto::run::RunState as Wire;
        match self.0.state() {
            Wire::Unknown => RunState::Unknown,
            Wire::Pending => RunState::Pending,
            Wire::Running => RunState::Running,
            Wire::Complete => RunState::Complete,
        }
    }

    /// How it ended.
    pub fn status(&self) -> RunStatus {
        use proto::run::RunStatus as Wire;
        match self.0.status() {
            Wire::Unknown => RunStatus::Unknown,
            Wire::Successful => RunStatus::Successful,
            Wire::Failed => RunStatus::Failed,
            Wire::Cancelled => RunStatus::Cancelled,
        }
    }

    /// Why it ended as it did, as a sentence for people; empty if it has not ended, or if there is
    /// nothing to explain, such as after a success.
    pub fn description(&self) -> &str {
        self.0.status_reason.as_ref().map_or("", |reason| &reason.description)
    }

    /// What started it; for an extension `<name> (<label>)`.
    pub fn initiator(&self) -> &str {
        self.0.initiator.as_ref().map_or("", |initiator| &initiator.name)
    }

    /// Why it was started.
    pub fn reason(&self) -> &str {
        self.0.initiator.as_ref().map_or("", |initiator| &initiator.reason)
    }

    /// Its variables, names and values; an embedded core sorts them by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.variables.iter().map(|variable| (&*variable.key, &*variable.value))
    }

    /// The value of one of its variables.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self.0.variables.iter().find(|variable| variable.key == name)?;
        Some(&found.value)
    }

    /// The key that an extension started it with; see [`Run::key`](crate::Run::key).
    pub fn key(&self) -> Option<&str> {
        self.variable(RUN_KEY).filter(|_| self.is_extensions())
    }

    /// The time that it was scheduled for, if an extension started it for a
    /// [`Tick`](crate::Tick).
    pub fn scheduled(&self) -> Option<SystemTime> {
        let at = self.variable(SCHEDULED_AT).filter(|_| self.is_extensions())?;
        humantime::parse_rfc3339(at).ok()
    }

    /// In Unix nanoseconds.
    pub(crate) fn scheduled_at(&self) -> Option<i64> {
        let since = self.scheduled()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_nanos()).ok()
    }

    fn is_extensions(&self) -> bool {
        let initiator = self.0.initiator.as_ref();
        initiator.is_some_and(|it| it.r#type() == proto::initiator::Type::Extension)
    }

    /// Whether an extension started it as this initiator.
    pub(crate) fn is_by_extension(&self, name: &str) -> bool {
        self.is_extensions() && self.initiator() == name
    }
}

/// Everything but the variables' values, which may be secrets.
impl fmt::Debug for RunInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunInfo")
            .field("pipeline", &self.pipeline())
            .field("id", &self.id())
            .field("state", &self.state())
            .field("status", &self.status())
            .field("initiator", &self.initiator())
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

/// Something that happened in Gofer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The number of the event; counts up.
    pub id: i64,
    /// What happened, such as `RUN_COMPLETED`.
    pub kind: String,
    /// The details, as JSON.
    pub details: String,
    /// When it happened, by Gofer's clock, to the millisecond.
    pub emitted: SystemTime,
}

/// What the details of events name.
#[derive(Deserialize)]
struct Details {
    #[serde(rename = "namespace_id")]
    namespace: Option<String>,
    #[serde(rename = "pipeline_id")]
    pipeline: Option<String>,
    #[serde(rename = "run_id")]
    run: Option<i64>,
}

impl Event {
    /// The pipeline that it is about; `None` if it is about none.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// # let (core, ..) = documented!(); let gofer = core.client();
    /// let mut events = gofer.events().await?;
    /// while let Some(event) = events.next().await? {
    ///     match event.pipeline() {
    ///         Some(pipeline) => println!("{} of {pipeline}", event.kind),
    ///         None => println!("{}", event.kind),
    ///     }
    /// #   assert_eq!(event.pipeline().is_none(), event.kind.starts_with("NAMES") || event.kind.starts_with("EXT"), "{event:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pipeline(&self) -> Option<PipelineId> {
        let Details { namespace, pipeline, .. } = self.details()?;
        Some(PipelineId::new(namespace.unwrap_or_default(), pipeline?))
    }

    /// The number of the run that it is about; `None` if it is about none. See
    /// [`Gofer::follow`](crate::Gofer::follow) for an example.
    pub fn run(&self) -> Option<i64> {
        self.details()?.run
    }

    fn details(&self) -> Option<Details> {
        serde_json::from_str(&self.details).ok()
    }
}

impl From<proto::Event> for Event {
    fn from(event: proto::Event) -> Self {
        Self {
            id: event.id,
            kind: event.r#type,
            details: event.details,
            emitted: from_unix_millis(event.emitted),
        }
    }
}
