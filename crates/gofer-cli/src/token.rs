//! `gofer token`. A token itself is shown only once, when it is created; later its digest names it.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind as Requested;
use serde_json::{Value, json};
use tonic::Code;

use crate::failure::Failure;
use crate::output::{Cell, Health, Row, moment, note, rfc3339, word};
use crate::pairs::unique;
use crate::session::Session;
use crate::settings::{ConfigFile, Connection};
use crate::terminal;

/// As good as no end, which Gofer does not accept: a hundred years.
pub(crate) const NO_END: &str = "876000h";

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Create the first token of a new Gofer, a management token. Works only once.
    #[command(after_help = "\
Example:
  gofer token bootstrap --save --address gofer.example.com:443

Without --save, the token is only printed. An embedded core accepts this only if it
was started with --allow-bootstrap; without that, `gofer service start` keeps the
first token for the user who starts it.")]
    Bootstrap {
        /// Save it in the configuration file, with the address and certificates.
        #[arg(long)]
        save: bool,
        /// Replace the token in that file, which is lost.
        #[arg(long, requires = "save")]
        force: bool,
    },
    /// Create a token.
    #[command(after_help = "\
Example:
  gofer token create client --for ops --for 'team-.*' --expires 720h --note owner=ops
  gofer token create management

The token is shown only this once.")]
    Create(CreateToken),
    /// List all tokens, or those with access to a namespace.
    #[command(after_help = "Example:\n  gofer token list --of ops")]
    List {
        /// Only tokens with access to this namespace.
        #[arg(long, value_name = "NAMESPACE", default_value = "", hide_default_value = true)]
        of: String,
    },
    /// Show information about a token.
    #[command(after_help = "Example:\n  gofer token get 1f0e9d8c7b6a5948")]
    Get(TokenArg),
    /// Enable a disabled token again.
    #[command(after_help = "Example:\n  gofer token enable 1f0e9d8c7b6a5948")]
    Enable(TokenArg),
    /// Disable a token until it is enabled again.
    #[command(after_help = "\
Example:
  gofer token disable 1f0e9d8c7b6a5948
  gofer token disable < token.txt

A full Gofer requires the token itself.")]
    Disable(TokenArg),
    /// Delete a token.
    #[command(after_help = "\
Example:
  gofer token delete 1f0e9d8c7b6a5948
  gofer token delete < token.txt

A full Gofer requires the token itself.")]
    Delete(TokenArg),
}

#[derive(Args)]
pub(crate) struct CreateToken {
    /// Kind of token.
    kind: TokenKind,
    /// Namespaces that a client token has access to, as a regular expression; can be repeated.
    #[arg(long = "for", value_name = "PATTERN", required_if_eq("kind", "client"))]
    namespaces: Vec<String>,
    /// How long it is valid, such as `720h`; by default for a hundred years.
    #[arg(long, value_name = "DURATION", default_value = NO_END, hide_default_value = true)]
    expires: String,
    /// Note, such as who owns the token; can be repeated.
    #[arg(long = "note", value_name = "KEY=VALUE")]
    notes: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenKind {
    /// Full access.
    Management,
    /// Access to the namespaces in --for.
    Client,
}

#[derive(Args)]
pub(crate) struct TokenArg {
    /// Token, or at least 8 digits of its digest, as in `gofer token list`; read from standard
    /// input by default.
    #[arg(value_name = "TOKEN|DIGEST")]
    which: Option<String>,
}

impl TokenArg {
    async fn read(self) -> Result<String, Failure> {
        if let Some(token) = self.which.filter(|token| token != "-") {
            return Ok(token);
        }
        let line = match terminal::ask_secret("Token").await? {
            None => terminal::read_line()?.unwrap_or_default(),
            Some(typed) => typed,
        };
        match line.trim() {
            "" => Err(Failure::usage("a token is missing").hint("pass it on standard input")),
            token => Ok(token.to_owned()),
        }
    }
}

impl TokenCommand {
    pub(crate) async fn run(
        self,
        session: &Session,
        connection: &Connection,
    ) -> Result<(), Failure> {
        match self {
            Self::Bootstrap { save, force } => bootstrap(session, connection, save, force).await,
            Self::Create(create) => run_create(create, session).await,
            Self::List { of } => {
                let request = proto::ListTokensRequest { namespace: of };
                let answer = session.api().list_tokens(request).await?;
                Ok(session.out.list(&answer.into_inner().tokens, "There are no tokens.")?)
            }
            Self::Get(which) => {
                let request = proto::GetTokenRequest { token: which.read().await? };
                let answer = session.api().get_token(request).await.map_err(not_found)?;
                let details = answer.into_inner().details.unwrap_or_default();
                Ok(session.out.details(lines(&details), &details.json())?)
            }
            Self::Enable(which) => {
                let request = proto::EnableTokenRequest { token: which.read().await? };
                session.api().enable_token(request).await.map_err(not_found)?;
                Ok(session.out.done("Enabled the token.", &json!({ "enabled": true }))?)
            }
            Self::Disable(which) => {
                let request = proto::DisableTokenRequest { token: which.read().await? };
                session.api().disable_token(request).await.map_err(not_found)?;
                Ok(session.out.done("Disabled the token.", &json!({ "enabled": false }))?)
            }
            Self::Delete(which) => {
                let request = proto::DeleteTokenRequest { token: which.read().await? };
                session.api().delete_token(request).await.map_err(not_found)?;
                Ok(session.out.done("Deleted the token.", &json!({ "deleted": true }))?)
            }
        }
    }
}

fn not_found(status: tonic::Status) -> Failure {
    Failure::from(status).hint_on(
        Code::NotFound,
        "`gofer token list` shows the digests of an embedded core's tokens; a full \
             Gofer requires the token itself",
    )
}

async fn bootstrap(
    session: &Session,
    connection: &Connection,
    save: bool,
    force: bool,
) -> Result<(), Failure> {
    // Bootstrapping works only once: find out first whether the file can be written.
    let path = connection.file()?;
    let mut file = ConfigFile::read(&path)?;
    if save && file.token.is_some() && !force {
        let path = path.display();
        return Err(Failure::usage(format!("`{path}` already has a token")).hint(
            "use another file for another Gofer, with --config or GOFER_CONFIG; --force replaces \
             the token, which cannot be recovered",
        ));
    }
    if save {
        file.write(&path)?;
    }
    let answer = session.api().bootstrap_token(proto::BootstrapTokenRequest {}).await;
    let answer = answer.map_err(|status| {
        Failure::from(status).hint_on(
            Code::FailedPrecondition,
            "`gofer token create` creates another one, given a management token",
        )
    })?;
    let answer = answer.into_inner();
    if !save {
        let json = json!({ "token": answer.token });
        return Ok(session.out.done(&answer.token, &json)?);
    }
    let settings = &session.settings;
    file.address = Some(settings.address.clone());
    file.token = Some(answer.token.clone());
    file.ca = match &settings.ca {
        Some(path) => Some(std::path::absolute(path)?),
        None => None,
    };
    file.skip_tls_verify = settings.skip_tls_verify.then_some(true);
    if let Err(failure) = file.write(&path) {
        // It cannot be created a second time.
        note("The token could not be saved; it is on standard output.")?;
        session.out.done(&answer.token, &json!({ "token": answer.token }))?;
        return Err(failure);
    }
    let path = path.display().to_string();
    let sentence = format!("Logged in to {}. The token is saved in {path}.", settings.address);
    Ok(session.out.done(&sentence, &json!({ "address": settings.address, "config": path }))?)
}

async fn run_create(create: CreateToken, session: &Session) -> Result<(), Failure> {
    let CreateToken { kind, namespaces, expires, notes } = create;
    let kind = match kind {
        TokenKind::Management => Requested::Management,
        TokenKind::Client => Requested::Client,
    };
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces,
        metadata: unique(&notes, "--note KEY=VALUE", |a, b| a == b)?,
        expires,
    };
    let answer = session.api().create_token(request).await?.into_inner();
    let mut json = answer.details.unwrap_or_default().json();
    json["token"] = answer.token.clone().into();
    // Nothing else, so that a script can capture it.
    Ok(session.out.done(&answer.token, &json)?)
}

/// The metadata in which an embedded core shows the first digits of a token's digest.
const DIGEST: &str = "gofer-sdk.sha256";

fn digest(token: &proto::Token) -> Option<&String> {
    token.metadata.get(DIGEST)
}

fn notes(token: &proto::Token) -> BTreeMap<&String, &String> {
    token.metadata.iter().filter(|(key, _)| *key != DIGEST).collect()
}

fn state(token: &proto::Token) -> Cell {
    if token.disabled {
        Cell::health("disabled", Health::Off)
    } else {
        Cell::health("enabled", Health::Good)
    }
}

fn expiry(token: &proto::Token) -> String {
    if token.expires == 0 { "never".to_owned() } else { moment(token.expires) }
}

fn notes_line(token: &proto::Token) -> String {
    notes(token).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

fn lines(token: &proto::Token) -> Vec<(&'static str, Cell)> {
    vec![
        ("digest", digest(token).cloned().unwrap_or_default().into()),
        ("kind", word(token.kind().as_str_name()).into()),
        ("namespaces", token.namespaces.join(", ").into()),
        ("state", state(token)),
        ("created", moment(token.created).into()),
        ("expires", expiry(token).into()),
        ("notes", notes_line(token).into()),
    ]
}

impl Row for proto::Token {
    const HEADER: &'static [&'static str] =
        &["DIGEST", "KIND", "NAMESPACES", "STATE", "CREATED", "EXPIRES", "NOTES"];

    fn cells(&self) -> Vec<Cell> {
        lines(self).into_iter().map(|(_, cell)| cell).collect()
    }

    fn json(&self) -> Value {
        json!({
            "digest": digest(self),
            "kind": word(self.kind().as_str_name()),
            "namespaces": self.namespaces,
            "enabled": !self.disabled,
            "created": rfc3339(self.created),
            "expires": rfc3339(self.expires),
            "notes": notes(self),
        })
    }
}
