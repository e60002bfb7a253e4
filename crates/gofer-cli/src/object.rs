//! `gofer object`: files that belong to a pipeline, or to one of its runs.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::ObjectStoreKey;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, note, rfc3339};
use crate::session::{Pipeline, Session, with_long_timeout};

#[derive(Subcommand)]
pub(crate) enum ObjectCommand {
    /// Store a file, or standard input.
    #[command(after_help = "\
Example:
  gofer object put config.json config.json --pipeline nightly
  make-report | gofer object put report.txt - --pipeline nightly --run 7")]
    Put(PutObject),
    /// Write an object to standard output, or to a file.
    #[command(after_help = "\
Example:
  gofer object get config.json --pipeline nightly > config.json

The content is written unchanged, even with --json.")]
    Get {
        /// Key of the object.
        key: String,
        #[command(flatten)]
        scope: ObjectScope,
        /// Write it to this file.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List the keys of objects.
    #[command(after_help = "Example:\n  gofer object list --pipeline nightly --run 7")]
    List {
        #[command(flatten)]
        scope: ObjectScope,
    },
    /// Delete an object.
    #[command(after_help = "Example:\n  gofer object delete config.json --pipeline nightly")]
    Delete {
        /// Key of the object.
        key: String,
        #[command(flatten)]
        scope: ObjectScope,
    },
}

/// What the object belongs to.
#[derive(Args)]
pub(crate) struct ObjectScope {
    /// Pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
    /// Number of the run that the object belongs to.
    #[arg(long)]
    run: Option<i64>,
}

#[derive(Args)]
pub(crate) struct PutObject {
    /// Key of the object.
    key: String,
    /// File to store; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    scope: ObjectScope,
    /// Replace an existing object.
    #[arg(long)]
    force: bool,
}

impl ObjectCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Put(put) => run_put(put, session).await,
            Self::Get { key, scope, output } => get(session, scope, key, output.as_deref()).await,
            Self::List { scope } => list(session, scope).await,
            Self::Delete { key, scope } => delete(session, scope, key).await,
        }
    }
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status)
        .hint_on(Code::NotFound, "`gofer object list --pipeline <pipeline>` shows the keys")
}

fn already_exists(status: tonic::Status) -> Failure {
    not_found(status).hint_on(Code::AlreadyExists, "--force replaces it")
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        let mut content = Vec::new();
        io::stdin().read_to_end(&mut content)?;
        return Ok(content);
    }
    std::fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

async fn run_put(put: PutObject, session: &Session) -> Result<(), Failure> {
    let PutObject { key, file, scope, force } = put;
    let content = read(&file)?.into();
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&scope.pipeline);
    let bytes = if let Some(run_id) = scope.run {
        let key = key.clone();
        let request =
            proto::PutRunObjectRequest { namespace_id, pipeline_id, run_id, key, content, force };
        let answer = session.api().put_run_object(with_long_timeout(request)).await;
        answer.map_err(already_exists)?.into_inner().bytes
    } else {
        let key = key.clone();
        let request =
            proto::PutPipelineObjectRequest { namespace_id, pipeline_id, key, content, force };
        let answer = session.api().put_pipeline_object(with_long_timeout(request)).await;
        let answer = answer.map_err(already_exists)?.into_inner();
        if !answer.object_evicted.is_empty() {
            note(&format!(
                "Removed the oldest object, {}: a pipeline keeps at most {} objects.",
                answer.object_evicted, answer.object_limit
            ))?;
        }
        answer.bytes
    };
    let json = json!({ "key": key, "bytes": bytes });
    Ok(session.out.done(&format!("Stored {key} ({bytes} bytes)."), &json)?)
}

async fn get(
    session: &Session,
    scope: ObjectScope,
    key: String,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&scope.pipeline);
    let content = if let Some(run_id) = scope.run {
        let request = proto::GetRunObjectRequest { namespace_id, pipeline_id, run_id, key };
        let answer = session.api().get_run_object(with_long_timeout(request)).await;
        answer.map_err(not_found)?.into_inner().content
    } else {
        let request = proto::GetPipelineObjectRequest { namespace_id, pipeline_id, key };
        let answer = session.api().get_pipeline_object(with_long_timeout(request)).await;
        answer.map_err(not_found)?.into_inner().content
    };
    match output {
        Some(path) => {
            std::fs::write(path, &content).map_err(|error| Failure::file("write", path, &error))
        }
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&content)?;
            Ok(out.flush()?)
        }
    }
}

async fn list(session: &Session, scope: ObjectScope) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&scope.pipeline);
    let keys = if let Some(run_id) = scope.run {
        let request = proto::ListRunObjectsRequest { namespace_id, pipeline_id, run_id };
        session.api().list_run_objects(request).await?.into_inner().keys
    } else {
        let request = proto::ListPipelineObjectsRequest { namespace_id, pipeline_id };
        let answer = session.api().list_pipeline_objects(request).await;
        answer.map_err(crate::pipeline::pipeline_not_found)?.into_inner().keys
    };
    Ok(session.out.list(&keys, "There are no objects; `gofer object put` stores one.")?)
}

async fn delete(session: &Session, scope: ObjectScope, key: String) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&scope.pipeline);
    let deleted = key.clone();
    if let Some(run_id) = scope.run {
        let request = proto::DeleteRunObjectRequest { namespace_id, pipeline_id, run_id, key };
        session.api().delete_run_object(request).await.map_err(not_found)?;
    } else {
        let request = proto::DeletePipelineObjectRequest { namespace_id, pipeline_id, key };
        session.api().delete_pipeline_object(request).await.map_err(not_found)?;
    }
    Ok(session.out.done(&format!("Deleted {deleted}."), &json!({ "deleted": deleted }))?)
}

impl Row for ObjectStoreKey {
    const HEADER: &'static [&'static str] = &["KEY", "CREATED"];

    fn cells(&self) -> Vec<Cell> {
        vec![self.key.clone().into(), moment(self.created).into()]
    }

    fn json(&self) -> Value {
        json!({ "key": self.key, "created": rfc3339(self.created) })
    }
}
