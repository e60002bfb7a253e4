//! `gofer extension`: installed extensions and subscriptions to them.

mod change;
mod full;
mod show;
mod subscriptions;

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, Subcommand};
use gofer_core::Grant;
use gofer_core::internal::Size;
use gofer_sdk::GoDuration;

use crate::failure::Failure;
use crate::session::Session;
use crate::subscription;

#[derive(Subcommand)]
pub(crate) enum ExtensionCommand {
    /// Install an extension and wait until it is ready.
    #[command(after_help = "\
Example:
  gofer extension install interval registry.example.com/interval:1.0 -c min_interval=1m
  gofer extension install interval exec:target/debug/examples/interval -i
  gofer extension install github registry.example.com/github:1.0 -c secret=@secret.txt

An image is the name of a container image. An image `exec:<path>` is a program on
the core's machine, for a core that was started with --allow-programs; a relative
path is resolved against the core's working directory. A full Gofer supports only
container images.

A value `@FILE` is read from a file, and `-` from standard input, so that a secret stays
out of the shell's history; one line break at the end is removed. `@@` stands for an
`@` at the beginning. With -i, you are asked again for what the extension refuses.

An extension has access to the pipelines that are subscribed to it. Grants allow more:
  read-secrets    read the secrets of these pipelines
  write-secrets   write and delete these secrets
  global-secrets  read all global secrets
  namespaces      in the namespaces of these pipelines, what a client token may do
  everything      what a management token may do

The limits --memory, --processes and --writable-root are for containers, the timeouts
for all extensions. The questions of -i are asked with the default limits.")]
    Install(Install),
    /// Replace the image, the configuration or the options of an installed extension.
    #[command(after_help = "\
Example:
  gofer extension update interval --image registry.example.com/interval:1.1
  gofer extension update interval -c min_interval=30s --remove jitter
  gofer extension update interval --grant read-secrets --for ops --for 'team-.*'
  gofer extension update interval --memory 1GiB --reset start-timeout

The old instance serves until the new one is ready, and stays if the new one does
not become ready. Subscriptions are kept, and so is what is not given. --grant and
--for replace all grants and patterns from before.

A value `@FILE` is read from a file, and `-` from standard input.")]
    Update(Update),
    /// List the installed extensions and their states.
    #[command(after_help = "Example:\n  gofer extension list")]
    List,
    /// Show an extension, its subscriptions and its documentation.
    #[command(after_help = "\
Example:
  gofer extension get interval

Each subscription is shown with its state, the time of the last tick for which a run
was started, the time of the next tick, and the last error since that. The states:

  active    The extension acts for it.
  failed    The extension failed for it and waits to try again.
  returned  Nothing is scheduled any more; webhooks still reach it.
  inactive  It is not in effect; the last error says why.
  disabled  It is disabled.
  unknown   The extension does not run, does not answer or does not report this.

--json lists them all, and not only the first 100. There, `problem` says why one is
not in effect; and of a last error, `restarts` is how often the extension had tried
again, and `waiting` whether it waits to do so.")]
    Get {
        /// Name of the extension.
        name: String,
    },
    /// Start a disabled extension again, with its subscriptions.
    #[command(after_help = "Example:\n  gofer extension enable interval")]
    Enable {
        /// Name of the extension.
        name: String,
    },
    /// Stop an extension until it is enabled again; subscriptions are kept.
    #[command(after_help = "Example:\n  gofer extension disable interval")]
    Disable {
        /// Name of the extension.
        name: String,
    },
    /// Remove an extension and its subscriptions.
    #[command(after_help = "Example:\n  gofer extension uninstall interval")]
    Uninstall {
        /// Name of the extension.
        name: String,
    },
    /// Subscribe a pipeline to an extension.
    #[command(after_help = "\
Example:
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer extension sub interval hourly --pipeline ops/nightly -i

The label distinguishes the pipeline's subscriptions to this extension. A value can
refer to secrets and objects: `pipeline_secret{{ key }}`, `global_secret{{ key }}`
or `pipeline_object{{ key }}`. A value `@FILE` is read from a file, and `-` from
standard input; `@@` stands for an `@` at the beginning.")]
    Sub(Sub),
    /// End a pipeline's subscription to an extension.
    #[command(after_help = "Example:\n  gofer extension unsub interval hourly --pipeline nightly")]
    Unsub(Unsub),
}

#[derive(Args)]
pub(crate) struct Install {
    /// Name to install it under.
    name: String,
    /// Container image, or `exec:<path>` for a program.
    image: String,
    #[command(flatten)]
    settings: Configuration,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    login: RegistryLogin,
}

#[derive(Args)]
pub(crate) struct Update {
    /// Name of the extension.
    name: String,
    /// New image; without it, the image stays the same.
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    settings: Configuration,
    /// Setting to remove from the configuration; can be repeated.
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// Take back all grants.
    #[arg(long, conflicts_with = "grants")]
    no_grants: bool,
    #[command(flatten)]
    limits: Limits,
    /// Option that gets its default; can be repeated.
    #[arg(long, value_name = "OPTION", value_parser = ResetParser)]
    reset: Vec<String>,
    #[command(flatten)]
    login: RegistryLogin,
}

#[derive(Args)]
struct Access {
    /// What the extension may do beyond the pipelines that are subscribed to it; can be repeated.
    #[arg(
        long = "grant",
        value_name = "GRANT",
        value_parser = PossibleValuesParser::new(Grant::ALL.map(Grant::name)),
    )]
    grants: Vec<String>,
    /// Pattern (a regular expression) of the namespaces whose pipelines may subscribe; can be
    /// repeated. By default all may.
    #[arg(long = "for", value_name = "PATTERN")]
    namespaces: Vec<String>,
}

/// What can be reset: all options but the grants, which have a flag of their own.
const OPTIONS: [&str; 7] = [
    "for",
    "memory",
    "processes",
    "writable-root",
    "start-timeout",
    "call-timeout",
    "stop-timeout",
];

/// Says what removes a setting, for which an option may have been taken.
#[derive(Clone)]
struct ResetParser;

impl TypedValueParser for ResetParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let options = PossibleValuesParser::new(OPTIONS);
        options.parse_ref(command, argument, value).map_err(|mut error| {
            let tip = format!("`--remove {}` removes a setting of that name", value.display());
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(OPTIONS.into_iter().map(PossibleValue::new)))
    }
}

#[derive(Args)]
struct Limits {
    /// Memory that its container may use, such as `256MiB`; 512MiB by default.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Processes and threads that its container may have; 512 by default.
    #[arg(long, value_name = "NUMBER")]
    processes: Option<u32>,
    /// Let its container write anywhere in its file system, and not only to /tmp.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
    )]
    writable_root: Option<bool>,
    /// How long it may take until it has answered Init, such as `1m30s`; 30s by default.
    #[arg(long, value_name = "DURATION")]
    start_timeout: Option<GoDuration>,
    /// How long it may take to answer any other call; 30s by default.
    #[arg(long, value_name = "DURATION")]
    call_timeout: Option<GoDuration>,
    /// How long it may take to end before it is killed; 10s by default.
    #[arg(long, value_name = "DURATION")]
    stop_timeout: Option<GoDuration>,
}

#[derive(Args)]
struct Configuration {
    /// Setting of the extension's configuration; can be repeated.
    #[arg(short = 'c', long = "set", value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// Let the extension ask for its configuration, apart from what -c sets.
    #[arg(short, long)]
    interactive: bool,
}

#[derive(Args)]
struct RegistryLogin {
    /// User name for the image's registry.
    #[arg(long, value_name = "USER", requires = "registry_password_stdin")]
    registry_user: Option<String>,
    /// Read the password for the registry from standard input.
    #[arg(long, requires = "registry_user", conflicts_with = "interactive")]
    registry_password_stdin: bool,
}

#[derive(Args)]
pub(crate) struct Sub {
    /// Name of the extension.
    extension: String,
    /// Label that distinguishes the pipeline's subscriptions to this extension.
    label: String,
    /// Pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
    #[command(flatten)]
    settings: subscription::Parameters,
}

#[derive(Args)]
pub(crate) struct Unsub {
    /// Name of the extension.
    extension: String,
    /// Label that distinguishes the pipeline's subscriptions to this extension.
    label: String,
    /// Pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
}

impl ExtensionCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Install(install) => change::install(install, session).await,
            Self::Update(update) => change::update(update, session).await,
            Self::List => show::list(session).await,
            Self::Get { name } => show::get(name, session).await,
            Self::Enable { name } => change::enable(name, session).await,
            Self::Disable { name } => change::disable(name, session).await,
            Self::Uninstall { name } => change::uninstall(name, session).await,
            Self::Sub(Sub { extension, label, pipeline, settings }) => {
                let pipeline = session.pipeline(&pipeline);
                subscription::create(session, &pipeline, &extension, &label, settings).await
            }
            Self::Unsub(Unsub { extension, label, pipeline }) => {
                let pipeline = session.pipeline(&pipeline);
                subscription::delete(session, &pipeline, &extension, &label).await
            }
        }
    }
}

/// The hint if an extension is not found.
pub(crate) const NOT_INSTALLED: &str = "`gofer extension list` shows the installed extensions";
