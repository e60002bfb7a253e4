//! `gofer secret`. A secret comes from the standard input or a file, never from
//! an argument, which others on the machine can read; it is shown only where one
//! asks for it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use console::Term;
use gofer_proto as proto;
use gofer_proto::SecretStoreKey;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, rfc3339};
use crate::session::{Pipeline, Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Keeps a secret, read from the standard input.
    #[command(after_help = "\
Example:
  gofer secret put token --pipeline nightly < token.txt
  gofer secret put token --global --for ops --for 'team-.*' --from-file token.txt

One line break at the end of the standard input is not part of the secret; a file
is taken as it is.")]
    Put(Put),
    /// Shows what is known of a secret, and with --reveal the secret itself.
    #[command(after_help = "\
Example:
  gofer secret get token --pipeline nightly --reveal")]
    Get {
        /// What it is known by.
        key: String,
        #[command(flatten)]
        place: Place,
        /// Write the secret itself to the standard output, and nothing else.
        #[arg(long)]
        reveal: bool,
    },
    /// Lists the keys of secrets.
    #[command(after_help = "Example:\n  gofer secret list --global")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Forgets a secret.
    #[command(after_help = "Example:\n  gofer secret delete token --pipeline nightly")]
    Delete {
        /// What it is known by.
        key: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Whose secret it is.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// Of this pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: Option<String>,
    /// Shared among namespaces, by those with a management token.
    #[arg(long)]
    global: bool,
}

#[derive(Args)]
pub(crate) struct Put {
    /// What it is known by.
    key: String,
    #[command(flatten)]
    place: Place,
    /// The namespaces whose pipelines may use a global secret, as a regular
    /// expression; may be given again.
    #[arg(long = "for", value_name = "PATTERN", conflicts_with = "pipeline")]
    namespaces: Vec<String>,
    /// Read the secret from this file.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Take the place of what the key holds.
    #[arg(long)]
    force: bool,
}

impl Place {
    /// `None` is the place of global ones.
    fn pipeline(&self, session: &Session) -> Option<Pipeline> {
        self.pipeline.as_deref().map(|text| session.pipeline(text))
    }
}

impl Command {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Put(put) => run_put(put, session).await,
            Self::Get { key, place, reveal } => {
                get(session, place.pipeline(session), key, reveal).await
            }
            Self::List { place } => list(session, place.pipeline(session)).await,
            Self::Delete { key, place } => {
                match place.pipeline(session) {
                    Some(Pipeline { namespace, id }) => {
                        let request = proto::DeletePipelineSecretRequest {
                            namespace_id: namespace,
                            pipeline_id: id,
                            key: key.clone(),
                        };
                        session.api().delete_pipeline_secret(request).await.map_err(not_found)?;
                    }
                    None => {
                        let request = proto::DeleteGlobalSecretRequest { key: key.clone() };
                        session.api().delete_global_secret(request).await.map_err(not_found)?;
                    }
                }
                Ok(session.out.done(&format!("Deleted {key}."), &json!({ "deleted": key }))?)
            }
        }
    }
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(Code::NotFound, "`gofer secret list` shows the keys there are")
}

fn taken(status: tonic::Status) -> Failure {
    Failure::from(status)
        .hint_on(Code::AlreadyExists, "--force takes the place of what the key holds")
}

fn read(put: &Put) -> Result<String, Failure> {
    if let Some(path) = &put.from_file {
        return std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error));
    }
    if io::stdin().is_terminal() {
        write!(io::stderr(), "The secret, which is not shown: ")?;
        return Ok(Term::stderr().read_secure_line()?);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let end = text.strip_suffix('\n').map_or(text.len(), str::len);
    let end = text[..end].strip_suffix('\r').map_or(end, str::len);
    text.truncate(end);
    Ok(text)
}

async fn run_put(put: Put, session: &Session) -> Result<(), Failure> {
    let content = read(&put)?;
    let Put { key, place, namespaces, force, .. } = put;
    if content.is_empty() {
        return Err(Failure::usage("the secret is empty")
            .hint("give it on the standard input, or with --from-file"));
    }
    match place.pipeline(session) {
        Some(Pipeline { namespace, id }) => {
            let request = proto::PutPipelineSecretRequest {
                namespace_id: namespace,
                pipeline_id: id,
                key: key.clone(),
                content,
                force,
            };
            session.api().put_pipeline_secret(request).await.map_err(taken)?;
        }
        None => {
            let key = key.clone();
            let request = proto::PutGlobalSecretRequest { key, content, namespaces, force };
            session.api().put_global_secret(request).await.map_err(taken)?;
        }
    }
    Ok(session.out.done(&format!("Kept {key}."), &json!({ "kept": key }))?)
}

async fn get(
    session: &Session,
    place: Option<Pipeline>,
    key: String,
    reveal: bool,
) -> Result<(), Failure> {
    let (metadata, secret) = match place {
        Some(Pipeline { namespace, id }) => {
            let request = proto::GetPipelineSecretRequest {
                namespace_id: namespace,
                pipeline_id: id,
                key,
                include_secret: reveal,
            };
            let answer = session.api().get_pipeline_secret(request).await.map_err(not_found)?;
            let answer = answer.into_inner();
            (answer.metadata, answer.secret)
        }
        None => {
            let request = proto::GetGlobalSecretRequest { key, include_secret: reveal };
            let answer = session.api().get_global_secret(request).await.map_err(not_found)?;
            let answer = answer.into_inner();
            (answer.metadata, answer.secret)
        }
    };
    let metadata = metadata.unwrap_or_default();
    let mut json = metadata.json();
    if reveal {
        if !session.out.json {
            let mut out = io::stdout().lock();
            out.write_all(secret.as_bytes())?;
            // As it is for a program, readable for a person.
            if io::stdout().is_terminal() {
                writeln!(out)?;
            }
            return Ok(out.flush()?);
        }
        json["secret"] = secret.into();
    }
    let lines = vec![
        ("key", metadata.key.clone().into()),
        ("namespaces", metadata.namespaces.join(", ").into()),
        ("created", moment(metadata.created).into()),
    ];
    Ok(session.out.details(lines, &json)?)
}

async fn list(session: &Session, place: Option<Pipeline>) -> Result<(), Failure> {
    let keys = match place {
        Some(Pipeline { namespace, id }) => {
            let request =
                proto::ListPipelineSecretsRequest { namespace_id: namespace, pipeline_id: id };
            let answer = session.api().list_pipeline_secrets(request).await;
            answer.map_err(crate::pipeline::not_found)?.into_inner().keys
        }
        None => {
            let request = proto::ListGlobalSecretsRequest {};
            session.api().list_global_secrets(request).await?.into_inner().keys
        }
    };
    Ok(session.out.list(&keys, "There are no secrets; `gofer secret put` keeps one.")?)
}

impl Row for SecretStoreKey {
    const HEADER: &'static [&'static str] = &["KEY", "NAMESPACES", "CREATED"];

    fn cells(&self) -> Vec<Cell> {
        let namespaces =
            if self.namespaces.is_empty() { "-".to_owned() } else { self.namespaces.join(", ") };
        vec![self.key.clone().into(), namespaces.into(), moment(self.created).into()]
    }

    fn json(&self) -> Value {
        json!({
            "key": self.key,
            "namespaces": self.namespaces,
            "created": rfc3339(self.created),
        })
    }
}
