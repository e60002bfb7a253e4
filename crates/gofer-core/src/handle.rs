//! A handle to a launched extension, whatever it runs in: calls, health checks, stopping.

use std::sync::Arc;
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
use super::launcher::{LaunchSpec, Launched, Process};
use super::limits::{Timeouts, show_duration};
use super::store::KeyGuard;
use gofer_net::tls::{Trust, certificates};
use gofer_net::{Backoff, Channel, Clock, Connector, Dial, Effect, Transport, effect};
use gofer_proto as proto;
use gofer_proto::embedded::extension_status_client::ExtensionStatusClient;
use gofer_proto::extension_service_client::ExtensionServiceClient;

/// How long it may take until the end of what an extension runs in is noticed.
const END_NOTICED: Duration = Duration::from_secs(5);

/// How long a health check may take: long enough for an extension that is merely busy.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// How many health checks must fail in a row before an extension counts as unhealthy. One
/// failure may be a lost packet.
const HEALTH_FAILURES: u32 = 3;

/// Between attempts to call an extension that is not listening yet.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));

/// A launched extension, initialized or not.
pub(super) struct ExtensionHandle {
    pub(super) client: ExtensionServiceClient<Transport>,
    channel: Channel,
    /// Of the SDK; other extensions lack it.
    pub(super) status: ExtensionStatusClient<Transport>,
    health: HealthClient<Transport>,
    pub(super) process: Process,
    /// Whether it is reached over the network rather than inside this process.
    remote: bool,
    address: String,
    /// What it calls the core with.
    pub(super) key: KeyGuard,
    timeouts: Timeouts,
}

fn channel(dial: Dial, identity: &Identity, clock: Clock) -> Result<Channel, Status> {
    // The extension must present exactly the certificate that was made for it.
    let extra = certificates(&identity.certificate)
        .map_err(|problem| Status::internal(format!("the extension's certificate: {problem}")))?;
    let trust = Trust { extra, only_extra: true, skip_verification: false };
    let name = ServerName::try_from(SERVER_NAME)
        .map_err(|_| Status::internal("the server name is not valid"))?;
    Ok(Channel::new(Connector::new(dial, name, trust), clock, BACKOFF))
}

impl ExtensionHandle {
    /// Connects to what was launched: trusted by its certificate, authenticated by its key.
    pub(super) fn new(
        launched: Launched,
        spec: &LaunchSpec,
        clock: Clock,
        key: KeyGuard,
    ) -> Result<Self, Status> {
        let Launched { dial, process } = launched;
        let remote = !matches!(dial, Dial::Memory(_));
        let address = if remote { dial.to_string() } else { "in-process".to_owned() };
        let channel = channel(dial, &spec.identity, clock)?;
        let authorization = HeaderValue::try_from(format!("Bearer {}", spec.key))
            .map_err(|_| Status::internal("the key is not a valid header value"))?;
        let transport = Transport::new(
            channel.clone(),
            Some(authorization),
            Authority::from_static(SERVER_NAME),
            spec.timeouts.call,
        );
        Ok(Self {
            client: ExtensionServiceClient::new(transport.clone()),
            status: ExtensionStatusClient::new(transport.clone()),
            channel,
            health: HealthClient::new(transport),
            process,
            remote,
            address,
            key,
            timeouts: spec.timeouts,
        })
    }

    /// Where the core reaches it, as host and port; `in-process` inside this process.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Makes the first call, repeating it until the extension listens. The call itself has all of
    /// the time that is left to start, whatever other calls have.
    pub(super) async fn first_call<Q, T, F, Fut>(&self, request: Q, call: F) -> Result<T, Status>
    where
        Q: Clone,
        F: Fn(ExtensionServiceClient<Transport>, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let until = Instant::now() + self.timeouts.start;
        let mut backoff = BACKOFF;
        let too_late = |last: &Status| {
            Status::deadline_exceeded(format!(
                "the extension did not answer within {}, its start timeout: {}",
                show_duration(self.timeouts.start),
                last.message()
            ))
        };
        loop {
            let mut attempt = tonic::Request::new(request.clone());
            attempt.set_timeout(until.saturating_duration_since(Instant::now()));
            let status = match call(self.client.clone(), attempt).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if let Some(end) = self.end_behind(&status).await {
                return Err(Status::failed_precondition(format!(
                    "the extension ended before it answered: {end}"
                )));
            }
            if Instant::now() >= until {
                return Err(too_late(&status));
            }
            if !effect(&status).may_repeat() {
                return Err(status);
            }
            let again = Instant::now() + backoff.pause();
            if again >= until {
                tokio::time::sleep_until(until).await;
                return Err(too_late(&status));
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// How it ended, if that is why a call failed. The end of a container is noticed a moment after
    /// that of its connection.
    async fn end_behind(&self, failure: &Status) -> Option<Arc<str>> {
        if effect(failure) == Effect::Unknown && failure.code() != Code::DeadlineExceeded {
            tokio::time::timeout(END_NOTICED, self.process.end()).await.ok()
        } else if effect(failure) == Effect::Refused {
            None
        } else {
            self.process.ended()
        }
    }

    /// Calls Shutdown, and kills the extension if it has not ended within its stop timeout.
    pub(super) async fn stop(&self) {
        let until = Instant::now() + self.timeouts.stop;
        let extension = &self.process.extension;
        let mut client = self.client.clone();
        let mut request = tonic::Request::new(proto::ExtensionShutdownRequest {});
        request.set_timeout(self.timeouts.stop);
        let shutdown = client.shutdown(request);
        match tokio::time::timeout_at(until, shutdown).await {
            Ok(Ok(_)) => {}
            // It may have been shut down already and be gone before it answers.
            Ok(Err(status)) if status.code() == Code::Unavailable => {}
            Ok(Err(status)) => {
                tracing::warn!(extension, %status, "an extension did not answer Shutdown");
            }
            Err(_) => tracing::warn!(extension, "an extension did not answer Shutdown in time"),
        }
        self.key.end();
        self.channel.close().await;
        self.process.reap(until.saturating_duration_since(Instant::now())).await;
    }

    /// Ends it immediately.
    pub(super) async fn kill(&self) {
        self.key.end();
        self.process.kill().await;
        self.channel.close().await;
    }

    /// Waits until it ends or becomes unhealthy, and returns the problem as a sentence.
    ///
    /// An exit is noticed immediately, a hang by a health check every `period`. Extensions inside
    /// this process are not checked: the process hangs with them, and checks would advance its
    /// paused time.
    pub(super) async fn unhealthy(&self, period: Duration) -> Arc<str> {
        let unhealthy = async {
            if self.remote { self.poll_health(period).await } else { std::future::pending().await }
        };
        tokio::select! {
            // An extension that has ended fails its health checks too.
            biased;
            end = self.process.end() => end,
            problem = unhealthy => problem,
        }
    }

    /// Checks until [`HEALTH_FAILURES`] checks have failed in a row.
    async fn poll_health(&self, period: Duration) -> Arc<str> {
        let mut failures = 0;
        loop {
            tokio::time::sleep(period).await;
            let Some(problem) = self.check_health().await else {
                failures = 0;
                continue;
            };
            failures += 1;
            if failures == HEALTH_FAILURES {
                return problem;
            }
        }
    }

    /// One health check: the problem, if there is one.
    async fn check_health(&self) -> Option<Arc<str>> {
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(HEALTH_DEADLINE);
        match self.health.clone().check(request).await {
            Ok(answer) if answer.get_ref().status() == ServingStatus::NotServing => {
                Some("it reports that it is not serving".into())
            }
            Ok(_) => None,
            // Extensions need not implement health checks; one that answers so is up.
            Err(status) if status.code() == Code::Unimplemented => None,
            Err(status) => {
                Some(format!("it does not answer health checks: {}", status.message()).into())
            }
        }
    }
}
