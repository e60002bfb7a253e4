//! `gofer object`: files that the runs of a pipeline share, or that belong to
//! one run.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::ObjectStoreKey;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, note, rfc3339};
use crate::session::{Pipeline, Session, patient};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Keeps a file, or the standard input.
    #[command(after_help = "\
Example:
  gofer object put config.json config.json --pipeline nightly
  make-report | gofer object put report.txt - --pipeline nightly --run 7")]
    Put(Put),
    /// Writes an object to the standard output, or a file.
    #[command(after_help = "\
Example:
  gofer object get config.json --pipeline nightly > config.json

It is written as it is, with --json too.")]
    Get {
        /// What it is known by.
        key: String,
        #[command(flatten)]
        place: Place,
        /// Write it to this file.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Lists the keys of objects.
    #[command(after_help = "Example:\n  gofer object list --pipeline nightly --run 7")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Removes an object.
    #[command(after_help = "Example:\n  gofer object delete config.json --pipeline nightly")]
    Delete {
        /// What it is known by.
        key: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Whose object it is.
#[derive(Args)]
pub(crate) struct Place {
    /// The pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
    /// Of this run alone.
    #[arg(long)]
    run: Option<i64>,
}

#[derive(Args)]
pub(crate) struct Put {
    /// What it is known by.
    key: String,
    /// What to keep; `-` is the standard input.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Take the place of what the key holds.
    #[arg(long)]
    force: bool,
}

impl Command {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Put(put) => run_put(put, session).await,
            Self::Get { key, place, output } => get(session, place, key, output.as_deref()).await,
            Self::List { place } => list(session, place).await,
            Self::Delete { key, place } => delete(session, place, key).await,
        }
    }
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(
        Code::NotFound,
        "`gofer object list --pipeline <pipeline>` shows the keys there are",
    )
}

fn taken(status: tonic::Status) -> Failure {
    not_found(status).hint_on(Code::AlreadyExists, "--force takes the place of what the key holds")
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        let mut content = Vec::new();
        io::stdin().read_to_end(&mut content)?;
        return Ok(content);
    }
    std::fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

async fn run_put(put: Put, session: &Session) -> Result<(), Failure> {
    let Put { key, file, place, force } = put;
    let content = read(&file)?.into();
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&place.pipeline);
    let bytes = if let Some(run_id) = place.run {
        let key = key.clone();
        let request =
            proto::PutRunObjectRequest { namespace_id, pipeline_id, run_id, key, content, force };
        let answer = session.api().put_run_object(patient(request)).await.map_err(taken)?;
        answer.into_inner().bytes
    } else {
        let key = key.clone();
        let request =
            proto::PutPipelineObjectRequest { namespace_id, pipeline_id, key, content, force };
        let answer = session.api().put_pipeline_object(patient(request)).await.map_err(taken)?;
        let answer = answer.into_inner();
        if !answer.object_evicted.is_empty() {
            note(&format!(
                "{} had to give way: {} objects of a pipeline are kept.",
                answer.object_evicted, answer.object_limit
            ))?;
        }
        answer.bytes
    };
    let json = json!({ "key": key, "bytes": bytes });
    Ok(session.out.done(&format!("Kept {key}, {bytes} bytes."), &json)?)
}

async fn get(
    session: &Session,
    place: Place,
    key: String,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&place.pipeline);
    let content = if let Some(run_id) = place.run {
        let request = proto::GetRunObjectRequest { namespace_id, pipeline_id, run_id, key };
        session
            .api()
            .get_run_object(patient(request))
            .await
            .map_err(not_found)?
            .into_inner()
            .content
    } else {
        let request = proto::GetPipelineObjectRequest { namespace_id, pipeline_id, key };
        let answer =
            session.api().get_pipeline_object(patient(request)).await.map_err(not_found)?;
        answer.into_inner().content
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

async fn list(session: &Session, place: Place) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&place.pipeline);
    let keys = if let Some(run_id) = place.run {
        let request = proto::ListRunObjectsRequest { namespace_id, pipeline_id, run_id };
        session.api().list_run_objects(request).await?.into_inner().keys
    } else {
        let request = proto::ListPipelineObjectsRequest { namespace_id, pipeline_id };
        let answer = session.api().list_pipeline_objects(request).await;
        answer.map_err(crate::pipeline::not_found)?.into_inner().keys
    };
    Ok(session.out.list(&keys, "There are no objects; `gofer object put` keeps one.")?)
}

async fn delete(session: &Session, place: Place, key: String) -> Result<(), Failure> {
    let Pipeline { namespace: namespace_id, id: pipeline_id } = session.pipeline(&place.pipeline);
    let deleted = key.clone();
    if let Some(run_id) = place.run {
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
