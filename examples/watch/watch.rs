//! What the watch extension does.

// With their paths: tests include this file.
#[path = "chains.rs"]
mod chains;
#[path = "resume.rs"]
mod resume;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chains::Chains;
use gofer_sdk::{
    Error, ErrorKind, EventFilter, Extension, Gofer, Parsed, PipelineId, Result, Run, RunInfo,
    RunStatus, Subscription,
};
use resume::Resumed;
use schemars::JsonSchema;
use serde::Deserialize;

/// What the administrator sets at install time.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Config {
    /// Whether a pipeline may watch one of another namespace. If it may, whoever subscribes a
    /// pipeline learns of the runs of each pipeline that this extension can see.
    #[serde(default = "yes")]
    other_namespaces: bool,
}

fn yes() -> bool {
    true
}

/// What a pipeline sets when it subscribes.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// The pipeline to watch, with its namespace, such as `ops/nightly`.
    pipeline: Parsed<Watched>,
    /// How a run of it has to end to count.
    #[serde(default)]
    status: Ending,
    /// A run is started once this many runs of it in a row have ended so. Then the count begins anew.
    #[serde(default = "one")]
    consecutive: u32,
}

fn one() -> u32 {
    1
}

/// A pipeline with its namespace.
pub(crate) struct Watched(PipelineId);

impl FromStr for Watched {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, pipeline))
                if !namespace.is_empty() && !pipeline.is_empty() && !pipeline.contains('/') =>
            {
                Ok(Self(PipelineId::new(namespace, pipeline)))
            }
            _ => Err("must be a namespace and a pipeline, as in `ops/nightly`"),
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    Successful,
    Failed,
    Cancelled,
    #[default]
    Any,
}

impl Ending {
    fn is(self, status: RunStatus) -> bool {
        match self {
            Self::Successful => status == RunStatus::Successful,
            Self::Failed => status == RunStatus::Failed,
            Self::Cancelled => status == RunStatus::Cancelled,
            Self::Any => true,
        }
    }
}

/// What a run is told about the one that it is started for.
const NAMESPACE: &str = "GOFER_EXTENSION_WATCH_NAMESPACE";
const PIPELINE: &str = "GOFER_EXTENSION_WATCH_PIPELINE";
const RUN_ID: &str = "GOFER_EXTENSION_WATCH_RUN_ID";
const STATUS: &str = "GOFER_EXTENSION_WATCH_STATUS";

/// The extension, once the administrator's configuration is known.
pub(crate) struct Watch {
    other_namespaces: bool,
    /// Who watches whom.
    chains: Chains,
}

impl Extension for Watch {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, _gofer: Gofer) -> Result<Self> {
        Ok(Self { other_namespaces: config.other_namespaces, chains: Chains::default() })
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.consecutive == 0 {
            return Err(Error::invalid_parameter("consecutive", "must be at least 1"));
        }
        Ok(())
    }

    // A pipeline that would start itself again and again is refused before it subscribes.
    fn validate_for(&self, pipeline: &PipelineId, params: &Params) -> Result<()> {
        let watched = &params.pipeline.0;
        if !self.other_namespaces && watched.namespace() != pipeline.namespace() {
            let message = "must be in the namespace of the pipeline that watches it; the \
                           administrator allows no other";
            return Err(Error::invalid_parameter("pipeline", message));
        }
        self.chains.check(pipeline, watched)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let watched = &subscription.params().pipeline.0;
        // Checked again: two that watch each other may have been subscribed at the same time.
        let _link = self.chains.add(&subscription, watched)?;
        tokio::select! {
            biased;
            _ = subscription.cancelled() => Ok(()),
            outcome = follow(&subscription, watched) => outcome,
        }
    }

    fn documentation() -> Cow<'static, str> {
        "Starts a run of the pipeline because a run of another one has ended, whoever started that. \
         The run gets these variables:\n\n\
         - `GOFER_EXTENSION_WATCH_NAMESPACE` and `GOFER_EXTENSION_WATCH_PIPELINE`: the pipeline that \
         is watched\n\
         - `GOFER_EXTENSION_WATCH_RUN_ID`: the number of its run\n\
         - `GOFER_EXTENSION_WATCH_STATUS`: `successful`, `failed` or `cancelled`\n\n\
         Each end that counts starts one run, also if Gofer or this extension was away meanwhile: \
         what ended then is looked up among the newest 1,000 runs of the watched pipeline. Ends \
         count from when the pipeline subscribed, or changed its parameters. With `consecutive = 3`, \
         one run is started for the third such end in a row, one for the sixth, and so on; an end \
         with another status begins the count anew. While the subscribed pipeline is disabled, it is \
         not run, and a restart makes up for what ended meanwhile.\n\n\
         A full Gofer does not say when the pipeline subscribed. There, what ends while this \
         extension is away is made up for once the subscription has started a run, and one that is \
         made anew under a label that was used before goes on from that label's last run.\n\n\
         A pipeline that would end up watching itself, also through others that this extension \
         serves, is refused.\n\n\
         For administrators: without a grant, it can watch the pipelines of each namespace that has a \
         subscription to it, and with the grant `everything` all of them. Until it can see a \
         pipeline, its subscription fails, and is tried again. With `other_namespaces = false`, each \
         pipeline watches only those of its own namespace."
            .into()
    }
}

/// Starts runs for what has ended meanwhile, and then for what ends.
async fn follow(subscription: &Subscription<Params>, watched: &PipelineId) -> Result<()> {
    let gofer = subscription.gofer();
    let ends = EventFilter::all().kind("RUN_COMPLETED").pipeline(watched);
    // First, so that nothing ends unseen between the list and the events.
    let mut ends = gofer.follow(ends).await?;
    let mut streak = Streak { subscription, watched, length: 0 };
    let mut resumed = Resumed::new(subscription, watched).await?;
    loop {
        for run in resumed.missed(gofer, watched).await? {
            streak.ended(&run).await?;
            resumed.handled(&run);
        }
        let error = loop {
            let id = match ends.next().await {
                Ok(event) => event.run(),
                Err(error) => break error,
            };
            let Some(id) = id else { continue };
            let run = match gofer.run(watched, id).await {
                Ok(run) => run,
                // The pipeline was deleted, or Gofer no longer keeps the run.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if resumed.handled(&run) {
                streak.ended(&run).await?;
            }
        };
        // Gofer no longer has all of the events, but maybe the runs.
        if error.kind() != ErrorKind::ResourceExhausted {
            return Err(error);
        }
        tracing::info!(%error, "looking at the runs instead");
    }
}

/// Counts runs that have ended one after the other, and starts one for each streak.
struct Streak<'a> {
    subscription: &'a Subscription<Params>,
    watched: &'a PipelineId,
    length: u32,
}

impl Streak<'_> {
    async fn ended(&mut self, run: &RunInfo) -> Result<()> {
        let Params { status, consecutive, .. } = self.subscription.params();
        if !status.is(run.status()) {
            self.length = 0;
            return Ok(());
        }
        self.length += 1;
        if self.length < *consecutive {
            return Ok(());
        }
        // By its key, the run is started once, whoever asks for it how often.
        match self.subscription.start_run(run_for(self.watched, run)).await {
            Ok(started) => tracing::debug!(run = started.id(), "started a run"),
            // A disabled pipeline, for example: it may be enabled for the next one.
            Err(error) if error.kind() == ErrorKind::FailedPrecondition => {
                tracing::debug!(%error, "the pipeline cannot run at the moment");
            }
            Err(error) => return Err(error),
        }
        self.length = 0;
        Ok(())
    }
}

/// The run for one that has ended.
fn run_for(watched: &PipelineId, ended: &RunInfo) -> Run {
    let (id, status) = (ended.id(), status(ended));
    let how = match status {
        "unknown" => "ended",
        "successful" => "succeeded",
        "cancelled" => "was cancelled",
        other => other,
    };
    Run::because(format!("run {id} of {watched} {how}"))
        .key(key(watched, ended))
        .variable(NAMESPACE, watched.namespace())
        .variable(PIPELINE, watched.pipeline())
        .variable(RUN_ID, id.to_string())
        .variable(STATUS, status)
}

fn status(run: &RunInfo) -> &'static str {
    match run.status() {
        RunStatus::Successful => "successful",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "cancelled",
        _ => "unknown",
    }
}

/// The longest name of a pipeline that is part of a key: a key has at most 256 bytes.
const LONGEST_NAME: usize = 200;

/// The watched run. With the time at which it started: a pipeline that was deleted and made again
/// counts its runs from 1.
fn key(watched: &PipelineId, run: &RunInfo) -> String {
    let since_epoch = run.started().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (id, started) = (run.id(), since_epoch.as_millis());
    let name = watched.to_string();
    let name = if name.len() <= LONGEST_NAME { &*name } else { "" };
    format!("{name}#{id}@{started}")
}
