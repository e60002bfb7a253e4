//! The server itself, not generic over the author's type: assembles the parts, serves, and stops.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::task::Poll;

use gofer_net::memory::{MemoryListener, Network};
use gofer_net::tls::Trust;
use gofer_net::{BoxFuture, Clock, Dial, Listener};
use tokio::net::TcpListener;

use super::auth::SharedToken;
use super::clock_watch::watch_clock;
use super::erased::Definition;
use super::error::RunError;
use super::health;
use super::lifecycle::{Lifecycle, Phase};
use super::limits::Limits;
use super::router::Router;
use super::service::Service;
use super::signals::Signals;
use super::system_config::{LogLevel, PREFIX, SystemConfig};
use crate::client::{ClientOptions, Gofer, new_client};

pub(crate) struct ServerInner {
    pub(super) config: SystemConfig,
    definition: Arc<dyn Definition>,
    pub(super) limits: Limits,
    /// Bound by the author, instead of the configured address.
    pub(super) bound: Option<StdListener>,
    memory: Option<MemoryListener>,
    pub(super) trust: Trust,
    pub(super) stop: Vec<BoxFuture<'static, ()>>,
    pub(super) signals: Option<Signals>,
    /// Why the author's declarations cannot work.
    pub(super) misdeclared: Option<String>,
    clock: Clock,
    dial: Option<Dial>,
}

impl ServerInner {
    pub(super) fn new(config: SystemConfig, definition: Arc<dyn Definition>) -> Self {
        let trust = Trust { skip_verification: config.skip_tls_verify, ..Trust::default() };
        Self {
            config,
            definition,
            limits: Limits::default(),
            bound: None,
            memory: None,
            trust,
            stop: Vec::new(),
            signals: None,
            misdeclared: None,
            clock: Clock::system(),
            dial: None,
        }
    }

    /// Serves inside Gofer's process: over pipes, trusting its certificate, on its clock.
    pub(crate) fn embedded(
        mut self,
        listener: MemoryListener,
        gofer: Network,
        trust: Trust,
        clock: Clock,
    ) -> Self {
        self.memory = Some(listener);
        self.dial = Some(Dial::Memory(gofer));
        self.trust = trust;
        self.clock = clock;
        self
    }

    pub(crate) fn serve(self) -> BoxFuture<'static, Result<(), RunError>> {
        Box::pin(self.run())
    }

    async fn run(self) -> Result<(), RunError> {
        if let Some(why) = self.misdeclared {
            return Err(RunError::Declaration(why));
        }
        let Self { config, definition, limits, trust, stop, signals, clock, dial, .. } = self;
        let listener = match self.memory {
            Some(listener) => Listener::Memory(listener),
            None => listen(self.bound, &config.host).await?,
        };
        if config.skip_tls_verify && !config.gofer_host.is_loopback() {
            tracing::warn!("Gofer's certificate is not verified: {PREFIX}SKIP_TLS_VERIFY is set");
        }
        if config.has_unknown_log_level {
            let names = LogLevel::names();
            tracing::warn!("{PREFIX}LOG_LEVEL is none of {names}; logging at level info");
        }
        let gofer = gofer(&config, trust, clock, dial);
        let lifecycle = Lifecycle::new(definition, gofer.clone(), limits.stop_grace());
        // However this future ends, nothing that it started outlives it.
        let _abandon_on_drop = AbandonOnDrop(Arc::clone(&lifecycle));
        lifecycle.wake_subscriptions();
        let (health, follow) = health::service(&lifecycle).await;
        let service = Service::new(config.name, Arc::clone(&lifecycle), &limits);
        let router = Router::new(service, limits.message_bytes(), health);
        let token = Arc::new(SharedToken::new(&config.key));
        if let Listener::Tcp(listener) = &listener
            && let Ok(address) = listener.local_addr()
        {
            tracing::info!(%address, "listening");
        }
        let stopped = async {
            let stopped = async { tokio::join!(follow, until_stopped(&lifecycle, stop)) };
            tokio::select! {
                biased;
                _ = stopped => {}
                () = watch_clock(&gofer, &lifecycle.registry) => {}
            }
        };
        let serving = gofer_net::server::serve(
            listener,
            config.tls,
            gofer_net::server::Service::new(token, Arc::new(router), limits.connection_limits()),
            stopped,
        );
        let Some(mut signals) = signals else {
            serving.await;
            return Ok(());
        };
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            () = &mut serving => {}
            () = async {
                signals.next().await;
                tokio::select! {
                    biased;
                    // Never completes: once the server has stopped, the branch above does.
                    () = async { lifecycle.shutdown().await; std::future::pending().await } => {}
                    () = signals.next() => {
                        tracing::warn!("received a second signal; stopping immediately");
                    }
                }
            } => {}
        }
        Ok(())
    }
}

async fn listen(bound: Option<StdListener>, address: &str) -> Result<Listener, RunError> {
    let listener = match bound {
        Some(bound) => bound.set_nonblocking(true).and_then(|()| TcpListener::from_std(bound)),
        None => TcpListener::bind(address).await,
    };
    let failed = |source| RunError::Listen { address: address.to_owned(), source };
    listener.map(Listener::Tcp).map_err(failed)
}

struct AbandonOnDrop(Arc<Lifecycle>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Waits for a reason to stop, and for the drain that follows.
async fn until_stopped(lifecycle: &Arc<Lifecycle>, stop: Vec<BoxFuture<'static, ()>>) {
    let mut phase = lifecycle.phase();
    // The sender is part of the lifecycle, so only the phase ends this.
    let stopped = async { drop(phase.wait_for(|phase| *phase == Phase::Stopped).await) };
    tokio::select! {
        biased;
        () = stopped => {}
        () = first_of(stop) => lifecycle.shutdown().await,
    }
}

/// Completes with the first of them; if there are none, never.
async fn first_of(mut futures: Vec<BoxFuture<'static, ()>>) {
    std::future::poll_fn(|context| {
        if futures.iter_mut().any(|future| future.as_mut().poll(context).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn gofer(config: &SystemConfig, trust: Trust, clock: Clock, dial: Option<Dial>) -> Gofer {
    new_client(ClientOptions {
        dial: dial.unwrap_or_else(|| config.gofer_host.dial()),
        authority: config.gofer_host.authority(),
        server_name: config.gofer_host.server_name(),
        trust,
        authorization: Some(config.authorization.clone()),
        name: config.name.clone(),
        is_extension: true,
        clock,
    })
}
