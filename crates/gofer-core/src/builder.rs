//! How a core is set up. What comes of it is made in [`core`](super::core).

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::command::RunCommand;
use super::core::Core;
use super::external;
use super::handler::RunHandler;
use super::store;
use gofer_sdk::LogLevel;
use gofer_sdk::Result;
use gofer_sdk::RunInfo;

/// An extension that hangs is noticed within half a minute, and a health check
/// costs it next to nothing.
const HEALTH_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Runs that are executed at a time, where nothing else is said: as many
/// processes as a small machine bears.
const RUNS_AT_A_TIME: usize = 64;

/// For runs to end in when the core is stopped, where nothing else is said.
const RUN_GRACE: Duration = Duration::from_secs(10);

/// How a [`Core`] is set up; made by [`Core::builder`].
///
/// Without more it is in memory alone, and reached from inside this process.
#[derive(Clone)]
#[must_use]
pub struct CoreBuilder {
    pub(super) listen: Option<SocketAddr>,
    pub(super) store: store::StoreSetup,
    pub(super) log_level: LogLevel,
    pub(super) health_check_period: Duration,
    /// Certificate and key of the owner's own.
    pub(super) tls: Option<(String, String)>,
    pub(super) run_handler: Option<RunHandler>,
    pub(super) runs_at_a_time: usize,
    pub(super) run_grace: Duration,
    pub(super) external: external::Setup,
    /// Where the container engine is, if somebody said.
    pub(super) container_engine: Option<String>,
}

/// Without keys.
impl fmt::Debug for CoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreBuilder")
            .field("listen", &self.listen)
            .field("store", &self.store)
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
            external: external::Setup::default(),
            container_engine: None,
        }
    }

    /// Also listens on this address; port 0 is any that is free. Extensions in
    /// processes and containers of their own need it. Once there is a container,
    /// for which loopback is another place, the core listens on
    /// [one more address](super#containers).
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// How much extensions in processes of their own log, to this process's
    /// standard error; default [`LogLevel::Warn`].
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// The time between two health checks of an extension in a process of its
    /// own; default 5 s. One that fails three in a row is started again, as is one
    /// that ends.
    pub fn health_check_period(mut self, period: Duration) -> Self {
        self.health_check_period = period;
        self
    }

    /// Shows this certificate to those who call from outside, and not one of
    /// the core's making: PEM text of a chain, and of its key.
    ///
    /// Without it, a certificate is made for `localhost`, the addresses of
    /// loopback and the one that is listened on. Where there is a store it is
    /// kept beside it, in a file of the same name with `.crt` added, for callers
    /// to trust, and its key in one with `.crt.key` added, which its owner alone
    /// can read. It is valid for ten years and made anew before that, or where
    /// the core listens on another address.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Executes runs with a function. Without one, and without a
    /// [command](Self::run_command), a run succeeds as soon as it is started.
    ///
    /// The run is pending until its turn comes, running while the function's
    /// future is, then complete. Where that gives an error, the run has failed,
    /// and the error's sentence is its
    /// [description](RunInfo::description); so too where it panics, which harms
    /// nothing else. Where the run is cancelled or its pipeline deleted, the future
    /// is dropped.
    ///
    /// It is called at most once for each run, also of a core with a
    /// [store](Self::store) that is killed: when the core is back, runs that were
    /// pending are executed, and those that were running have failed. Runs of one
    /// pipeline begin in their order; how many are executed at a time is up to the
    /// parallelism of the pipeline's configuration (0 for no bound of its own) and
    /// to [`runs_at_a_time`](Self::runs_at_a_time).
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
    ///     let run = Run::because("somebody asked for it");
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

    /// Executes runs with a command, which takes the place of a
    /// [function](Self::run_handler) and is otherwise like it. The run succeeds
    /// where the command ends with the exit code 0.
    ///
    /// The command finds in its environment the run's variables;
    /// `GOFER_NAMESPACE`, `GOFER_PIPELINE`, `GOFER_RUN_ID`, `GOFER_INITIATOR` and
    /// `GOFER_REASON`; and of the core's own `PATH`, `HOME`, `TMPDIR`, `LANG` and
    /// `TZ`. A run with a variable of one of these names fails without the command,
    /// as does one with a variable that begins with `GOFER_`, or that loaders and
    /// shells heed: `LD_`, `DYLD_` and `BASH_` with whatever follows, `ENV`,
    /// `BASHOPTS`, `SHELLOPTS`, `PS4` and `GCONV_PATH`. Its standard input is empty,
    /// and what it prints goes to the core's standard error. Where the run is
    /// cancelled, it is killed with all that it started; where the core itself is
    /// killed, it goes on.
    ///
    /// Whoever may start runs chooses the variables: a command must not execute
    /// their values, and where it is an interpreter, not be led by variables that
    /// this one heeds.
    ///
    /// ```
    /// use gofer_core::Core;
    ///
    /// let builder = Core::builder().run_command("sh", ["-c", "echo building $COMMIT"]);
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

    /// How many runs are executed at a time, of all pipelines together; default
    /// 64, at least 1. The others wait.
    pub fn runs_at_a_time(mut self, most: usize) -> Self {
        self.runs_at_a_time = most.max(1);
        self
    }

    /// How long [`Core::stop`] lets runs that are being executed go on before they
    /// have failed; default 10 s. Runs that wait are pending until a core with the
    /// same store starts.
    pub fn run_grace(mut self, grace: Duration) -> Self {
        self.run_grace = grace;
        self
    }

    /// Starts the core.
    ///
    /// # Errors
    ///
    /// [`InvalidConfiguration`](gofer_sdk::ErrorKind::InvalidConfiguration) where the
    /// key is not one, or a certificate and its key are not a pair; where an
    /// address cannot be listened on; and
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) where the
    /// store's file is in use, damaged, of a newer version, or no store. The
    /// file is left as it is then.
    pub async fn start(self) -> Result<Core> {
        Core::start(self).await
    }
}
