//! The options of a core, which [`core`](super::core) starts.

#[cfg(feature = "containers")]
mod containers;
#[cfg(feature = "store")]
mod store_file;
#[cfg(feature = "webhooks")]
mod webhooks;

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::allowed::Allowed;
use super::command::RunCommand;
use super::core::Core;
use super::handler::RunHandler;
use super::{external, store};
use gofer_net::Clock;
use gofer_net::memory::Faults;
use gofer_sdk::{LogLevel, Result, RunInfo};

/// An extension that hangs is noticed within half a minute, at next to no cost.
const HEALTH_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// The default limit of runs that are executed at a time: as many processes as a small machine can
/// handle.
const RUNS_AT_A_TIME: usize = 64;

/// The default time for runs to end in when the core is stopped.
const RUN_GRACE: Duration = Duration::from_secs(10);

/// The options of a [`Core`]; see [`Core::builder`].
///
/// By default, everything is in memory, and the core is reached only from inside this process.
#[derive(Clone)]
#[must_use]
pub struct CoreBuilder {
    pub(super) listen: Option<SocketAddr>,
    pub(super) store: store::StoreSetup,
    pub(super) log_level: LogLevel,
    pub(super) health_check_period: Duration,
    /// A certificate and its key, if they were given.
    pub(super) tls: Option<(String, String)>,
    pub(super) run_handler: Option<RunHandler>,
    pub(super) runs_at_a_time: usize,
    pub(super) run_grace: Duration,
    pub(super) external: external::Options,
    /// Where the container engine is, if that was set.
    pub(super) container_engine: Option<String>,
    pub(super) allowed: Allowed,
    /// The core's clock, and that of extensions in its process, if a test sets them.
    pub(super) clocks: Option<(Clock, Clock)>,
    pub(super) starts_at: Option<SystemTime>,
    pub(super) faults: Option<Arc<dyn Faults>>,
}

/// Leaves out keys.
impl fmt::Debug for CoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreBuilder")
            .field("listen", &self.listen)
            .field("store", &self.store.path)
            .field("log_level", &self.log_level)
            .field("health_check_period", &self.health_check_period)
            .field("run_handler", &self.run_handler)
            .field("runs_at_a_time", &self.runs_at_a_time)
            .field("run_grace", &self.run_grace)
            .finish_non_exhaustive()
    }
}

impl CoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            listen: None,
            store: store::StoreSetup::default(),
            log_level: LogLevel::Warn,
            health_check_period: HEALTH_CHECK_PERIOD,
            tls: None,
            run_handler: None,
            runs_at_a_time: RUNS_AT_A_TIME,
            run_grace: RUN_GRACE,
            external: external::Options::default(),
            container_engine: None,
            allowed: Allowed::default(),
            clocks: None,
            starts_at: None,
            faults: None,
        }
    }

    /// The core's clock, and that of extensions in its process.
    ///
    /// **Internal.** For tests in which clocks are set.
    #[doc(hidden)]
    pub fn clocks(mut self, core: Clock, extensions: Clock) -> Self {
        self.clocks = Some((core, extensions));
        self
    }

    /// Sets the time that the core's clock shows when it is started, and with it that of the
    /// extensions in its process: what [`Core::elapse`] and paused time add to. By default, it is the
    /// system's time. A time before 1970 reads as 1970.
    ///
    /// For tests of what depends on the date. Extensions in their own processes have the system's
    /// clock in any case.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    ///
    /// use gofer_core::{Core, hours};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// let new_year = UNIX_EPOCH + Duration::from_secs(1_735_689_600); // of 2025, in UTC
    /// let core = Core::builder().starts_at(new_year - hours(1)).start().await?;
    /// core.elapse(hours(1)).await;
    /// let now = core.client().now();
    /// assert!(now >= new_year && now < new_year + Duration::from_secs(1));
    /// # Ok(()) }
    /// ```
    pub fn starts_at(mut self, time: SystemTime) -> Self {
        self.starts_at = Some(time);
        self
    }

    /// For tests: faults of the connections between the core and the extensions inside this process.
    #[doc(hidden)]
    pub fn faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Sets the address to listen on; port 0 chooses a free one. Extensions in their own processes
    /// or in containers need it. A core on loopback also listens on [another
    /// address](super#containers) once there is a container.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Sets how much extensions in their own processes log; default [`LogLevel::Warn`]. What they
    /// write becomes events of this process's log: see [the crate's documentation](super#logs).
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// Sets the time between two health checks of an extension in its own process; default 5 s. An
    /// extension that fails three in a row, or exits, is restarted.
    pub fn health_check_period(mut self, period: Duration) -> Self {
        self.health_check_period = period;
        self
    }

    /// Sets the certificate chain and its key, both as PEM, for the address that the core listens
    /// on.
    ///
    /// By default, the core makes one for `localhost`, the loopback addresses and the address that
    /// it listens on. If there is a store, what callers trust is kept beside it, in a file of the
    /// same name with `.crt` appended, and its key in one with `.crt.key` appended that only its
    /// owner can read. It stays the same for as long as that key does: it is a root that signs what
    /// the core serves, which is issued anew at each start, for the address of that start, with the
    /// same key. Neither expires.
    ///
    /// A certificate of an earlier version, which has no root, is served until its end or until the
    /// address changes. Then clients that use this workspace, or rustls, accept what follows; others
    /// have to trust the new file.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Accepts `BootstrapToken` on the address that the core [listens](Self::listen) on: it makes
    /// the first management token of the store, once, for anyone who calls it.
    ///
    /// Without it nobody becomes a manager by reaching the core, as [`Core::token`] and
    /// [`Core::make_first_token`] give the embedder what it needs. It is never accepted on other
    /// addresses, such as the one for containers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::builder().listen(([127, 0, 0, 1], 0)).allow_bootstrap().start().await?;
    /// assert!(core.awaits_first_token());
    /// # core.stop().await;
    /// # Ok(()) }
    /// ```
    pub fn allow_bootstrap(mut self) -> Self {
        self.allowed.bootstrap = true;
        self
    }

    /// Lets callers of the API with a management token install programs of this machine, as images
    /// `exec:<path>`. They run as the core's user, so this gives whoever has such a token all
    /// that this user may do.
    ///
    /// Without it, only [`Core::install_program`] installs programs. Those that are in the store
    /// already are started either way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::builder().listen(([127, 0, 0, 1], 0)).allow_programs().start().await?;
    /// # core.stop().await;
    /// # Ok(()) }
    /// ```
    pub fn allow_programs(mut self) -> Self {
        self.allowed.programs = true;
        self
    }

    /// Executes runs with a function. Without one, and without a [command](Self::run_command), a
    /// run succeeds as soon as it is started.
    ///
    /// A run is pending while it waits, running while the function's future is, then complete. It
    /// fails if the future returns an error or panics; the error's message becomes its
    /// [description](RunInfo::description). The future is dropped if the run is cancelled or its
    /// pipeline deleted.
    ///
    /// The function is called at most once for each run, even if a core with a store is killed: the
    /// next core on the store executes the runs that were pending, and those that were running are
    /// marked as failed. Runs of one pipeline begin in order. How many are executed at a time
    /// depends on the parallelism of the pipeline's configuration (0 for no limit of its own) and
    /// on [`runs_at_a_time`](Self::runs_at_a_time).
    ///
    /// ```
    /// use gofer_core::{Core, seconds};
    /// use gofer_sdk::{Error, Run, RunStatus};
    /// # use gofer_proto as proto;
    ///
    /// # /*
    /// #[tokio::test(start_paused = true)]
    /// # */
    /// async fn a_build_without_a_commit_fails() -> gofer_sdk::Result<()> {
    ///     let gofer = Core::builder()
    ///         .run_handler(|run| async move {
    ///             tokio::time::sleep(seconds(30)).await;
    ///             match run.variable("COMMIT") {
    ///                 Some(_) => Ok(()),
    ///                 None => Err(Error::internal("there is no commit to build")),
    ///             }
    ///         })
    ///         .start()
    ///         .await?;
    /// #   let config = proto::UserPipelineConfig { id: "build".to_owned(), ..Default::default() };
    /// #   gofer.client().api().register_pipeline_config(proto::RegisterPipelineConfigRequest {
    /// #       pipeline_config: Some(config), ..Default::default()
    /// #   }).await.map_err(|status| Error::internal(status.to_string()))?;
    ///     let run = Run::because("requested by hand");
    ///     gofer.client().start_run("default/build", "by hand", run).await?;
    ///     gofer.elapse(seconds(30)).await;
    ///     let run = &gofer.runs("default/build")[0];
    ///     assert_eq!(run.status(), RunStatus::Failed);
    ///     assert_eq!(run.description(), "there is no commit to build");
    ///     Ok(())
    /// }
    /// # tokio::runtime::Builder::new_current_thread()
    /// #     .enable_all().start_paused(true).build().unwrap()
    /// #     .block_on(a_build_without_a_commit_fails()).unwrap();
    /// ```
    pub fn run_handler<F, Fut>(mut self, handle: F) -> Self
    where
        F: Fn(RunInfo) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.run_handler = Some(RunHandler::function(handle));
        self
    }

    /// Executes runs with a command, instead of a [function](Self::run_handler). A run succeeds if
    /// the command exits with code 0.
    ///
    /// The command's environment holds the run's variables; `GOFER_NAMESPACE`, `GOFER_PIPELINE`,
    /// `GOFER_RUN_ID`, `GOFER_INITIATOR` and `GOFER_REASON`; and `PATH`, `HOME`, `TMPDIR`, `LANG`
    /// and `TZ` of the core. A run fails, and its command is not started, if one of its variables
    /// has one of these five names, begins with `GOFER_` (other than the `GOFER_EXTENSION_…` with
    /// which extensions describe a run), or controls loaders or shells: those that begin with `LD_`,
    /// `DYLD_` or `BASH_`, and `ENV`, `BASHOPTS`, `SHELLOPTS`, `PS4` and `GCONV_PATH`. The standard input is empty, and the output goes to the [core's
    /// log](super#logs). Cancelling the run kills the program and its process group; if the core
    /// itself is killed, the program continues, but nobody reads its output any more.
    ///
    /// Any caller that may start runs chooses the other variables. The command must not execute
    /// their values, nor start an interpreter whose behavior other variables change.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::builder().run_command("make", ["build"]).start().await?;
    /// # core.stop().await;
    /// # Ok(()) }
    /// ```
    pub fn run_command(
        mut self,
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let command = RunCommand { program: program.into(), arguments };
        self.run_handler = Some(RunHandler::command(command));
        self
    }

    /// Limits how many runs of all pipelines are executed at a time; default 64, at least 1. The
    /// others wait.
    pub fn runs_at_a_time(mut self, most: usize) -> Self {
        self.runs_at_a_time = most.max(1);
        self
    }

    /// Sets how long [`Core::stop`] waits for runs that are being executed before they fail;
    /// default 10 s. Runs that wait stay pending until a core with the same store starts.
    pub fn run_grace(mut self, grace: Duration) -> Self {
        self.run_grace = grace;
        self
    }

    /// Starts the core.
    ///
    /// If the future is dropped, the core does not start, and ends what it has begun, in the
    /// background: its addresses and the store's file are in use for a moment longer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfiguration`](gofer_sdk::ErrorKind::InvalidConfiguration) if the encryption key
    /// is malformed, or the certificate is one that no client would accept: its key is another one,
    /// it is not valid now, or it is for no name;
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) if the store's file is in
    /// use, damaged, of a newer version, or not a store, and the file is then unchanged;
    /// [`Internal`](gofer_sdk::ErrorKind::Internal) if the core cannot listen on an address.
    pub async fn start(self) -> Result<Core> {
        Core::start(self).await
    }
}
