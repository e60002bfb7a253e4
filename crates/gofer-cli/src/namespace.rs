//! `gofer namespace`.

use clap::{Args, Subcommand};
use gofer_proto as proto;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Row, moment, rfc3339};
use crate::session::{Session, with_long_timeout};

#[derive(Subcommand)]
pub(crate) enum NamespaceCommand {
    /// Create a namespace.
    #[command(after_help = "\
Example:
  gofer namespace create ops --description 'What keeps us running'")]
    Create(NamespaceFields),
    /// List the namespaces that the token has access to.
    #[command(after_help = "Example:\n  gofer namespace list")]
    List,
    /// Show a namespace.
    #[command(after_help = "Example:\n  gofer namespace get ops")]
    Get {
        /// ID of the namespace.
        id: String,
    },
    /// Change the name or description of a namespace.
    #[command(after_help = "Example:\n  gofer namespace update ops --name Operations")]
    Update(NamespaceFields),
    /// Delete a namespace.
    #[command(after_help = "Example:\n  gofer namespace delete ops")]
    Delete {
        /// ID of the namespace.
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct NamespaceFields {
    /// ID of the namespace.
    id: String,
    /// Display name.
    #[arg(long)]
    name: Option<String>,
    /// Description.
    #[arg(long)]
    description: Option<String>,
}

impl NamespaceCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(NamespaceFields { id, name, description }) => {
                let request = proto::CreateNamespaceRequest {
                    name: name.unwrap_or_else(|| id.clone()),
                    description: description.unwrap_or_default(),
                    id: id.clone(),
                };
                let answer = session.api().create_namespace(request).await?;
                let json = answer.into_inner().namespace.unwrap_or_default().json();
                Ok(session.out.done(&format!("Created {id}."), &json)?)
            }
            Self::List => list(session).await,
            Self::Get { id } => {
                let namespace = get(session, &id).await?;
                let lines = vec![
                    ("id", namespace.id.clone().into()),
                    ("name", namespace.name.clone().into()),
                    ("description", namespace.description.clone().into()),
                    ("created", moment(namespace.created).into()),
                    ("modified", moment(namespace.modified).into()),
                ];
                Ok(session.out.details(lines, &namespace.json())?)
            }
            Self::Update(NamespaceFields { id, name, description }) => {
                // The request replaces both.
                let current = get(session, &id).await?;
                let request = proto::UpdateNamespaceRequest {
                    id: id.clone(),
                    name: name.unwrap_or(current.name),
                    description: description.unwrap_or(current.description),
                };
                session.api().update_namespace(request).await.map_err(not_found)?;
                Ok(session.out.done(&format!("Updated {id}."), &json!({ "updated": id }))?)
            }
            Self::Delete { id } => {
                let request = proto::DeleteNamespaceRequest { id: id.clone() };
                let answer = session.api().delete_namespace(with_long_timeout(request)).await;
                answer.map_err(not_found)?;
                Ok(session.out.done(&format!("Deleted {id}."), &json!({ "deleted": id }))?)
            }
        }
    }
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(Code::NotFound, "`gofer namespace list` shows the namespaces")
}

async fn get(session: &Session, id: &str) -> Result<proto::Namespace, Failure> {
    let request = proto::GetNamespaceRequest { id: id.to_owned() };
    let answer = session.api().get_namespace(request).await.map_err(not_found)?;
    Ok(answer.into_inner().namespace.unwrap_or_default())
}

async fn list(session: &Session) -> Result<(), Failure> {
    let mut all = Vec::new();
    loop {
        let offset = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let request = proto::ListNamespacesRequest { offset, limit: 0 };
        let page = session.api().list_namespaces(request).await?.into_inner().namespaces;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    Ok(session.out.list(&all, "The token does not have access to any namespace.")?)
}

impl Row for proto::Namespace {
    const HEADER: &'static [&'static str] = &["ID", "NAME", "DESCRIPTION", "CREATED"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.clone().into(),
            self.name.clone().into(),
            self.description.clone().into(),
            moment(self.created).into(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "created": rfc3339(self.created),
            "modified": rfc3339(self.modified),
        })
    }
}
