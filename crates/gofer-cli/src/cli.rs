//! The top-level commands and the flags that all commands share. The arguments of a subcommand are
//! in the module of its noun.

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::output::Out;
use crate::session::Session;
use crate::settings::{Connection, Settings};
use crate::{
    completions, config, event, extension, namespace, object, pipeline, run, secret, service,
    subscription, token,
};

const EXAMPLE: &str = "\
Example:
  gofer service start --allow-programs
  gofer extension install interval exec:target/debug/examples/interval -i
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer event list --follow";

const LONG: &str = "\
Example:
  gofer service start --allow-programs
  gofer extension install interval exec:target/debug/examples/interval -i
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer event list --follow

Settings:
  Flags override environment variables, which override the configuration file.
  The file is GOFER_CONFIG, or gofer/config.toml in XDG_CONFIG_HOME or ~/.config.
  For an address that it has no token for, cores.toml beside it has the cores that
  you started.

Exit codes:
  0    success
  1    any other error
  2    invalid command, argument or value
  3    not found
  4    already exists, or not in a state that allows this
  5    token missing, invalid or without access
  6    Gofer is unreachable or did not respond in time
  7    not supported by this Gofer
  8    the run that --wait waited for did not succeed";

/// Manage Gofer: extensions, pipelines, runs and more.
#[derive(Parser)]
#[command(name = "gofer", version, after_help = EXAMPLE, after_long_help = LONG)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start or back up a Gofer core, or show which Gofer you are connected to.
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Install and manage extensions, and subscribe pipelines to them.
    #[command(subcommand, visible_alias = "ext")]
    Extension(extension::ExtensionCommand),
    /// Manage a pipeline's subscriptions to extensions.
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Manage pipelines.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Start, show and cancel runs of pipelines.
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Manage namespaces, which separate the pipelines of different owners.
    #[command(subcommand)]
    Namespace(namespace::NamespaceCommand),
    /// Show what happened in Gofer.
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Manage secrets that settings can refer to.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Manage objects, files that the runs of a pipeline share.
    #[command(subcommand)]
    Object(object::ObjectCommand),
    /// Manage tokens, which grant access.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show and change the configuration file of this program.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print completions for a shell.
    Completions(completions::Completions),
}

impl Command {
    /// Whether this starts a core, rather than call one.
    pub(crate) fn is_core(&self) -> bool {
        matches!(self, Self::Service(service::ServiceCommand::Start(_)))
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let out = Out::new(connection.json);
        // These need no Gofer, and have to work even if the settings are invalid.
        match self {
            Self::Service(service::ServiceCommand::Start(start)) => {
                return service::start::run(*start, connection, out).await;
            }
            Self::Config(command) => return command.run(connection, out).await,
            Self::Completions(command) => return command.run(),
            _ => {}
        }
        let settings = match &self {
            Self::Token(token::TokenCommand::Bootstrap { .. }) => {
                Settings::resolve_without_token(connection)
            }
            _ => Settings::resolve(connection),
        };
        let session = Session::new(settings?, out)?;
        match self {
            Self::Service(command) => command.run(&session).await,
            Self::Extension(command) => command.run(&session).await,
            Self::Subscription(command) => command.run(&session).await,
            Self::Pipeline(command) => command.run(&session).await,
            Self::Run(command) => command.run(&session).await,
            Self::Namespace(command) => command.run(&session).await,
            Self::Event(command) => command.run(&session).await,
            Self::Secret(command) => command.run(&session).await,
            Self::Object(command) => command.run(&session).await,
            Self::Token(command) => command.run(&session, connection).await,
            Self::Config(_) | Self::Completions(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
