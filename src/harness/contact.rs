//! One started extension: how it is called, watched and stopped, whatever it
//! runs in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{Code, Status};

use super::certificates::{Identity, SERVER_NAME};
use super::launcher::{Launched, Process, Start};
use crate::client::{Backoff, Channel, Connector, Dial, Transport, effect};
use crate::clock::Clock;
use crate::net::tls::{Trust, certificates};
use crate::proto;
use crate::proto::extension_service_client::ExtensionServiceClient;
use crate::server::auth::sha256;

/// How long an extension may take from its start to its first answer. A cold
/// container on a busy machine takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one call to an extension may take; ending a subscription that
/// ignores its cancellation takes some seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long an extension may take from Shutdown to the end of its process.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Between attempts to reach an extension that is not listening yet.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));

/// A started extension, initialized or not.
pub(super) struct Contact {
    pub(super) client: ExtensionServiceClient<Transport>,
    channel: Channel,
    pub(super) process: tokio::sync::Mutex<Box<dyn Process>>,
    pub(super) id: Option<u32>,
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
            client: ExtensionServiceClient::new(transport),
            channel,
            id: process.id(),
            process: tokio::sync::Mutex::new(process),
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
            if let Some(end) = self.process.lock().await.ended() {
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

    /// Asks it to stop, and sees to it that it does.
    pub(super) async fn stop(&self) {
        match self.client.clone().shutdown(proto::ExtensionShutdownRequest {}).await {
            Ok(_) => {}
            // It may have been asked already, and be gone before it answers.
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => tracing::warn!(%status, "an extension did not answer Shutdown"),
        }
        self.channel.close().await;
        self.process.lock().await.reap(STOP_TIMEOUT).await;
    }
}
