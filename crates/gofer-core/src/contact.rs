//! One started extension: how it is called, watched and stopped, whatever it
//! runs in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::certificates::{Identity, SERVER_NAME};
use super::launcher::{Launched, Process, Start};
use gofer_net::Clock;
use gofer_net::auth::sha256;
use gofer_net::tls::{Trust, certificates};
use gofer_net::{Backoff, Channel, Connector, Dial, Transport, effect};
use gofer_proto as proto;
use gofer_proto::extension_service_client::ExtensionServiceClient;

/// How long an extension may take from its start to its first answer. A cold
/// container on a busy machine takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one call to an extension may take; ending a subscription that
/// ignores its cancellation takes some seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long an extension may take from Shutdown to the end of its process.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an extension may take to say how it is. One that is merely busy has
/// that much time.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// Health checks that fail in a row before an extension is taken for ill; one
/// may get lost.
const HEALTH_FAILURES: u32 = 3;

/// Between attempts to reach an extension that is not listening yet.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));

/// A started extension, initialized or not.
pub(super) struct Contact {
    pub(super) client: ExtensionServiceClient<Transport>,
    channel: Channel,
    health: HealthClient<Transport>,
    pub(super) process: Process,
    /// Whether it is reached over a network, and not inside this process.
    remote: bool,
    _token: Token,
}

/// Digests of the keys of all extensions that run or are being started.
#[derive(Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<Vec<[u8; 32]>>>);

impl Tokens {
    /// Lets a key in for as long as the token lives.
    pub(super) fn let_in(&self, key: &str) -> Token {
        let digest = sha256(key.as_bytes());
        lock(&self.0).push(digest);
        Token { digest, all: self.clone() }
    }

    pub(super) fn contains(&self, digest: &[u8; 32]) -> bool {
        lock(&self.0).contains(digest)
    }
}

/// An extension's key, while it is let in.
pub(super) struct Token {
    digest: [u8; 32],
    all: Tokens,
}

impl Drop for Token {
    fn drop(&mut self) {
        lock(&self.all.0).retain(|digest| *digest != self.digest);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn channel(dial: Dial, identity: &Identity, clock: Clock) -> Result<Channel, Status> {
    // The extension must show the very certificate that was made for it.
    let extra = certificates(&identity.certificate)
        .map_err(|problem| Status::internal(problem.to_string()))?;
    let trust = Trust { extra, only_extra: true, anyone: false };
    let name = ServerName::try_from(SERVER_NAME)
        .map_err(|_| Status::internal("the server's name is not one"))?;
    Ok(Channel::new(Connector::new(dial, name, trust), clock))
}

impl Contact {
    /// Whoever was launched, trusted by its certificate and known by its key.
    pub(super) fn new(
        launched: Launched,
        start: &Start,
        clock: Clock,
        token: Token,
    ) -> Result<Self, Status> {
        let Launched { dial, process } = launched;
        let remote = !matches!(dial, Dial::Memory(_));
        let channel = channel(dial, &start.identity, clock)?;
        let authorization = HeaderValue::try_from(format!("Bearer {}", start.key))
            .map_err(|_| Status::internal("a key is not printable"))?;
        let transport = Transport::new(
            channel.clone(),
            Some(authorization),
            Authority::from_static(SERVER_NAME),
            CALL_DEADLINE,
        );
        Ok(Self {
            client: ExtensionServiceClient::new(transport.clone()),
            channel,
            health: HealthClient::new(transport),
            process,
            remote,
            _token: token,
        })
    }

    /// Makes the first call, again until somebody listens.
    pub(super) async fn reach<T, F, Fut>(&self, call: F) -> Result<T, Status>
    where
        F: Fn(ExtensionServiceClient<Transport>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let until = Instant::now() + START_TIMEOUT;
        let mut backoff = BACKOFF;
        loop {
            let status = match call(self.client.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if !effect(&status).may_repeat() {
                return Err(status);
            }
            if let Some(end) = self.process.ended() {
                return Err(Status::failed_precondition(format!(
                    "the extension ended before it answered: {end}"
                )));
            }
            if Instant::now() >= until {
                let seconds = START_TIMEOUT.as_secs();
                return Err(Status::deadline_exceeded(format!(
                    "the extension did not answer within {seconds} s: {}",
                    status.message()
                )));
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Asks it to stop, and sees to it that it does, within [`STOP_TIMEOUT`].
    pub(super) async fn stop(&self) {
        let until = Instant::now() + STOP_TIMEOUT;
        let mut client = self.client.clone();
        let asked = client.shutdown(proto::ExtensionShutdownRequest {});
        match tokio::time::timeout_at(until, asked).await {
            Ok(Ok(_)) => {}
            // It may have been asked already, and be gone before it answers.
            Ok(Err(status)) if status.code() == Code::Unavailable => {}
            Ok(Err(status)) => tracing::warn!(%status, "an extension did not answer Shutdown"),
            Err(_) => tracing::warn!("an extension did not answer Shutdown in time"),
        }
        self.channel.close().await;
        self.process.reap(until.saturating_duration_since(Instant::now())).await;
    }

    /// Ends it at once.
    pub(super) async fn kill(&self) {
        self.process.kill().await;
        self.channel.close().await;
    }

    /// Waits until it is not well: what is wrong, as a sentence.
    ///
    /// What ends is noticed at once. What hangs is noticed by asking for its
    /// health every `period`; not where it lives inside this process, which
    /// hangs with it, and whose paused time must not be moved.
    pub(super) async fn unwell(&self, period: Duration) -> Arc<str> {
        let sick = async {
            if self.remote { self.sick(period).await } else { std::future::pending().await }
        };
        tokio::select! {
            // Whoever has ended does not answer either.
            biased;
            end = self.process.end() => end,
            sick = sick => sick,
        }
    }

    async fn sick(&self, period: Duration) -> Arc<str> {
        let mut failures = 0;
        loop {
            tokio::time::sleep(period).await;
            let Some(problem) = self.ask_health().await else {
                failures = 0;
                continue;
            };
            failures += 1;
            if failures == HEALTH_FAILURES {
                return problem;
            }
        }
    }

    /// Whether it answers at all.
    pub(super) async fn is_well(&self) -> bool {
        self.ask_health().await.is_none()
    }

    /// What is wrong with it, as far as it can be asked.
    async fn ask_health(&self) -> Option<Arc<str>> {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(HEALTH_DEADLINE);
        match self.health.clone().check(request).await {
            Ok(answer) if answer.get_ref().status() == ServingStatus::NotServing => {
                Some("it says that it is not serving".into())
            }
            Ok(_) => None,
            // Extensions need not have health; whoever says so is there.
            Err(status) if status.code() == Code::Unimplemented => None,
            Err(status) => {
                Some(format!("it does not answer health checks: {}", status.message()).into())
            }
        }
    }
}
