//! `gofer secret`. A secret comes from standard input or a file, never from an argument, which
//! other users of the machine can read. It is shown only on request.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use gofer_proto as proto;
use gofer_proto::SecretStoreKey;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, rfc3339};
use crate::pairs::without_line_break;
use crate::session::{Pipeline, Session};
use crate::terminal;

#[derive(Subcommand)]
pub(crate) enum SecretCommand {
    /// Store a secret, read from standard input.
    #[command(after_help = "\
Example:
  gofer secret put token --pipeline nightly < token.txt
  gofer secret put token --global --for ops --for 'team-.*' --from-file token.txt

One line break at the end of standard input is removed; a file is stored unchanged.")]
    Put(PutSecret),
    /// Show information about a secret, or with --reveal the secret itself.
    #[command(after_help = "\
Example:
  gofer secret get token --pipeline nightly --reveal")]
    Get {
        /// Key of the secret.
        key: String,
        #[command(flatten)]
        scope: SecretScope,
        /// Print the secret itself, and nothing else.
        #[arg(long)]
        reveal: bool,
    },
    /// List the keys of secrets.
    #[command(after_help = "Example:\n  gofer secret list --global")]
    List {
        #[command(flatten)]
        scope: SecretScope,
    },
    /// Delete a secret.
    #[command(after_help = "Example:\n  gofer secret delete token --pipeline nightly")]
    Delete {
        /// Key of the secret.
        key: String,
        #[command(flatten)]
        scope: SecretScope,
    },
}

/// What the secret belongs to.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SecretScope {
    /// Pipeline that the secret belongs to, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: Option<String>,
    /// A global secret, which needs a management token.
    #[arg(long)]
    global: bool,
}

#[derive(Args)]
pub(crate) struct PutSecret {
    /// Key of the secret.
    key: String,
    #[command(flatten)]
    scope: SecretScope,
    /// Namespaces whose pipelines may use a global secret, as a regular expression; can be
    /// repeated. Without it, none may.
    #[arg(long = "for", value_name = "PATTERN", conflicts_with = "pipeline")]
    namespaces: Vec<String>,
    /// Read the secret from this file.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Replace an existing secret.
    #[arg(long)]
    force: bool,
}

impl SecretScope {
    /// `None` for global secrets.
    fn pipeline(&self, session: &Session) -> Option<Pipeline> {
        self.pipeline.as_deref().map(|text| session.pipeline(text))
    }
}

impl SecretCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Put(put) => run_put(put, session).await,
            Self::Get { key, scope, reveal } => {
                get(session, scope.pipeline(session), key, reveal).await
            }
            Self::List { scope } => list(session, scope.pipeline(session)).await,
            Self::Delete { key, scope } => {
                match scope.pipeline(session) {
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
    Failure::from(status).hint_on(
        Code::NotFound,
        "`gofer secret list --pipeline <pipeline>`, or --global, shows the keys",
    )
}

fn already_exists(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(Code::AlreadyExists, "--force replaces it")
}

async fn read(put: &PutSecret) -> Result<String, Failure> {
    if let Some(path) = &put.from_file {
        return std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error));
    }
    if let Some(secret) = terminal::ask_secret("Secret").await? {
        return Ok(secret);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(without_line_break(text))
}

async fn run_put(put: PutSecret, session: &Session) -> Result<(), Failure> {
    let content = read(&put).await?;
    let PutSecret { key, scope, namespaces, force, .. } = put;
    if content.is_empty() {
        return Err(Failure::usage("the secret is empty")
            .hint("pass it on standard input, or with --from-file"));
    }
    let is_for_none = scope.global && namespaces.is_empty();
    match scope.pipeline(session) {
        Some(Pipeline { namespace, id }) => {
            let request = proto::PutPipelineSecretRequest {
                namespace_id: namespace,
                pipeline_id: id,
                key: key.clone(),
                content,
                force,
            };
            session.api().put_pipeline_secret(request).await.map_err(already_exists)?;
        }
        None => {
            let key = key.clone();
            let request = proto::PutGlobalSecretRequest { key, content, namespaces, force };
            session.api().put_global_secret(request).await.map_err(already_exists)?;
        }
    }
    let which = if is_for_none { " No namespace may use it yet: see --for." } else { "" };
    Ok(session.out.done(&format!("Stored {key}.{which}"), &json!({ "stored": key }))?)
}

async fn get(
    session: &Session,
    scope: Option<Pipeline>,
    key: String,
    reveal: bool,
) -> Result<(), Failure> {
    let (metadata, secret) = match scope {
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
            // Unchanged for a program, on a line of its own for a person.
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

async fn list(session: &Session, scope: Option<Pipeline>) -> Result<(), Failure> {
    let keys = match scope {
        Some(Pipeline { namespace, id }) => {
            let request =
                proto::ListPipelineSecretsRequest { namespace_id: namespace, pipeline_id: id };
            let answer = session.api().list_pipeline_secrets(request).await;
            answer.map_err(crate::pipeline::pipeline_not_found)?.into_inner().keys
        }
        None => {
            let request = proto::ListGlobalSecretsRequest {};
            session.api().list_global_secrets(request).await?.into_inner().keys
        }
    };
    Ok(session.out.list(&keys, "There are no secrets; `gofer secret put` stores one.")?)
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
