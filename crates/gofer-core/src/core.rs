//! The embedded core itself: its API on a pipe, and on an address if it has one, with a client that
//! may do everything.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::uri::Authority;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;

use super::allowed::Allowed;
use super::api::{Api, complete};
use super::authorize::TokenTable;
use super::builder::CoreBuilder;
use super::certificates::{Identity, SERVER_NAME, random_key};
use super::conversations::{Conversation, Reply};
use super::essential::EssentialTasks;
use super::executor::Executor;
use super::extensions::{Common, Extensions};
use super::external::External;
use super::grants::InstallOptions;
use super::health::Health;
use super::identity::{NewFiles, PublicIdentity, public_identity};
use super::installed::Installed;
use super::launcher::{CORE, Containers, InProcess, PROGRAM};
use super::limits::LONGEST_TIMEOUT;
use super::router::Router;
use super::serving::{Port, Served, Serving, Tls};
use super::store::{KeyGuard, NewKey, Options, Store, StoreSetup, check_extension_name};
use gofer_net::memory::Network;
use gofer_net::server::Service;
use gofer_net::tls::{PemProblem, Trust, certificates, server_config};
use gofer_net::{BoxFuture, Clock, Dial, Limits, MAX_RESPONSE_BYTES, Transport};
use gofer_proto as proto;
use gofer_proto::gofer_client::GoferClient;
use gofer_sdk::internal::{
    ClientOptions, close_client, error, misdeclared, new_client, run_info, transport,
};
use gofer_sdk::{Error, ErrorKind, Extension, Gofer, PipelineId, Result, RunInfo};

/// A Gofer server inside this process.
///
/// Clones are cheap and share the server. [`stop`](Self::stop) stops its extensions, as does
/// dropping the last clone. See [the crate documentation](crate) for an example.
#[derive(Clone)]
pub struct Core {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// If runs are executed. Before the store, which it uses until it is dropped.
    executor: Option<Executor>,
    pub(super) store: Arc<Store>,
    pub(super) extensions: Arc<Extensions>,
    external: Option<External>,
    pub(super) serving: Arc<Serving>,
    health: Health,
    certificate: String,
    token: String,
    /// Valid in this process only, so it is not stored.
    _token_guard: KeyGuard,
    pub(super) client: Gofer,
    essential: EssentialTasks,
    /// Whether a task stops the core, and whether it has.
    stopping: AtomicBool,
    stopped: watch::Sender<bool>,
    allowed: Allowed,
    /// The time that `elapse` has reached.
    now: Mutex<Instant>,
}

impl Core {
    /// Starts a core in memory that is reached only from inside this process: for tests, with or
    /// without paused time.
    ///
    /// Its records use tokio's clock, so that paused time applies to them too.
    ///
    /// If the future is dropped, the core does not start.
    ///
    /// # Errors
    ///
    /// If the system provides no random numbers.
    pub async fn in_memory() -> Result<Self> {
        Self::builder().start().await
    }

    /// Starts a core in memory that also listens on a free port of loopback, which extensions in
    /// their own processes need.
    ///
    /// Do not use it with paused time, which would jump past every deadline while a process is
    /// starting.
    ///
    /// If the future is dropped, the same happens as with [`CoreBuilder::start`].
    ///
    /// # Errors
    ///
    /// If it cannot listen on loopback.
    pub async fn on_loopback() -> Result<Self> {
        Self::builder().listen((Ipv4Addr::LOCALHOST, 0)).start().await
    }

    /// Sets up a core with other options.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    /// use gofer_sdk::LogLevel;
    ///
    /// let core =
    ///     Core::builder().listen(([127, 0, 0, 1], 0)).log_level(LogLevel::Info).start().await?;
    /// assert!(core.address().is_some());
    /// core.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> CoreBuilder {
        CoreBuilder::new()
    }

    pub(super) fn start(builder: CoreBuilder) -> BoxFuture<'static, Result<Self>> {
        Box::pin(Self::build(builder))
    }

    async fn build(builder: CoreBuilder) -> Result<Self> {
        let CoreBuilder {
            listen,
            store,
            log_level,
            health_check_period,
            tls,
            run_handler,
            runs_at_a_time,
            run_grace,
            external,
            container_engine,
            allowed,
            clocks,
            starts_at,
            faults,
        } = builder;
        let (listener, port) = Port::listen(listen).await?;
        let (clock, extensions_clock) =
            clocks.unwrap_or_else(|| [clock(starts_at, listener.is_some()); 2].into());
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let own = Identity::new().map_err(|status| error(&status))?;
        let trust = Trust {
            extra: certificates(&own.certificate).map_err(unusable)?,
            only_extra: true,
            skip_verification: false,
        };
        let network = Network::default();
        let essential = EssentialTasks::default();
        let (public, new_files, store) = open_store(store, tls, clock, address, &essential).await?;
        let tls = Tls {
            in_memory: server_config(&own.certificate, &own.key).map_err(unusable)?,
            tcp: server_config(&public.served.certificate, &public.served.key).map_err(unusable)?,
        };
        let served = network.with_faults(faults.as_ref(), CORE, CORE);
        let serving = Serving::new(served, address, port, tls, essential.clone());
        let most = run_handler.is_some().then_some(runs_at_a_time);
        store.begin_runs(most).map_err(|status| error(&status))?;
        let token = random_key().map_err(|status| error(&status))?;
        let extensions = Extensions::new(
            Arc::clone(&store),
            clock,
            InProcess::new(network.clone(), trust.clone(), extensions_clock, faults),
            Containers::new(container_engine, Arc::downgrade(&serving)),
            Common {
                gofer_host: address
                    .map_or_else(|| SERVER_NAME.to_owned(), |address| address.to_string()),
                log_level: log_level.name().to_owned(),
                health_check_period,
                essential: essential.clone(),
            },
        );
        let external = External::open(external, &extensions, &essential).await?;
        let token_guard = store.accept_key(&token, NewKey::Core);
        let client = new_client(ClientOptions {
            dial: Dial::Memory(network),
            authority: Authority::from_static(SERVER_NAME),
            server_name: ServerName::try_from(SERVER_NAME)?,
            trust,
            authorization: Some(HeaderValue::try_from(format!("Bearer {token}"))?),
            name: "gofer-core".to_owned(),
            is_extension: false,
            clock,
        });
        let executor = run_handler
            .map(|handler| Executor::start(Arc::clone(&store), handler, run_grace, &essential));
        let core = Self {
            inner: Arc::new(Inner {
                executor,
                store,
                extensions,
                external,
                serving,
                health: Health::new().await,
                certificate: public.trusted,
                token,
                _token_guard: token_guard,
                client,
                essential,
                stopping: AtomicBool::new(false),
                stopped: watch::Sender::new(false),
                allowed,
                now: Mutex::new(Instant::now()),
            }),
        };
        let extensions = &core.inner.extensions;
        let stored = extensions.reserve_stored();
        core.serve(listener).await?;
        extensions.end_orphans().await;
        extensions.restore_all(stored);
        if let Some(external) = &core.inner.external {
            external.begin();
        }
        if let Some(new_files) = new_files {
            new_files.keep();
        }
        Ok(core)
    }

    async fn serve(&self, listener: Option<TcpListener>) -> Result<()> {
        let inner = &self.inner;
        let (store, extensions) = (Arc::clone(&inner.store), Arc::clone(&inner.extensions));
        let tokens = TokenTable::new(Arc::clone(&store));
        let api = Api::new(Arc::clone(&store), extensions, tokens.clone(), inner.allowed);
        let elsewhere = api.with_allowed(inner.allowed.elsewhere());
        let router = |api| Arc::new(Router::new(api, &inner.health, Arc::clone(&store)));
        let configured = Service::new(Arc::new(tokens), router(api), Limits::default());
        let elsewhere = configured.with_handler(router(elsewhere));
        let service = Served { configured, elsewhere };
        Ok(inner.serving.open(service, listener).await?)
    }

    /// Installs an extension that runs in this process: starts it, and calls Init with the
    /// configuration, then Info.
    ///
    /// If the future is dropped, the installation is completed or has not begun.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) with the extension's message if
    /// it refuses the configuration; [`AlreadyExists`](gofer_sdk::ErrorKind::AlreadyExists) if the
    /// name is taken; [`Internal`](gofer_sdk::ErrorKind::Internal) if a setting has a type that no
    /// text can set.
    pub async fn install<E: Extension>(
        &self,
        name: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        self.install_with::<E>(name, config, InstallOptions::new()).await
    }

    /// As [`install`](Self::install), with [options](InstallOptions).
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install), and
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) if a pattern cannot be used.
    pub async fn install_with<E: Extension>(
        &self,
        name: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        options: InstallOptions,
    ) -> Result<Installed> {
        if let Some(why) = misdeclared::<E>() {
            return Err(Error::internal(why));
        }
        let image = self.inner.extensions.in_process.register::<E>();
        self.install_any(name, image, pairs(config), options).await
    }

    /// Installs a program as an extension, in its own process. The core must
    /// [listen](CoreBuilder::listen). Callers of the API may do so only if the core [allows
    /// it](CoreBuilder::allow_programs).
    ///
    /// If the future is dropped, the installation is completed or has not begun.
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install);
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) if the program cannot be
    /// started.
    pub async fn install_program(
        &self,
        name: &str,
        program: &Path,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        self.install_program_with(name, program, config, InstallOptions::new()).await
    }

    /// As [`install_program`](Self::install_program), with [options](InstallOptions).
    ///
    /// # Errors
    ///
    /// As for [`install_program`](Self::install_program), and
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) if a pattern cannot be used.
    pub async fn install_program_with(
        &self,
        name: &str,
        program: &Path,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        options: InstallOptions,
    ) -> Result<Installed> {
        let Some(program) = program.to_str() else {
            return Err(Error::invalid_parameter("program", "must be a path in UTF-8"));
        };
        self.install_any(name, format!("{PROGRAM}{program}"), pairs(config), options).await
    }

    /// Installs a container image, such as `registry/name:tag`, as an extension, with Docker or
    /// Podman. An image that is missing is pulled, without credentials. The core must
    /// [listen](CoreBuilder::listen).
    ///
    /// If the future is dropped, the installation is completed or has not begun.
    ///
    /// ```no_run
    /// # async fn example() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::on_loopback().await?;
    /// let interval = core.install_image("interval", "interval:1.0", [("min_interval", "1s")]).await?;
    /// interval.subscribe("default/nightly", "often", [("every", "5s")]).await?;
    /// core.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install);
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) if no container engine
    /// responds, the image cannot be pulled, or its container does not start.
    #[cfg(feature = "containers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "containers")))]
    pub async fn install_image(
        &self,
        name: &str,
        image: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        self.install_image_with(name, image, config, InstallOptions::new()).await
    }

    /// As [`install_image`](Self::install_image), with [options](InstallOptions).
    ///
    /// # Errors
    ///
    /// As for [`install_image`](Self::install_image), and
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) if a pattern cannot be used.
    #[cfg(feature = "containers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "containers")))]
    pub async fn install_image_with(
        &self,
        name: &str,
        image: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        options: InstallOptions,
    ) -> Result<Installed> {
        self.inner.allowed.check_image(image).map_err(|status| error(&status))?;
        self.install_any(name, image.to_owned(), pairs(config), options).await
    }

    /// Returns an extension that is already installed, for example from the store.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) if there is none of this name.
    pub fn installed(&self, name: &str) -> Result<Installed> {
        let installed = Installed::new(self.clone(), name.to_owned());
        installed.status().map(|_| installed)
    }

    /// Installs an image, also one that callers of the API may not be allowed to install.
    fn install_any(
        &self,
        name: &str,
        image: String,
        variables: HashMap<String, String>,
        InstallOptions(options): InstallOptions,
    ) -> BoxFuture<'_, Result<Installed>> {
        let name = name.to_owned();
        let request = proto::InstallExtensionRequest {
            name: name.clone(),
            image,
            variables,
            ..Default::default()
        };
        Box::pin(async move {
            check_extension_name(&name).map_err(|status| error(&status))?;
            let options = Options::new(options).map_err(|status| error(&status))?;
            let extensions = Arc::clone(&self.inner.extensions);
            let install = complete(async move { extensions.install(request, options).await });
            let outcome = match tokio::time::timeout(PULL_TIMEOUT, install).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    Err(Status::deadline_exceeded("the extension did not become ready in time"))
                }
            };
            outcome.map_err(|status| error(&status))?;
            Ok(Installed::new(self.clone(), name))
        })
    }

    /// Runs an extension's installer, sends it these answers in order, and closes the stream after
    /// the last.
    ///
    /// If the future is dropped, the conversation ends, and the extension that was launched for it
    /// is stopped.
    ///
    /// # Errors
    ///
    /// The error that the conversation ends with.
    pub async fn converse_with_installer<E: Extension>(
        &self,
        answers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Conversation> {
        let image = self.inner.extensions.in_process.register::<E>();
        self.converse(image, answers.into_iter().map(Into::into).collect()).await
    }

    fn converse(&self, image: String, answers: Vec<String>) -> BoxFuture<'_, Result<Conversation>> {
        use proto::run_extension_installer_client_message::{Init, MessageType};
        use proto::run_extension_installer_extension_message::MessageType as Sent;
        let first = MessageType::Init(Init { image, ..Default::default() });
        let messages = std::iter::once(first)
            .chain(answers.into_iter().map(MessageType::Msg))
            .map(|message| proto::RunExtensionInstallerClientMessage {
                message_type: Some(message),
            })
            .collect::<Vec<_>>();
        let stream = tonic::codegen::tokio_stream::iter(messages);
        Box::pin(async move {
            let response = self.api().run_extension_installer(stream).await;
            let messages = response.map_err(|status| error(&status))?.into_inner();
            Conversation::collect(messages, |message| {
                Some(match message.message_type? {
                    Sent::Msg(text) => Reply::Message(text),
                    Sent::Query(text) => Reply::Question(text),
                    Sent::ConfigSetting(it) => Reply::Setting(it.config, it.value),
                })
            })
            .await
        })
    }

    /// Lets time pass and completes everything that falls due. Meant for paused time
    /// (`start_paused = true`), in which it takes only as long as that work; otherwise it takes the
    /// given time. Repeated calls do not drift.
    ///
    /// If the future is dropped, the next call begins with the time that has been reached.
    pub async fn elapse(&self, time: Duration) {
        let reached = || self.inner.now.lock().unwrap_or_else(PoisonError::into_inner);
        // Time may have passed outside of this function, and a subscription made since counts from
        // when it was made.
        let from = (Instant::now() - SETTLE).max(self.inner.extensions.last_subscribed());
        let until = from.max(*reached()) + time;
        tokio::time::sleep_until(until).await;
        {
            let mut now = reached();
            *now = until.max(*now);
        }
        // Paused time advances only when there is nothing left to do, so everything that fell due
        // just now is done after this.
        tokio::time::sleep(SETTLE).await;
    }

    /// Returns all runs of a pipeline, newest first; none if it does not exist.
    pub fn runs(&self, pipeline: impl Into<PipelineId>) -> Vec<RunInfo> {
        let pipeline = pipeline.into();
        let runs = self.inner.store.runs(pipeline.namespace(), pipeline.pipeline());
        runs.into_iter().map(run_info).collect()
    }

    /// Waits until a pipeline has had at least so many runs, complete or not, and returns all of
    /// them, newest first.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`DeadlineExceeded`](gofer_sdk::ErrorKind::DeadlineExceeded) if there are fewer after 10 s.
    pub async fn wait_for_runs(
        &self,
        pipeline: impl Into<PipelineId>,
        count: usize,
    ) -> Result<Vec<RunInfo>> {
        let pipeline = pipeline.into();
        let until = Instant::now() + WAIT_FOR_RUNS;
        loop {
            let runs = self.runs(&pipeline);
            if runs.len() >= count {
                return Ok(runs);
            }
            if Instant::now() >= until {
                let found = runs.len();
                let why =
                    format!("{pipeline} has had {found} of {count} runs in {WAIT_FOR_RUNS:?}");
                return Err(Error::new(ErrorKind::DeadlineExceeded, why));
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Returns a client that may do everything.
    pub fn client(&self) -> &Gofer {
        &self.inner.client
    }

    /// Returns the token of [`client`](Self::client), for your own clients.
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// Returns the address that the API listens on, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.inner.serving.address()
    }

    /// Returns the address that accepts [external events](CoreBuilder::external_events), if there
    /// is one.
    #[cfg(feature = "webhooks")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
    pub fn external_events_address(&self) -> Option<SocketAddr> {
        self.inner.external.as_ref().map(External::address)
    }

    /// Returns the certificate of the API as PEM, for your own clients to trust. Unless [`CoreBuilder::tls`]
    /// set it, it is for `localhost`, the loopback addresses and the address that the core listens
    /// on.
    pub fn certificate(&self) -> &str {
        &self.inner.certificate
    }

    /// Whether `BootstrapToken` makes the first management token, once, for anyone who reaches the
    /// core: it [may](CoreBuilder::allow_bootstrap), and there has been none yet.
    pub fn awaits_first_token(&self) -> bool {
        self.inner.allowed.bootstrap && self.inner.store.awaits_first_token()
    }

    /// Makes the first management token of the store, and returns whether it did: it does so once
    /// in the life of a store. For a service whose operator has no token yet.
    ///
    /// The token is valid from when `keep` has kept it, so it is not lost if the process is killed
    /// in between.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::on_loopback().await?;
    /// let mut kept = None;
    /// let keep = |token: &str| -> gofer_sdk::Result<()> {
    ///     kept = Some(token.to_owned());
    ///     Ok(())
    /// };
    /// assert!(core.make_first_token(keep).await?);
    /// assert!(!core.make_first_token(|_| Ok::<_, gofer_sdk::Error>(())).await?);
    /// # assert!(kept.is_some());
    /// # core.stop().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// That of `keep`, or if the store cannot be written.
    pub async fn make_first_token<E: From<Error>>(
        &self,
        keep: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<bool, E> {
        let store = &self.inner.store;
        if !store.awaits_first_token() {
            return Ok(false);
        }
        let failed = |status: Status| E::from(error(&status));
        let first = store.new_first_token().map_err(failed)?;
        keep(first.token())?;
        store.committed(|store| store.add_first_token(&first)).await.map_err(failed)?;
        Ok(true)
    }

    /// Simulates an outage: closes all connections to the API and refuses new ones. Extensions keep
    /// running, external events are accepted, and no state is lost.
    ///
    /// If the future is dropped, the connections are closed nevertheless, a second later at most.
    pub async fn close_api(&self) {
        self.inner.serving.close().await;
    }

    /// Ends the outage that [`close_api`](Self::close_api) began, at the same address.
    ///
    /// If the future is dropped, the outage either has ended or goes on.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address again.
    pub async fn reopen_api(&self) -> Result<()> {
        self.serve(None).await
    }

    /// Waits until a task of the core's own has panicked that it cannot do without, such as one that
    /// restarts an extension, and returns what no longer works. Never returns while all goes well.
    ///
    /// A service ends then, and is started again. The core itself goes on with what still works,
    /// and can be [stopped](Self::stop).
    ///
    /// If the future is dropped, nothing happens.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::in_memory().await?;
    /// # let signal = std::future::ready(());
    /// let outcome = tokio::select! {
    ///     () = signal => Ok(()),
    ///     error = core.failure() => Err(error),
    /// };
    /// core.stop().await;
    /// outcome
    /// # }
    /// ```
    pub async fn failure(&self) -> Error {
        Error::internal(self.inner.essential.failed().await.to_string())
    }

    /// Stops the core: external events first, then all extensions, then the runs that are being
    /// executed, within their [grace period](CoreBuilder::run_grace), then the API. Closes the
    /// store last, so that another core can open it. Further calls wait for the same end.
    ///
    /// If the future is dropped, the core stops nevertheless.
    pub async fn stop(&self) {
        self.begin_stop().await;
    }

    /// Stops in a task of its own, unless there is one; returns a future that waits for its end.
    fn begin_stop(&self) -> BoxFuture<'static, ()> {
        let mut stopped = self.inner.stopped.subscribe();
        if !self.inner.stopping.swap(true, Ordering::SeqCst) {
            let core = self.clone();
            tokio::spawn(async move {
                let _announced = Announced(&core.inner.stopped);
                core.stop_all().await;
            });
        }
        Box::pin(async move {
            // Fails only if the core is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        })
    }

    async fn stop_all(&self) {
        self.inner.health.stopping().await;
        if let Some(external) = &self.inner.external {
            external.close().await;
        }
        self.inner.extensions.stop_all().await;
        if let Some(executor) = &self.inner.executor {
            executor.stop().await;
        }
        close_client(&self.inner.client).await;
        self.inner.store.end_streams();
        self.inner.health.end().await;
        self.close_api().await;
        self.inner.serving.release_port();
        self.inner.store.close().await;
    }

    /// Gofer's whole API, with the core's own token.
    pub(super) fn api(&self) -> GoferClient<Transport> {
        GoferClient::new(transport(&self.inner.client))
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    /// Where its API is reached inside this process.
    #[cfg(test)]
    pub(super) fn network(&self) -> Network {
        self.inner.serving.network()
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    pub(super) fn extensions(&self) -> &Extensions {
        &self.inner.extensions
    }
}

/// Announces the end of a stop when it is dropped, also after a panic.
struct Announced<'a>(&'a watch::Sender<bool>);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Opens the store, and makes what the address needs beside it. The files of a new store are removed
/// unless they are kept.
async fn open_store(
    store: StoreSetup,
    tls: Option<(String, String)>,
    clock: Clock,
    address: Option<SocketAddr>,
    essential: &EssentialTasks,
) -> Result<(PublicIdentity, Option<NewFiles>, Arc<Store>)> {
    let path = store.path().map(Path::to_owned);
    let essential = essential.clone();
    let open = move |path: Option<&Path>| {
        let mut new_files = path.and_then(NewFiles::of);
        let store = store.open(clock, &essential)?;
        if let Some(files) = new_files.as_mut().filter(|_| store.awaits_first_token()) {
            files.remove_unless_kept();
        }
        Ok((public_identity(tls, path, address)?, new_files, store))
    };
    match path {
        // Reads files.
        Some(path) => tokio::task::spawn_blocking(move || open(Some(&path))).await?,
        None => open(None),
    }
}

fn unusable(problem: PemProblem) -> Error {
    Error::internal(format!("the core's certificate is invalid: {problem}"))
}

/// The clock of a core that starts at a time, or that listens.
fn clock(starts_at: Option<SystemTime>, listens: bool) -> Clock {
    match starts_at {
        Some(time) => Clock::derived_from(time.duration_since(UNIX_EPOCH).unwrap_or_default()),
        None if listens => Clock::system(),
        None => Clock::derived(),
    }
}

/// How long [`Core::wait_for_runs`] waits.
const WAIT_FOR_RUNS: Duration = Duration::from_secs(10);

/// Time for everything that fell due to be done; shorter than anything that tests measure.
const SETTLE: Duration = Duration::from_millis(1);

/// For calls that start, call or stop an extension: longer than its own timeouts may be.
const TIMEOUT: Duration = LONGEST_TIMEOUT.saturating_add(Duration::from_secs(60));

/// For calls that may have to pull an image first. A registry that stalls is noticed sooner.
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

pub(super) fn timed<T>(message: T) -> tonic::Request<T> {
    with_timeout(message, TIMEOUT)
}

pub(super) fn timed_for_pull<T>(message: T) -> tonic::Request<T> {
    with_timeout(message, PULL_TIMEOUT)
}

fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(super) fn pairs(
    pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("address", &self.address()).finish_non_exhaustive()
    }
}
