//! The embedded core itself: its API on a pipe, and where asked for on
//! loopback, with a client that may do everything.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;

use super::api::Api;
use super::authorize::TokenTable;
use super::builder::CoreBuilder;
use super::certificates::{Identity, SERVER_NAME, secret};
use super::contact::Token;
use super::conversations::{Conversation, Heard};
use super::executor::Executor;
use super::extensions::{Common, Extensions};
use super::external::External;
use super::identity;
use super::installed::Installed;
use super::launcher::{Containers, InProcess, PROGRAM};
use super::router::Router;
use super::serving::{Service, Serving, Tls};
use super::store::Store;
use gofer_net::Clock;
use gofer_net::Dial;
use gofer_net::memory::Network;
use gofer_net::tls::{PemProblem, Trust, certificates, server_config};
use gofer_proto as proto;
use gofer_sdk::internal::misdeclared;
use gofer_sdk::internal::{ClientOptions, close_client, error, new_client, run_info};
use gofer_sdk::{Error, Extension, Result};
use gofer_sdk::{Gofer, PipelineId, RunInfo};

/// A Gofer core inside this process: the real API over real TLS, with
/// everything in memory.
///
/// A cheap clone. Its extensions are stopped by [`stop`](Self::stop), or when
/// the last clone is dropped.
///
/// In a test with paused time, days of ticks pass in milliseconds:
///
/// ```
/// use gofer_core::{Core, NO_SETTINGS, hours};
/// # use gofer_sdk::{Extension, GoDuration, Gofer, NoConfig, Result, Run, Subscription};
/// # #[derive(serde::Deserialize, schemars::JsonSchema)]
/// # struct Params {
/// #     every: GoDuration,
/// # }
/// # struct Interval;
/// # impl Extension for Interval {
/// #     type Config = NoConfig;
/// #     type Params = Params;
/// #     async fn init(_: NoConfig, _: Gofer) -> Result<Self> { Ok(Self) }
/// #     async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
/// #         let mut ticks = subscription.every(subscription.params().every)?;
/// #         while ticks.next().await {
/// #             subscription.start_run(Run::because("the interval elapsed")).await?;
/// #         }
/// #         Ok(())
/// #     }
/// # }
///
/// # /*
/// #[tokio::test(start_paused = true)]
/// # */
/// async fn fires_twice_in_three_hours() -> gofer_sdk::Result<()> {
///     let gofer = Core::in_memory().await?;
///     let interval = gofer.install::<Interval>("interval", NO_SETTINGS).await?;
///     interval.subscribe("default/nightly", "hourly", [("every", "1h30m")]).await?;
///     gofer.elapse(hours(3)).await;
///     assert_eq!(gofer.runs("default/nightly").len(), 2);
///     Ok(())
/// }
/// # tokio::runtime::Builder::new_current_thread()
/// #     .enable_all().start_paused(true).build().unwrap()
/// #     .block_on(fires_twice_in_three_hours()).unwrap();
/// ```
#[derive(Clone)]
pub struct Core {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// Where runs are executed. Before the store: it uses it to its end.
    executor: Option<Executor>,
    pub(super) store: Arc<Store>,
    pub(super) extensions: Arc<Extensions>,
    external: Option<External>,
    serving: Arc<Serving>,
    certificate: String,
    token: String,
    /// Of this process alone, so it is not stored.
    _own: Token,
    pub(super) client: Gofer,
    /// Where `elapse` has come to.
    now: Mutex<Instant>,
}

impl Core {
    /// A core on this runtime alone, reached by pipes: for tests, with paused
    /// time or without.
    ///
    /// Time that passes for tokio passes for the core's records too.
    ///
    /// # Errors
    ///
    /// Where the system gives no random numbers.
    pub async fn in_memory() -> Result<Self> {
        Self::builder().start().await
    }

    /// A core that also listens on loopback, so that extensions in processes
    /// of their own can be started.
    ///
    /// Not on paused time: it jumps ahead while a process is still on its way,
    /// and every deadline has passed.
    ///
    /// # Errors
    ///
    /// Where no address of loopback can be listened on.
    pub async fn on_loopback() -> Result<Self> {
        Self::builder().listen((Ipv4Addr::LOCALHOST, 0)).start().await
    }

    /// A core that is set up otherwise.
    ///
    /// ```no_run
    /// # async fn example() -> gofer_sdk::Result<()> {
    /// use gofer_core::Core;
    ///
    /// let core = Core::builder().listen(([127, 0, 0, 1], 8080)).store("gofer.redb").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> CoreBuilder {
        CoreBuilder::new()
    }

    pub(super) async fn start(builder: CoreBuilder) -> Result<Self> {
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
        } = builder;
        let listener = match listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        let clock = if listener.is_some() { Clock::system() } else { Clock::derived() };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let inside = Identity::new().map_err(|status| error(&status))?;
        let trust = Trust {
            extra: certificates(&inside.certificate).map_err(unusable)?,
            only_extra: true,
            anyone: false,
        };
        let network = Network::default();
        let path = store.path().map(Path::to_owned);
        let open = move |path: Option<&Path>| -> Result<_> {
            let store = store.open(clock)?;
            Ok((store, identity::outside(tls, path, address)?))
        };
        let (store, outside) = match path {
            // It reads the files as a whole.
            Some(path) => tokio::task::spawn_blocking(move || open(Some(&path))).await??,
            None => open(None)?,
        };
        let tls = Tls {
            inside: server_config(&inside.certificate, &inside.key).map_err(unusable)?,
            outside: server_config(&outside.certificate, &outside.key).map_err(unusable)?,
        };
        let serving = Serving::new(network.clone(), address, tls);
        store.begin_runs(run_handler.is_some().then_some(runs_at_a_time));
        let token = secret().map_err(|status| error(&status))?;
        let extensions = Extensions::new(
            Arc::clone(&store),
            clock,
            InProcess::new(network.clone(), trust.clone(), clock),
            Containers::new(container_engine, Arc::downgrade(&serving)),
            Common {
                gofer_host: address
                    .map_or_else(|| SERVER_NAME.to_owned(), |address| address.to_string()),
                log_level: log_level.name().to_owned(),
                health_check_period,
            },
        );
        let external = External::open(external, &extensions).await?;
        let own = extensions.let_in(&token);
        let client = new_client(ClientOptions {
            dial: Dial::Memory(network),
            authority: Authority::from_static(SERVER_NAME),
            server_name: ServerName::try_from(SERVER_NAME)?,
            trust,
            authorization: Some(HeaderValue::try_from(format!("Bearer {token}"))?),
            extension: "harness".to_owned(),
            clock,
        });
        let executor =
            run_handler.map(|handler| Executor::start(Arc::clone(&store), handler, run_grace));
        let core = Self {
            inner: Arc::new(Inner {
                executor,
                store,
                extensions,
                external,
                serving,
                certificate: outside.certificate,
                token,
                _own: own,
                client,
                now: Mutex::new(Instant::now()),
            }),
        };
        let extensions = &core.inner.extensions;
        let stored = extensions.claim_stored();
        core.serve(listener).await?;
        extensions.end_left_behind().await;
        extensions.restore_all(stored);
        if let Some(external) = &core.inner.external {
            external.begin();
        }
        Ok(core)
    }

    async fn serve(&self, listener: Option<TcpListener>) -> Result<()> {
        let inner = &self.inner;
        let tokens = TokenTable::new(Arc::clone(&inner.store), Arc::clone(&inner.extensions));
        let api = Api::new(Arc::clone(&inner.store), Arc::clone(&inner.extensions), tokens.clone());
        let service = Service {
            authorize: Arc::new(tokens),
            handler: Arc::new(Router::new(api, Arc::clone(&inner.store))),
        };
        Ok(inner.serving.open(service, listener).await?)
    }

    /// Installs an extension of this process under a name: starts it, calls
    /// Init with the configuration, then Info.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) with the
    /// extension's own sentence where it refuses the configuration;
    /// [`AlreadyExists`](gofer_sdk::ErrorKind::AlreadyExists) where the name is
    /// taken.
    pub async fn install<E: Extension>(
        &self,
        name: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        if let Some(why) = misdeclared::<E>() {
            return Err(Error::internal(why));
        }
        let image = self.inner.extensions.in_process.register::<E>();
        self.install_any(name, image, config).await
    }

    /// Installs a program as an extension, in a process of its own. The core
    /// must be [on loopback](Self::on_loopback).
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install);
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) where the
    /// program cannot be started.
    pub async fn install_program(
        &self,
        name: &str,
        program: &Path,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        let Some(program) = program.to_str() else {
            return Err(Error::invalid_parameter("program", "must be a path in UTF-8"));
        };
        self.install_any(name, format!("{PROGRAM}{program}"), config).await
    }

    /// Installs a container image as an extension, as `registry/name:tag`, by
    /// Docker or Podman. An image that is not on this machine is pulled, without
    /// credentials. The core must [listen](CoreBuilder::listen).
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
    /// [`FailedPrecondition`](gofer_sdk::ErrorKind::FailedPrecondition) where no
    /// container engine answers, the image cannot be had, or its container does not
    /// start.
    #[cfg(feature = "containers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "containers")))]
    pub async fn install_image(
        &self,
        name: &str,
        image: &str,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        self.install_any(name, image.to_owned(), config).await
    }

    /// An extension that is installed already, by its name: of a core that was
    /// started with a store, say.
    ///
    /// # Errors
    ///
    /// [`NotFound`](gofer_sdk::ErrorKind::NotFound) where there is none.
    pub fn installed(&self, name: &str) -> Result<Installed> {
        let installed = Installed::new(self.clone(), name.to_owned());
        installed.status().map(|_| installed)
    }

    async fn install_any(
        &self,
        name: &str,
        image: String,
        config: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Result<Installed> {
        let request = proto::InstallExtensionRequest {
            name: name.to_owned(),
            image,
            variables: pairs(config).into_iter().collect(),
            ..Default::default()
        };
        let outcome = self.inner.client.api().install_extension(timed_for_pull(request)).await;
        outcome.map_err(|status| error(&status))?;
        Ok(Installed::new(self.clone(), name.to_owned()))
    }

    /// Talks with an extension's installer, giving the answers one after the
    /// other and hanging up after the last.
    ///
    /// # Errors
    ///
    /// What the conversation ends with.
    pub async fn converse_with_installer<E: Extension>(
        &self,
        answers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Conversation> {
        use proto::run_extension_installer_client_message::{Init, MessageType};
        use proto::run_extension_installer_extension_message::MessageType as Said;
        let image = self.inner.extensions.in_process.register::<E>();
        let first = MessageType::Init(Init { image, ..Default::default() });
        let messages = std::iter::once(first)
            .chain(answers.into_iter().map(|answer| MessageType::Msg(answer.into())))
            .map(|message| proto::RunExtensionInstallerClientMessage {
                message_type: Some(message),
            })
            .collect::<Vec<_>>();
        let stream = tonic::codegen::tokio_stream::iter(messages);
        let response = self.inner.client.api().run_extension_installer(stream).await;
        let messages = response.map_err(|status| error(&status))?.into_inner();
        Conversation::hear(messages, |message| {
            Some(match message.message_type? {
                Said::Msg(text) => Heard::Said(text),
                Said::Query(text) => Heard::Asked(text),
                Said::ConfigSetting(it) => Heard::Set(it.config, it.value),
            })
        })
        .await
    }

    /// Lets time pass, and what is due in it happen. Meant for paused time,
    /// where it takes no longer than the work that is due (without
    /// `start_paused = true` it takes as long as it says); repeated calls do not
    /// drift.
    pub async fn elapse(&self, time: Duration) {
        let until = {
            let mut now = self.inner.now.lock().unwrap_or_else(PoisonError::into_inner);
            // Time may have passed outside of this function; and what was
            // begun since the last settling counts from then.
            let from = (Instant::now() - SETTLE).max(self.inner.extensions.last_subscribed());
            *now = (*now).max(from) + time;
            *now
        };
        tokio::time::sleep_until(until).await;
        // Paused time goes on only once nothing is left to do: what fell due
        // just now is done when this is over.
        tokio::time::sleep(SETTLE).await;
    }

    /// All runs of a pipeline, newest first; none of one that does not exist.
    #[must_use]
    pub fn runs(&self, pipeline: impl Into<PipelineId>) -> Vec<RunInfo> {
        let pipeline = pipeline.into();
        let runs = self.inner.store.runs(pipeline.namespace(), pipeline.pipeline());
        runs.into_iter().map(run_info).collect()
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> &Gofer {
        &self.inner.client
    }

    /// The token of [`client`](Self::client), for clients of your own.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// The address of the API on loopback, where it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.inner.serving.address()
    }

    /// The address on which [external events](CoreBuilder::external_events) are
    /// taken, where they are.
    #[cfg(feature = "webhooks")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webhooks")))]
    #[must_use]
    pub fn external_events_address(&self) -> Option<SocketAddr> {
        self.inner.external.as_ref().map(External::address)
    }

    /// The certificate of the API, as PEM, for clients of your own. Unless it
    /// was [given](CoreBuilder::tls), it is for the name `localhost`, the
    /// addresses of loopback and the one that is listened on.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.inner.certificate
    }

    /// Whether the first token is still to be made, by `BootstrapToken`, which
    /// whoever reaches the core may do once.
    #[must_use]
    pub fn awaits_first_token(&self) -> bool {
        self.inner.store.awaits_first_token()
    }

    /// Takes the API away, as in an outage: connections break and new ones are
    /// refused. Extensions run on, external events are taken, and nothing is
    /// forgotten.
    pub async fn go_away(&self) {
        self.inner.serving.close().await;
    }

    /// Brings the API back after [`go_away`](Self::go_away), at the same
    /// address.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on again.
    pub async fn come_back(&self) -> Result<()> {
        self.serve(None).await
    }

    /// Stops taking external events, then all extensions, then the runs that are
    /// being executed, within their [grace](CoreBuilder::run_grace), then the API,
    /// and closes the store, so that another core may open it.
    pub async fn stop(&self) {
        if let Some(external) = &self.inner.external {
            external.close().await;
        }
        self.inner.extensions.stop_all().await;
        if let Some(executor) = &self.inner.executor {
            executor.stop().await;
        }
        close_client(&self.inner.client).await;
        self.inner.store.end_streams();
        self.go_away().await;
        self.inner.store.close().await;
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }
}

fn unusable(problem: PemProblem) -> Error {
    Error::internal(format!("the core's certificate {problem}"))
}

/// For what fell due to be done; any time that is shorter than what tests
/// measure in.
const SETTLE: Duration = Duration::from_millis(1);

/// For calls that start or stop an extension.
const PATIENT: Duration = Duration::from_secs(60);

/// For calls before whose answer an image may have to be pulled. That a registry
/// gives nothing any more is noticed sooner.
const PULL_PATIENT: Duration = Duration::from_secs(30 * 60);

pub(super) fn timed<T>(message: T) -> tonic::Request<T> {
    with_timeout(message, PATIENT)
}

pub(super) fn timed_for_pull<T>(message: T) -> tonic::Request<T> {
    with_timeout(message, PULL_PATIENT)
}

fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(super) fn pairs(
    pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("address", &self.address()).finish_non_exhaustive()
    }
}
