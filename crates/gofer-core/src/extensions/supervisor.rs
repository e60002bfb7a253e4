//! Keeps an extension up: restarts it when it ends or becomes unhealthy, and restores its
//! subscriptions.
//!
//! Each extension has its own supervisor, so one that never comes up does not delay the others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::slots::{Lease, Superseded};
use super::{Extensions, Running};
use crate::store::By;
use gofer_net::{Backoff, Effect, effect};
use gofer_proto as proto;
use gofer_proto::pipeline_extension_subscription::Status as State;

/// Between an extension's end and its next launch. The first pause is short: most failures are
/// transient.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// After an extension has run this long, the backoff starts over.
const RECOVERED: Duration = Duration::from_secs(60);

/// Subscriptions of one extension that are restored concurrently: enough to keep it busy.
const RESTORES_IN_FLIGHT: usize = 16;

/// Between attempts to restore a subscription if the response was lost or the extension is
/// temporarily unavailable.
const RESTORE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Attempts to restore a subscription while the extension is up. Together they take longer than an
/// extension takes to end that was told to stop by something else, and refuses calls meanwhile.
const RESTORE_ATTEMPTS: u32 = 10;

/// The outcome for a stored subscription.
pub(super) enum Restored {
    /// Active, or not to be restored.
    Done,
    /// Marked as refused, for this reason.
    Refused(String),
}

impl Extensions {
    /// Supervises the running extension, or brings it up first, until the returned handle is
    /// dropped.
    pub(super) fn supervise(
        &self,
        lease: Lease,
        running: Option<&Arc<Running>>,
    ) -> AbortOnDropHandle<()> {
        let (this, running) = (Weak::clone(&self.this), running.map(Arc::clone));
        let supervision = async move {
            // Superseded, or the core is gone: nothing left to do.
            let _ = supervise(this, lease, running).await;
        };
        let essential = &self.common.essential;
        AbortOnDropHandle::new(essential.spawn("the supervision of an extension", supervision))
    }

    /// Launches the extension; it takes calls once it is up.
    async fn bring_up_supervised(&self, lease: &Lease) -> Result<Option<Arc<Running>>, Superseded> {
        let name = &lease.name;
        let progress = self.slots.progress(lease)?;
        let outcome = match self.registration(name) {
            Ok(registration) => {
                self.bring_up(&registration, &self.store.options(name), &progress).await
            }
            Err(status) => Err(status),
        };
        match outcome {
            Ok(running) => {
                self.slots.mark_running(lease, &running)?;
                Ok(Some(running))
            }
            Err(status) => {
                let (code, error) = (status.code(), status.message());
                tracing::error!(extension = name, ?code, error, "an extension failed to start");
                self.slots.mark_failed(lease, status.message())?;
                Ok(None)
            }
        }
    }

    /// Restores an extension's stored subscriptions concurrently. One that is refused is marked and
    /// does not affect the others; returns how many were refused.
    pub(super) async fn restore_subscriptions(&self, name: &str, running: &Arc<Running>) -> usize {
        let in_flight = Arc::new(Semaphore::new(RESTORES_IN_FLIGHT));
        let mut restores = JoinSet::new();
        for subscription in self.store.subscriptions_of_extension(name) {
            let (Some(this), Ok(permit)) =
                (self.this.upgrade(), Arc::clone(&in_flight).acquire_owned().await)
            else {
                return 0;
            };
            let running = Arc::clone(running);
            restores.spawn(async move {
                let outcome = this.restore(&running, &subscription).await;
                drop(permit);
                outcome
            });
        }
        let mut refused = 0;
        while let Some(outcome) = restores.join_next().await {
            refused += usize::from(matches!(outcome, Ok(Restored::Refused(_))));
        }
        refused
    }

    /// Restores a stored subscription if it still exists and is neither disabled nor marked as
    /// refused.
    async fn restore(
        &self,
        running: &Arc<Running>,
        stored: &proto::PipelineExtensionSubscription,
    ) -> Restored {
        let _lock = self.store.lock_subscription(stored).await;
        let proto::PipelineExtensionSubscription { namespace, pipeline, name, label, .. } = stored;
        match self.store.subscription(namespace, pipeline, name, label) {
            Ok(current) if current.status() == State::Active => {
                self.restore_stored(running, &current).await
            }
            _ => Restored::Done,
        }
    }

    /// Makes the extension hold a stored, active subscription, or marks that as refused. The lock of
    /// the subscription is held.
    pub(super) async fn restore_stored(
        &self,
        running: &Arc<Running>,
        current: &proto::PipelineExtensionSubscription,
    ) -> Restored {
        let proto::PipelineExtensionSubscription { namespace, pipeline, name, label, .. } = current;
        let mut backoff = RESTORE_BACKOFF;
        // Also between attempts: the response to one that succeeded may have been lost.
        let access = running.handle.key.begin_access(current);
        for attempt in 1.. {
            let Err(refusal) = self.subscribe_to(running, current).await else {
                access.keep();
                break;
            };
            // An error from an extension that is being stopped or is gone is not a refusal: the
            // subscription is restored when the next one is up.
            if !self.slots.is_current(name, running) || running.handle.process.ended().is_some() {
                break;
            }
            let is_transient = match effect(&refusal) {
                Effect::Unknown if refusal.code() == Code::DeadlineExceeded => {
                    if !running.handle.is_healthy().await {
                        break;
                    }
                    false
                }
                Effect::None | Effect::Unavailable | Effect::Unknown => true,
                Effect::Refused => false,
            };
            if !is_transient || attempt == RESTORE_ATTEMPTS {
                let (state, reason) = (State::Error, refusal.message());
                // Fails if its pipeline was deleted meanwhile: nothing to mark then.
                let names = [namespace, pipeline, name, label].map(String::as_str);
                let _ = self.store.set_subscription_status(names, state, reason, &By::Core);
                tracing::warn!(
                    extension = %name, pipeline = %format_args!("{namespace}/{pipeline}"), label,
                    code = ?refusal.code(), error = reason,
                    "a stored subscription is refused"
                );
                drop(access);
                self.store.end_access(current);
                return Restored::Refused(reason.to_owned());
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        Restored::Done
    }
}

async fn supervise(
    extensions: Weak<Extensions>,
    lease: Lease,
    running: Option<Arc<Running>>,
) -> Result<(), Superseded> {
    let upgrade = || extensions.upgrade().ok_or(Superseded);
    let mut backoff = BACKOFF;
    // The caller restores the subscriptions of an extension that is already up.
    let mut to_restore = running.is_none();
    let mut watched = running;
    if watched.is_none() {
        watched = upgrade()?.bring_up_supervised(&lease).await?;
    }
    loop {
        if let Some(running) = watched.take() {
            let since = Instant::now();
            let period = upgrade()?.common.health_check_period;
            let restored = async {
                if to_restore && let Some(extensions) = extensions.upgrade() {
                    extensions.restore_subscriptions(&lease.name, &running).await;
                }
                // Must not keep the core alive while it only watches.
                std::future::pending().await
            };
            // Watched from the start: it may hang while it restores.
            let problem = tokio::select! {
                biased;
                problem = running.handle.unhealthy(period) => problem,
                never = restored => never,
            };
            tracing::warn!(extension = lease.name, %problem, "restarting an extension");
            upgrade()?.slots.mark_failed(&lease, &problem)?;
            running.handle.kill().await;
            if since.elapsed() >= RECOVERED {
                backoff = BACKOFF;
            }
        }
        tokio::time::sleep(backoff.pause()).await;
        watched = upgrade()?.bring_up_supervised(&lease).await?;
        to_restore = true;
    }
}
