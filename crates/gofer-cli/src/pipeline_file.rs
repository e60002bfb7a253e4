//! The file format of a pipeline's configuration.

use std::collections::HashMap;
use std::path::Path;

use gofer_proto::user_pipeline_task_config::RequiredParentStatus;
use gofer_proto::{RegistryAuth, UserPipelineConfig, UserPipelineTaskConfig};
use serde::Deserialize;

use crate::failure::Failure;
use crate::settings::invalid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineFile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parallelism: i64,
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    id: String,
    #[serde(default)]
    description: String,
    image: String,
    registry_auth: Option<TaskLogin>,
    /// The tasks that must have ended before, and how.
    #[serde(default)]
    depends_on: HashMap<String, Ended>,
    #[serde(default)]
    variables: HashMap<String, String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    inject_api_token: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskLogin {
    user: String,
    pass: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    Any,
    Success,
    Failure,
}

/// Reads JSON if the name ends in `.json`, and TOML otherwise.
pub(crate) fn read(path: &Path) -> Result<UserPipelineConfig, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    // Neither error contains values, which may be secret.
    let parsed = if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json")) {
        serde_json::from_str(&text)
            .map_err(|error| format!("invalid at line {}, column {}", error.line(), error.column()))
    } else {
        toml::from_str(&text).map_err(|error| invalid(&error))
    };
    let file: PipelineFile = parsed.map_err(|why| {
        Failure::usage(format!("the pipeline in `{}` is {why}", path.display()))
            .hint("`gofer pipeline create --help` shows an example")
    })?;
    Ok(UserPipelineConfig {
        id: String::new(),
        name: file.name,
        description: file.description,
        parallelism: file.parallelism,
        tasks: file.tasks.into_iter().map(UserPipelineTaskConfig::from).collect(),
    })
}

impl From<Task> for UserPipelineTaskConfig {
    fn from(task: Task) -> Self {
        Self {
            id: task.id,
            description: task.description,
            image: task.image,
            registry_auth: task
                .registry_auth
                .map(|TaskLogin { user, pass }| RegistryAuth { user, pass }),
            depends_on: task
                .depends_on
                .into_iter()
                .map(|(id, ended)| {
                    let status = match ended {
                        Ended::Any => RequiredParentStatus::Any,
                        Ended::Success => RequiredParentStatus::Success,
                        Ended::Failure => RequiredParentStatus::Failure,
                    };
                    (id, status.into())
                })
                .collect(),
            variables: task.variables,
            entrypoint: task.entrypoint,
            command: task.command,
            inject_api_token: task.inject_api_token,
        }
    }
}
