//! `gofer pipeline`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::pipeline_config::PipelineConfigState;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::{PipelineConfig, PipelineMetadata};
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Health, Row, moment, note, rfc3339, word};
use crate::pairs::pairs;
use crate::session::{Pipeline, Session, with_long_timeout};
use crate::{pipeline_file, subscription};

#[derive(Subcommand)]
pub(crate) enum PipelineCommand {
    /// Create a pipeline, or a new version of its configuration.
    #[command(after_help = "\
Example:
  gofer pipeline create nightly --description 'What happens at night'
  gofer pipeline create nightly --task build=registry.example.com/build:1.0
  gofer pipeline create nightly --file nightly.toml

The file is TOML, or JSON if its name ends in .json:
  description = \"What happens at night\"
  parallelism = 1
  [[tasks]]
  id = \"build\"
  image = \"registry.example.com/build:1.0\"
  variables = { MODE = \"release\" }")]
    Create(CreatePipeline),
    /// List the pipelines of a namespace.
    #[command(after_help = "Example:\n  gofer pipeline list --namespace ops")]
    List,
    /// Show a pipeline and its configuration.
    #[command(after_help = "Example:\n  gofer pipeline get ops/nightly")]
    Get {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Version of the configuration; the newest by default.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        version: i64,
    },
    /// Allow runs of a disabled pipeline again.
    #[command(after_help = "Example:\n  gofer pipeline enable nightly")]
    Enable {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Refuse new runs of a pipeline.
    #[command(after_help = "Example:\n  gofer pipeline disable nightly")]
    Disable {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Deploy a version of a pipeline's configuration, on a full Gofer.
    #[command(after_help = "\
Example:
  gofer pipeline deploy nightly 2

An embedded core has no deployments: the newest version is always live.")]
    Deploy {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
        /// Version to deploy.
        version: i64,
    },
    /// Delete a pipeline with everything that belongs to it.
    #[command(after_help = "Example:\n  gofer pipeline delete nightly")]
    Delete {
        /// Pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Subscribe a pipeline to an extension, like `extension sub`.
    #[command(after_help = "\
Example:
  gofer pipeline extend nightly interval hourly -s every=1h")]
    Extend(Extend),
}

#[derive(Args)]
pub(crate) struct CreatePipeline {
    /// Pipeline, or namespace/pipeline.
    pipeline: String,
    /// Display name.
    #[arg(long)]
    name: Option<String>,
    /// Description.
    #[arg(long)]
    description: Option<String>,
    /// Maximum number of concurrent runs; 0 leaves it to the server.
    #[arg(long)]
    parallelism: Option<i64>,
    /// Task and its image; can be repeated.
    #[arg(long = "task", value_name = "ID=IMAGE")]
    tasks: Vec<String>,
    /// File with the configuration, in TOML or JSON; flags override it.
    #[arg(long, short)]
    file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Extend {
    /// Pipeline, or namespace/pipeline.
    pipeline: String,
    /// Name of the extension.
    extension: String,
    /// Label that distinguishes the pipeline's subscriptions to this extension.
    label: String,
    #[command(flatten)]
    settings: subscription::Parameters,
}

impl PipelineCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(create) => run_create(create, session).await,
            Self::List => list(session).await,
            Self::Get { pipeline, version } => {
                get(session, session.pipeline(&pipeline), version).await
            }
            Self::Enable { pipeline } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::EnablePipelineRequest { namespace_id: namespace, id };
                session.api().enable_pipeline(request).await.map_err(pipeline_not_found)?;
                done(session, "Enabled", &pipeline)
            }
            Self::Disable { pipeline } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::DisablePipelineRequest { namespace_id: namespace, id };
                session.api().disable_pipeline(request).await.map_err(pipeline_not_found)?;
                done(session, "Disabled", &pipeline)
            }
            Self::Deploy { pipeline, version } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::DeployPipelineRequest {
                    namespace_id: namespace,
                    id,
                    version,
                    force: false,
                };
                let answer = session.api().deploy_pipeline(request).await.map_err(|status| {
                    pipeline_not_found(status).hint_on(
                        Code::Unimplemented,
                        "this Gofer has no deployments; the newest version is always live",
                    )
                })?;
                let id = answer.into_inner().deployment_id;
                let sentence = format!("Started deployment {id} of {pipeline}.");
                Ok(session.out.done(&sentence, &json!({ "deployment": id }))?)
            }
            Self::Delete { pipeline } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::DeletePipelineRequest { namespace_id: namespace, id };
                let answer = session.api().delete_pipeline(with_long_timeout(request)).await;
                answer.map_err(pipeline_not_found)?;
                done(session, "Deleted", &pipeline)
            }
            Self::Extend(Extend { pipeline, extension, label, settings }) => {
                let pipeline = session.pipeline(&pipeline);
                subscription::create(session, &pipeline, &extension, &label, settings).await
            }
        }
    }
}

fn done(session: &Session, what: &str, pipeline: &str) -> Result<(), Failure> {
    let pipeline = session.pipeline(pipeline);
    let json = json!({ "namespace": pipeline.namespace, "pipeline": pipeline.id });
    Ok(session.out.done(&format!("{what} {pipeline}."), &json)?)
}

pub(crate) fn pipeline_not_found(status: tonic::Status) -> Failure {
    Failure::from(status)
        .hint_on(Code::NotFound, "`gofer pipeline list` shows the pipelines of a namespace")
}

async fn run_create(create: CreatePipeline, session: &Session) -> Result<(), Failure> {
    let CreatePipeline { pipeline, name, description, parallelism, tasks, file } = create;
    let Pipeline { namespace, id } = session.pipeline(&pipeline);
    let mut config = match file {
        Some(path) => pipeline_file::read(&path)?,
        None => proto::UserPipelineConfig::default(),
    };
    config.id = id;
    config.name = name.unwrap_or(config.name);
    config.description = description.unwrap_or(config.description);
    config.parallelism = parallelism.unwrap_or(config.parallelism);
    for task in pairs(&tasks, "--task ID=IMAGE") {
        let (id, image) = task.map(|(id, image)| (id.to_owned(), image.to_owned()))?;
        config.tasks.retain(|task| task.id != id);
        config.tasks.push(proto::UserPipelineTaskConfig { id, image, ..Default::default() });
    }
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace,
        pipeline_config: Some(config),
    };
    let answer = session.api().register_pipeline_config(request).await.map_err(|status| {
        Failure::from(status)
            .hint_on(Code::NotFound, "`gofer namespace create` creates a namespace")
    })?;
    let made = answer.into_inner().pipeline.unwrap_or_default();
    let config = made.config.unwrap_or_default();
    let PipelineConfig { namespace, pipeline, version, .. } = &config;
    let sentence = format!("Registered {namespace}/{pipeline}, version {version}.");
    session.out.done(&sentence, &json_of(&made.metadata.unwrap_or_default(), &config))?;
    if config.state() == PipelineConfigState::Unreleased {
        note(&format!(
            "It is not live yet: `gofer pipeline deploy {namespace}/{pipeline} {version}` deploys it."
        ))?;
    }
    Ok(())
}

/// Why runs of a pipeline cannot start.
pub(crate) enum Obstacle {
    Disabled,
    /// None of its versions is live. The newest one.
    NotDeployed(i64),
}

/// What keeps runs of a pipeline from starting, if Gofer says so.
pub(crate) async fn obstacle(session: &Session, pipeline: &Pipeline) -> Option<Obstacle> {
    let (namespace_id, id) = (pipeline.namespace.clone(), pipeline.id.clone());
    let request = proto::GetPipelineRequest { namespace_id, id, version: 0 };
    let answer = session.api().get_pipeline(request).await;
    let found = answer.ok().and_then(|answer| answer.into_inner().pipeline);
    if found?.metadata?.state() == PipelineState::Disabled {
        return Some(Obstacle::Disabled);
    }
    let request = proto::ListPipelineConfigsRequest {
        namespace_id: pipeline.namespace.clone(),
        pipeline_id: pipeline.id.clone(),
        ..Default::default()
    };
    let configs = session.api().list_pipeline_configs(request).await.ok()?.into_inner().configs;
    let is_live = configs.iter().any(|it| it.state() == PipelineConfigState::Live);
    let newest = configs.iter().map(|it| it.version).max().filter(|_| !is_live);
    newest.map(Obstacle::NotDeployed)
}

async fn list(session: &Session) -> Result<(), Failure> {
    let mut all = Vec::new();
    loop {
        let request = proto::ListPipelinesRequest {
            namespace_id: session.settings.namespace.clone(),
            offset: i64::try_from(all.len()).unwrap_or(i64::MAX),
            limit: 0,
        };
        let page = session.api().list_pipelines(request).await.map_err(|status| {
            Failure::from(status)
                .hint_on(Code::NotFound, "`gofer namespace list` shows the namespaces")
        })?;
        let page = page.into_inner().pipelines;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    let nothing = format!(
        "The namespace {} has no pipelines; `gofer pipeline create` creates one.",
        session.settings.namespace
    );
    Ok(session.out.list(&all, &nothing)?)
}

async fn get(session: &Session, pipeline: Pipeline, version: i64) -> Result<(), Failure> {
    let request =
        proto::GetPipelineRequest { namespace_id: pipeline.namespace, id: pipeline.id, version };
    let answer = session.api().get_pipeline(request).await.map_err(pipeline_not_found)?;
    let found = answer.into_inner().pipeline.unwrap_or_default();
    let metadata = found.metadata.unwrap_or_default();
    let config = found.config.unwrap_or_default();
    let mut lines = vec![
        ("pipeline", format!("{}/{}", metadata.namespace, metadata.id).into()),
        ("state", state(&metadata)),
        ("name", config.name.clone().into()),
        ("description", config.description.clone().into()),
        ("version", config.version.to_string().into()),
        ("parallelism", config.parallelism.to_string().into()),
        ("created", moment(metadata.created).into()),
        ("modified", moment(metadata.modified).into()),
    ];
    for task in config.tasks.values() {
        lines.push(("task", format!("{} ({})", task.id, task.image).into()));
    }
    Ok(session.out.details(lines, &json_of(&metadata, &config))?)
}

fn state(metadata: &PipelineMetadata) -> Cell {
    let health = match metadata.state() {
        PipelineState::Active => Health::Good,
        PipelineState::Disabled => Health::Off,
        PipelineState::Unknown => Health::Bad,
    };
    Cell::health(word(metadata.state().as_str_name()), health)
}

impl Row for PipelineMetadata {
    const HEADER: &'static [&'static str] = &["PIPELINE", "STATE", "CREATED", "MODIFIED"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.clone().into(),
            state(self),
            moment(self.created).into(),
            moment(self.modified).into(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "namespace": self.namespace,
            "id": self.id,
            "state": word(self.state().as_str_name()),
            "created": rfc3339(self.created),
            "modified": rfc3339(self.modified),
        })
    }
}

/// Without the tasks' variables and credentials, which may be secret.
fn json_of(metadata: &PipelineMetadata, config: &PipelineConfig) -> Value {
    let mut tasks: Vec<_> = config.tasks.values().collect();
    tasks.sort_by(|a, b| a.id.cmp(&b.id));
    let tasks: Vec<_> = tasks
        .into_iter()
        .map(|it| json!({ "id": it.id, "description": it.description, "image": it.image }))
        .collect();
    let mut json = metadata.json();
    json["config"] = json!({
        "version": config.version,
        "state": word(config.state().as_str_name()),
        "name": config.name,
        "description": config.description,
        "parallelism": config.parallelism,
        "tasks": tasks,
        "registered": rfc3339(config.registered),
    });
    json
}
