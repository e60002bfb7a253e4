//! `gofer pipeline`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::pipeline_metadata::PipelineState;
use gofer_proto::{PipelineConfig, PipelineMetadata};
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Mood, Row, moment, rfc3339, word};
use crate::pipeline_file;
use crate::session::{Pipeline, Session, patient};
use crate::subscription;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes a pipeline, or adds a version to the one of that name.
    #[command(after_help = "\
Example:
  gofer pipeline create nightly --description 'What happens at night'
  gofer pipeline create nightly --task build=registry.example.com/build:1.0
  gofer pipeline create nightly --file nightly.toml

A file is TOML, or JSON where its name ends so:
  description = \"What happens at night\"
  parallelism = 1
  [[tasks]]
  id = \"build\"
  image = \"registry.example.com/build:1.0\"
  variables = { MODE = \"release\" }")]
    Create(Create),
    /// Lists the pipelines of a namespace.
    #[command(after_help = "Example:\n  gofer pipeline list --namespace ops")]
    List,
    /// Shows one pipeline and its configuration.
    #[command(after_help = "Example:\n  gofer pipeline get ops/nightly")]
    Get {
        /// The pipeline, or namespace/pipeline.
        pipeline: String,
        /// The version of the configuration; without it, the newest.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        version: i64,
    },
    /// Lets a disabled pipeline run again.
    #[command(after_help = "Example:\n  gofer pipeline enable nightly")]
    Enable {
        /// The pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Refuses new runs of a pipeline.
    #[command(after_help = "Example:\n  gofer pipeline disable nightly")]
    Disable {
        /// The pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Makes a version of a pipeline's configuration live, on a real Gofer.
    #[command(after_help = "\
Example:
  gofer pipeline deploy nightly 2

A core of this program has no deployments: the newest version is always live.")]
    Deploy {
        /// The pipeline, or namespace/pipeline.
        pipeline: String,
        /// The version to make live.
        version: i64,
    },
    /// Removes a pipeline with all that belongs to it.
    #[command(after_help = "Example:\n  gofer pipeline delete nightly")]
    Delete {
        /// The pipeline, or namespace/pipeline.
        pipeline: String,
    },
    /// Subscribes a pipeline to an extension; `extension sub` is the same.
    #[command(after_help = "\
Example:
  gofer pipeline extend nightly interval hourly -s every=1h")]
    Extend(Extend),
}

#[derive(Args)]
pub(crate) struct Create {
    /// The pipeline, or namespace/pipeline.
    pipeline: String,
    /// Its name for people.
    #[arg(long)]
    name: Option<String>,
    /// What it is for, for people.
    #[arg(long)]
    description: Option<String>,
    /// How many of its runs may go on at once; 0 leaves it to the server.
    #[arg(long)]
    parallelism: Option<i64>,
    /// A task and its image; may be given again.
    #[arg(long = "task", value_name = "ID=IMAGE", value_parser = crate::pairs::pair)]
    tasks: Vec<(String, String)>,
    /// The configuration, in TOML or JSON; flags count where both say something.
    #[arg(long, short)]
    file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Extend {
    /// The pipeline, or namespace/pipeline.
    pipeline: String,
    /// The name that the extension is installed under.
    extension: String,
    /// Tells the pipeline's subscriptions to one extension apart.
    label: String,
    #[command(flatten)]
    settings: subscription::Parameters,
}

impl Command {
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
                session.api().enable_pipeline(request).await.map_err(not_found)?;
                done(session, "Enabled", &pipeline)
            }
            Self::Disable { pipeline } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::DisablePipelineRequest { namespace_id: namespace, id };
                session.api().disable_pipeline(request).await.map_err(not_found)?;
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
                    not_found(status)
                        .hint_on(Code::Unimplemented, "here the newest version is always live")
                })?;
                let id = answer.into_inner().deployment_id;
                let sentence = format!("Deployment {id} of {pipeline} has begun.");
                Ok(session.out.done(&sentence, &json!({ "deployment": id }))?)
            }
            Self::Delete { pipeline } => {
                let Pipeline { namespace, id } = session.pipeline(&pipeline);
                let request = proto::DeletePipelineRequest { namespace_id: namespace, id };
                session.api().delete_pipeline(patient(request)).await.map_err(not_found)?;
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

pub(crate) fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status)
        .hint_on(Code::NotFound, "`gofer pipeline list` shows the pipelines of a namespace")
}

async fn run_create(create: Create, session: &Session) -> Result<(), Failure> {
    let Create { pipeline, name, description, parallelism, tasks, file } = create;
    let Pipeline { namespace, id } = session.pipeline(&pipeline);
    let mut config = match file {
        Some(path) => pipeline_file::read(&path)?,
        None => proto::UserPipelineConfig::default(),
    };
    config.id = id;
    config.name = name.unwrap_or(config.name);
    config.description = description.unwrap_or(config.description);
    config.parallelism = parallelism.unwrap_or(config.parallelism);
    for (id, image) in tasks {
        config.tasks.retain(|task| task.id != id);
        config.tasks.push(proto::UserPipelineTaskConfig { id, image, ..Default::default() });
    }
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: namespace,
        pipeline_config: Some(config),
    };
    let answer = session.api().register_pipeline_config(request).await.map_err(|status| {
        Failure::from(status).hint_on(Code::NotFound, "`gofer namespace create` makes a namespace")
    })?;
    let made = answer.into_inner().pipeline.unwrap_or_default();
    let config = made.config.unwrap_or_default();
    let sentence =
        format!("Registered {}/{}, version {}.", config.namespace, config.pipeline, config.version);
    Ok(session.out.done(&sentence, &json_of(&made.metadata.unwrap_or_default(), &config))?)
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
        "The namespace {} has no pipelines; `gofer pipeline create` makes one.",
        session.settings.namespace
    );
    Ok(session.out.list(&all, &nothing)?)
}

async fn get(session: &Session, pipeline: Pipeline, version: i64) -> Result<(), Failure> {
    let request =
        proto::GetPipelineRequest { namespace_id: pipeline.namespace, id: pipeline.id, version };
    let answer = session.api().get_pipeline(request).await.map_err(not_found)?;
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
    let mood = match metadata.state() {
        PipelineState::Active => Mood::Good,
        PipelineState::Disabled => Mood::Off,
        PipelineState::Unknown => Mood::Bad,
    };
    Cell::mood(word(metadata.state().as_str_name()), mood)
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

/// Without the tasks' variables and logins, which may be secret.
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
