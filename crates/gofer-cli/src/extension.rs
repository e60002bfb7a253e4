//! `gofer extension`: those that are installed, and their subscribers.

mod change;
mod show;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::pairs::pair;
use crate::session::Session;
use crate::subscription;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Installs an extension under a name and waits until it is ready.
    #[command(after_help = "\
Example:
  gofer extension install interval registry.example.com/interval:1.0 -c min_interval=1m
  gofer extension install interval exec:target/debug/examples/interval -i

An image is a container image, or `exec:` and the path of a program on the
machine that the core runs on; a relative path starts where the core does. A
real Gofer knows container images alone.")]
    Install(Install),
    /// Puts a new image or configuration in place of an installed extension's.
    #[command(after_help = "\
Example:
  gofer extension update interval --image registry.example.com/interval:1.1
  gofer extension update interval -c min_interval=30s --remove jitter

The old one serves until the new one is ready, and stays where the new one does
not come up. Subscriptions are kept.")]
    Update(Update),
    /// Lists the installed extensions and how they fare.
    #[command(after_help = "Example:\n  gofer extension list")]
    List,
    /// Shows one extension, with its documentation.
    #[command(after_help = "Example:\n  gofer extension get interval")]
    Get {
        /// The name that it is installed under.
        name: String,
    },
    /// Starts a disabled extension again, with its subscriptions.
    #[command(after_help = "Example:\n  gofer extension enable interval")]
    Enable {
        /// The name that it is installed under.
        name: String,
    },
    /// Stops an extension and keeps it stopped; its subscriptions are kept.
    #[command(after_help = "Example:\n  gofer extension disable interval")]
    Disable {
        /// The name that it is installed under.
        name: String,
    },
    /// Removes an extension and ends its subscriptions.
    #[command(after_help = "Example:\n  gofer extension uninstall interval")]
    Uninstall {
        /// The name that it is installed under.
        name: String,
    },
    /// Subscribes a pipeline to an extension.
    #[command(after_help = "\
Example:
  gofer extension sub interval hourly --pipeline nightly -s every=1h
  gofer extension sub interval hourly --pipeline ops/nightly -i

The label tells the pipeline's subscriptions to one extension apart. A value may
refer to what Gofer keeps: `pipeline_secret{{ key }}`, `global_secret{{ key }}`
or `pipeline_object{{ key }}`.")]
    Sub(Sub),
    /// Ends a pipeline's subscription to an extension.
    #[command(after_help = "Example:\n  gofer extension unsub interval hourly --pipeline nightly")]
    Unsub(Unsub),
}

#[derive(Args)]
pub(crate) struct Install {
    /// The name, by which pipelines subscribe to it.
    name: String,
    /// The container image, or `exec:` and a program.
    image: String,
    #[command(flatten)]
    settings: Configuration,
    #[command(flatten)]
    login: Login,
}

#[derive(Args)]
pub(crate) struct Update {
    /// The name that it is installed under.
    name: String,
    /// The new image; without it, the image stays as it is.
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    settings: Configuration,
    /// A key of the configuration that is to be set no more.
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    #[command(flatten)]
    login: Login,
}

#[derive(Args)]
struct Configuration {
    /// A setting of the extension's configuration; may be given again.
    #[arg(short = 'c', long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    values: Vec<(String, String)>,
    /// Hold the extension's own conversation about its configuration.
    #[arg(short, long)]
    interactive: bool,
}

#[derive(Args)]
struct Login {
    /// Who to log in to the image's registry as.
    #[arg(long, value_name = "USER", requires = "registry_password_stdin")]
    registry_user: Option<String>,
    /// Read the registry's password from the standard input.
    #[arg(long, requires = "registry_user", conflicts_with = "interactive")]
    registry_password_stdin: bool,
}

#[derive(Args)]
pub(crate) struct Sub {
    /// The name that the extension is installed under.
    extension: String,
    /// Tells the pipeline's subscriptions to one extension apart.
    label: String,
    /// The pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
    #[command(flatten)]
    settings: subscription::Parameters,
}

#[derive(Args)]
pub(crate) struct Unsub {
    /// The name that the extension is installed under.
    extension: String,
    /// Tells the pipeline's subscriptions to one extension apart.
    label: String,
    /// The pipeline, or namespace/pipeline.
    #[arg(long, short)]
    pipeline: String,
}

impl Command {
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

/// What to do where an extension is not there.
const NOT_INSTALLED: &str = "`gofer extension list` shows those that are installed";
