//! `gofer run`.

use std::time::Duration;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::initiator::Type;
use gofer_proto::run::{RunState, RunStatus};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::output::{Cell, Health, Row, moment, rfc3339, word};
use crate::pairs::settings;
use crate::pipeline::{Obstacle, obstacle, pipeline_not_found};
use crate::progress::Spinner;
use crate::session::{Pipeline, Session};

/// How often --wait polls a run.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum RunCommand {
    /// Start a run of a pipeline.
    #[command(after_help = "\
Example:
  gofer run start nightly -v BRANCH=main -v TOKEN=@token.txt --wait

A value `@FILE` is read from a file, and `-` from standard input; `@@` stands for an
`@` at the beginning.")]
    Start(StartRun),
    /// List the runs of a pipeline, newest first.
    #[command(after_help = "Example:\n  gofer run list nightly --limit 5")]
    List {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Maximum number to show.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Number of the newest runs to skip.
        #[arg(long, default_value_t = 0)]
        offset: u32,
    },
    /// Show a run.
    #[command(after_help = "Example:\n  gofer run get nightly 7")]
    Get {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Number of the run.
        run: i64,
    },
    /// Cancel a run, or all runs of a pipeline.
    #[command(after_help = "\
Example:
  gofer run cancel nightly 7
  gofer run cancel nightly --all")]
    Cancel(CancelRun),
    /// Start a new run with the variables of an earlier one.
    #[command(
        after_help = "Example:\n  gofer run retry nightly 7\n\nGofer 0.6.2 refuses all retries."
    )]
    Retry {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Number of the run.
        run: i64,
    },
}

#[derive(Args)]
pub(crate) struct StartRun {
    /// Pipeline, or namespace/pipeline.
    pipeline: String,
    /// Variable of the run; can be repeated.
    #[arg(short, long = "variable", value_name = "KEY=VALUE")]
    variables: Vec<String>,
    /// Why it is started, which is shown with the run.
    #[arg(long, default_value = "started by hand")]
    reason: String,
    /// Wait until the run ends; the exit code is 8 if it did not succeed.
    #[arg(long, short)]
    wait: bool,
}

#[derive(Args)]
pub(crate) struct CancelRun {
    /// Pipeline, or namespace/pipeline.
    pipeline: String,
    /// Number of the run.
    #[arg(required_unless_present = "all")]
    run: Option<i64>,
    /// All runs of the pipeline that have not ended.
    #[arg(long, conflicts_with = "run")]
    all: bool,
    /// Stop at once, without time to clean up.
    #[arg(long)]
    force: bool,
}

impl RunCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Start(start) => run_start(start, session).await,
            Self::List { pipeline, limit, offset } => list(session, &pipeline, limit, offset).await,
            Self::Get { pipeline, run } => {
                let run = get(session, &session.pipeline(&pipeline), run).await?;
                show(session, &run)
            }
            Self::Cancel(cancel) => run_cancel(cancel, session).await,
            Self::Retry { pipeline, run } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::RetryRunRequest {
                    namespace_id: namespace,
                    pipeline_id: id,
                    run_id: run,
                    initiator: Some(by_hand("retried by hand".to_owned())),
                };
                let answer = match session.api().retry_run(request).await {
                    Ok(answer) => answer,
                    Err(status) => return Err(not_retried(session, status, &pipeline, run).await),
                };
                let run = answer.into_inner().run.unwrap_or_default();
                started(session, &run)
            }
        }
    }
}

fn run_not_found(status: Status) -> Failure {
    Failure::from(status)
        .hint_on(Code::NotFound, "`gofer run list <pipeline>` shows the runs of a pipeline")
}

/// Gofer 0.6.2 refuses every retry, for want of an initiator.
async fn not_retried(session: &Session, status: Status, pipeline: &str, run: i64) -> Failure {
    let failure = run_not_found(status);
    if failure.code() == Some(Code::FailedPrecondition) && session.is_full_gofer().await {
        return failure.hint(format!(
            "a full Gofer (0.6.2) refuses all retries: start a new run with `gofer run start \
             {pipeline}`; `gofer run get {pipeline} {run}` shows which variables that one had"
        ));
    }
    allowing(session, failure, &session.pipeline(pipeline)).await
}

fn by_hand(reason: String) -> proto::Initiator {
    let name = std::env::var("USER").unwrap_or_else(|_| "gofer".to_owned());
    proto::Initiator { r#type: Type::Human.into(), name, reason }
}

fn started(session: &Session, run: &proto::Run) -> Result<(), Failure> {
    let sentence = format!("Started run {} of {}/{}.", run.id, run.namespace, run.pipeline);
    Ok(session.out.done(&sentence, &run.json())?)
}

async fn run_start(start: StartRun, session: &Session) -> Result<(), Failure> {
    let pipeline = session.pipeline(&start.pipeline);
    let request = proto::StartRunRequest {
        namespace_id: pipeline.namespace.clone(),
        pipeline_id: pipeline.id.clone(),
        variables: settings(&start.variables, "-v, --variable KEY=VALUE", |a, b| a == b, None)?,
        initiator: Some(by_hand(start.reason)),
    };
    let answer = match session.api().start_run(request).await {
        Ok(answer) => answer,
        Err(status) => return Err(not_started(session, status, &pipeline).await),
    };
    let mut run = answer.into_inner().run.unwrap_or_default();
    if !start.wait {
        return started(session, &run);
    }
    let spinner = Spinner::new(format!("run {} of {pipeline}", run.id));
    while run.state() != RunState::Complete {
        tokio::time::sleep(POLL_INTERVAL).await;
        run = get(session, &pipeline, run.id).await?;
    }
    drop(spinner);
    show(session, &run)?;
    if run.status() == RunStatus::Successful {
        return Ok(());
    }
    let status = word(run.status().as_str_name());
    Err(Failure::run_failed(format!("run {} of {pipeline} did not succeed: {status}", run.id)))
}

/// Why a run could not be started, and what allows it.
async fn not_started(session: &Session, status: Status, pipeline: &Pipeline) -> Failure {
    allowing(session, pipeline_not_found(status), pipeline).await
}

/// With what allows runs of the pipeline again.
async fn allowing(session: &Session, failure: Failure, pipeline: &Pipeline) -> Failure {
    let failure = failure.hint_on(
        Code::ResourceExhausted,
        format!("`gofer run list {pipeline}` shows which runs have not ended"),
    );
    if failure.code() != Some(Code::FailedPrecondition) {
        return failure;
    }
    failure.hint(match obstacle(session, pipeline).await {
        Some(Obstacle::Disabled) => format!("`gofer pipeline enable {pipeline}` allows runs again"),
        Some(Obstacle::NotDeployed(version)) => {
            format!("`gofer pipeline deploy {pipeline} {version}` makes that version live")
        }
        None => "`gofer service toggle-events` allows runs again if Gofer ignores events; `gofer \
                 pipeline get` shows whether the pipeline is disabled or has to be deployed, with \
                 `gofer pipeline deploy`"
            .to_owned(),
    })
}

async fn get(session: &Session, pipeline: &Pipeline, id: i64) -> Result<proto::Run, Failure> {
    let request = proto::GetRunRequest {
        namespace_id: pipeline.namespace.clone(),
        pipeline_id: pipeline.id.clone(),
        id,
    };
    let answer = session.api().get_run(request).await.map_err(run_not_found)?;
    Ok(answer.into_inner().run.unwrap_or_default())
}

async fn list(session: &Session, pipeline: &str, limit: u32, offset: u32) -> Result<(), Failure> {
    let pipeline = session.pipeline(pipeline);
    let mut runs: Vec<proto::Run> = Vec::new();
    let (limit, offset) = (i64::from(limit), i64::from(offset));
    loop {
        let have = i64::try_from(runs.len()).unwrap_or(i64::MAX);
        let request = proto::ListRunsRequest {
            namespace_id: pipeline.namespace.clone(),
            pipeline_id: pipeline.id.clone(),
            offset: offset + have,
            // The server decides how many it returns at most.
            limit: (limit - have).min(200),
        };
        let page =
            session.api().list_runs(request).await.map_err(pipeline_not_found)?.into_inner().runs;
        let is_last = page.is_empty();
        runs.extend(page);
        if is_last || i64::try_from(runs.len()).unwrap_or(i64::MAX) >= limit {
            break;
        }
    }
    let nothing = format!("{pipeline} has no runs; `gofer run start` starts one.");
    Ok(session.out.list(&runs, &nothing)?)
}

async fn run_cancel(cancel: CancelRun, session: &Session) -> Result<(), Failure> {
    let CancelRun { pipeline, run, all: _, force } = cancel;
    let Pipeline { namespace, id } = session.pipeline(&pipeline);
    let Some(run) = run else {
        let request =
            proto::CancelAllRunsRequest { namespace_id: namespace, pipeline_id: id, force };
        let answer = session.api().cancel_all_runs(request).await.map_err(pipeline_not_found)?;
        let runs = answer.into_inner().runs;
        let (count, s) = (runs.len(), if runs.len() == 1 { "" } else { "s" });
        let sentence = format!("Requested cancellation of {count} run{s} of {pipeline}.");
        return Ok(session.out.done(&sentence, &json!({ "runs": runs }))?);
    };
    let request =
        proto::CancelRunRequest { namespace_id: namespace, pipeline_id: id, run_id: run, force };
    session.api().cancel_run(request).await.map_err(run_not_found)?;
    let sentence = format!("Requested cancellation of run {run} of {pipeline}.");
    Ok(session.out.done(&sentence, &json!({ "runs": [run] }))?)
}

/// State and status in one word.
fn outcome(run: &proto::Run) -> Cell {
    let (name, health) = match (run.state(), run.status()) {
        (RunState::Complete, status) => (
            status.as_str_name(),
            match status {
                RunStatus::Successful => Health::Good,
                RunStatus::Cancelled => Health::Off,
                RunStatus::Failed | RunStatus::Unknown => Health::Bad,
            },
        ),
        (state, _) => (state.as_str_name(), Health::Changing),
    };
    Cell::health(word(name), health)
}

fn initiator(run: &proto::Run) -> (&str, &str) {
    run.initiator.as_ref().map_or(("", ""), |it| (&it.name, &it.reason))
}

fn reason(run: &proto::Run) -> &str {
    run.status_reason.as_ref().map_or("", |reason| &reason.description)
}

impl Row for proto::Run {
    const HEADER: &'static [&'static str] =
        &["RUN", "STATUS", "STARTED", "ENDED", "INITIATOR", "REASON"];

    fn cells(&self) -> Vec<Cell> {
        let (name, because) = initiator(self);
        vec![
            self.id.to_string().into(),
            outcome(self),
            moment(self.started).into(),
            moment(self.ended).into(),
            name.into(),
            because.into(),
        ]
    }

    /// With the names of the variables; their values may be secret.
    fn json(&self) -> Value {
        let (name, because) = initiator(self);
        let kind = self.initiator.as_ref().map(|it| word(it.r#type().as_str_name()));
        let mut variables: Vec<_> = self.variables.iter().map(|it| &it.key).collect();
        variables.sort();
        json!({
            "namespace": self.namespace,
            "pipeline": self.pipeline,
            "id": self.id,
            "version": self.version,
            "state": word(self.state().as_str_name()),
            "status": word(self.status().as_str_name()),
            "reason": reason(self),
            "started": rfc3339(self.started),
            "ended": rfc3339(self.ended),
            "initiator": { "kind": kind, "name": name, "reason": because },
            "variables": variables,
        })
    }
}

fn show(session: &Session, run: &proto::Run) -> Result<(), Failure> {
    let (name, because) = initiator(run);
    let mut variables: Vec<_> = run.variables.iter().map(|it| it.key.as_str()).collect();
    variables.sort_unstable();
    let lines = vec![
        ("run", run.id.to_string().into()),
        ("pipeline", format!("{}/{}", run.namespace, run.pipeline).into()),
        ("status", outcome(run)),
        ("error", reason(run).into()),
        ("started", moment(run.started).into()),
        ("ended", moment(run.ended).into()),
        ("initiator", name.into()),
        ("reason", because.into()),
        ("variables", variables.join(", ").into()),
    ];
    Ok(session.out.details(lines, &run.json())?)
}
