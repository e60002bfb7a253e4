//! The whole grammar: what every command understands, and which commands there
//! are. What a command understands beside this is in the module of its noun.

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
  gofer service start
  gofer extension install interval exec:target/debug/examples/interval -i
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer event list --follow";

const LONG: &str = "\
Example:
  gofer service start
  gofer extension install interval exec:target/debug/examples/interval -i
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer event list --follow

Where settings come from:
  A flag comes before the environment, the environment before the configuration
  file: GOFER_CONFIG, or gofer/config.toml in XDG_CONFIG_HOME or ~/.config.

Exit codes:
  0    it is done
  1    it failed, for a reason that no other code stands for
  2    the command is not understood, or a value in it is not acceptable
  3    what it names is not there
  4    what it names is there already, or not in a state for this
  5    the token is missing, not accepted, or gives no access to this
  6    Gofer cannot be reached, or did not answer in time
  7    this Gofer does not have what is asked for
  8    the run that was waited for did not succeed";

/// Works with a Gofer: extensions, pipelines, runs and what they need.
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
    /// A Gofer core of your own, and the Gofer that is talked to.
    #[command(subcommand)]
    Service(service::Command),
    /// Extensions: install, look after, subscribe pipelines to them.
    #[command(subcommand, visible_alias = "ext")]
    Extension(extension::Command),
    /// Subscriptions of a pipeline to extensions.
    #[command(subcommand)]
    Subscription(subscription::Command),
    /// Pipelines: what can be run.
    #[command(subcommand)]
    Pipeline(pipeline::Command),
    /// Runs of pipelines.
    #[command(subcommand)]
    Run(run::Command),
    /// Namespaces, which keep the pipelines of different owners apart.
    #[command(subcommand)]
    Namespace(namespace::Command),
    /// What happened in Gofer.
    #[command(subcommand)]
    Event(event::Command),
    /// Secrets that settings may refer to.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Objects: files that the runs of a pipeline share.
    #[command(subcommand)]
    Object(object::Command),
    /// Tokens: who has access.
    #[command(subcommand)]
    Token(token::Command),
    /// The configuration file of this program.
    #[command(subcommand)]
    Config(config::Command),
    /// Prints the completions of a shell.
    Completions(completions::Command),
}

impl Command {
    /// Whether it is a core and not a call.
    pub(crate) fn is_core(&self) -> bool {
        matches!(self, Self::Service(service::Command::Start(_)))
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let out = Out::new(connection.json);
        // These need no Gofer, and help with settings that are not right.
        match self {
            Self::Service(service::Command::Start(start)) => {
                return service::start::run(*start, connection, out).await;
            }
            Self::Config(command) => return command.run(connection, out),
            Self::Completions(command) => return command.run(),
            _ => {}
        }
        let session = Session::new(Settings::resolve(connection)?, out)?;
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
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_grammar_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    fn check(command: &clap::Command, path: &str) {
        for command in command.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing of itself");
            if command.has_subcommands() {
                check(command, &path);
                continue;
            }
            for argument in command.get_positionals().chain(command.get_opts()) {
                assert!(argument.get_help().is_some(), "{path}: {} is not told", argument.get_id());
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("Example:\n  {path}")), "{path} has no example");
        }
    }

    /// A flag of all commands and one of a single command would be one to clap,
    /// of either's type.
    fn check_names(command: &clap::Command, taken: &[&clap::Id]) {
        for command in command.get_subcommands() {
            for argument in command.get_arguments() {
                let (id, command) = (argument.get_id(), command.get_name());
                assert!(!taken.contains(&id), "`{id}` of {command} is a flag of all commands");
            }
            check_names(command, taken);
        }
    }

    #[test]
    fn no_command_takes_a_name_that_all_commands_have() {
        let command = Cli::command();
        let taken: Vec<_> = command.get_arguments().map(clap::Arg::get_id).collect();
        assert!(taken.len() > 3);
        check_names(&command, &taken);
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_it() {
        check(&Cli::command(), "gofer");
    }
}
