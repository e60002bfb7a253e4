//! Keeps an extension up: watches it, starts it again when it ends or stops
//! answering, and restores its subscriptions.
//!
//! Each extension has a supervisor of its own, so that one that never comes up
//! delays no other.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::slots::{Charge, Dismissed};
use super::{Extensions, Running};
use gofer_net::{Backoff, Effect, effect};
use gofer_proto as proto;

/// Between an extension's end and its next start. The first is short: most that
/// end have met something that is over by then.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// For how long an extension must run so that its next end counts as its first.
const RECOVERED: Duration = Duration::from_secs(60);

/// Subscriptions of one extension that are being restored at once: as many as
/// keep it busy.
const RESTORES_IN_FLIGHT: usize = 16;

/// Between attempts to restore a subscription whose answer got lost, or whose
/// extension is not available at the moment.
const RESTORE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Attempts to restore it while the extension lives: for longer than one that has
/// been told to stop by somebody else takes to end, and refuses meanwhile.
const RESTORE_ATTEMPTS: u32 = 10;

/// What became of a subscription that was stored.
enum Restored {
    /// In effect, or not meant to be.
    AsItShouldBe,
    /// Marked as refused.
    Refused,
}

impl Extensions {
    /// Watches who runs, or else brings somebody up, and goes on so until what
    /// comes back is dropped.
    pub(super) fn supervise(
        &self,
        charge: Charge,
        running: Option<&Arc<Running>>,
    ) -> AbortOnDropHandle<()> {
        let (this, running) = (Weak::clone(&self.this), running.map(Arc::clone));
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Dismissed, or the core is gone: nothing is left to be done.
            let _ = supervise(this, charge, running).await;
        }))
    }

    /// Starts it; it is seen by others once it answers.
    async fn raise(&self, charge: &Charge) -> Result<Option<Arc<Running>>, Dismissed> {
        let name = &charge.name;
        let progress = self.slots.progress(charge)?;
        let outcome = match self.registration(name) {
            Ok(registration) => self.start(&registration, &progress).await,
            Err(status) => Err(status),
        };
        match outcome {
            Ok(running) => {
                self.slots.rose(charge, &running)?;
                Ok(Some(running))
            }
            Err(status) => {
                tracing::error!(extension = name, %status, "an extension did not come up");
                self.slots.fell(charge, status.message())?;
                Ok(None)
            }
        }
    }

    /// Subscribes what is stored for an extension, side by side. What cannot be
    /// restored is marked and does not stop the others; gives how many were.
    pub(super) async fn restore_subscriptions(&self, name: &str, running: &Arc<Running>) -> usize {
        let in_flight = Arc::new(Semaphore::new(RESTORES_IN_FLIGHT));
        let mut restores = JoinSet::new();
        for subscription in self.store.subscriptions_of_extension(name) {
            let (Some(this), Ok(place)) =
                (self.this.upgrade(), Arc::clone(&in_flight).acquire_owned().await)
            else {
                return 0;
            };
            let running = Arc::clone(running);
            restores.spawn(async move {
                let outcome = this.restore(&running, &subscription).await;
                drop(place);
                outcome
            });
        }
        let mut refused = 0;
        while let Some(outcome) = restores.join_next().await {
            refused += usize::from(matches!(outcome, Ok(Restored::Refused)));
        }
        refused
    }

    /// Subscribes what was stored, where it is still there and neither disabled
    /// nor refused before.
    async fn restore(
        &self,
        running: &Arc<Running>,
        stored: &proto::PipelineExtensionSubscription,
    ) -> Restored {
        use proto::pipeline_extension_subscription::Status as State;
        let _lock = self.store.lock_subscription(stored).await;
        let proto::PipelineExtensionSubscription { namespace, pipeline, name, label, .. } = stored;
        let Ok(current) = self.store.subscription(namespace, pipeline, name, label) else {
            return Restored::AsItShouldBe;
        };
        if current.status() != State::Active {
            return Restored::AsItShouldBe;
        }
        let mut backoff = RESTORE_BACKOFF;
        for attempt in 1.. {
            let Err(refusal) = self.subscribe_to(running, &current).await else { break };
            // What one says that is being stopped or does not answer at all is no
            // refusal: it is restored when somebody is up again.
            if !self.slots.is_answered_by(name, running)
                || running.contact.process.ended().is_some()
            {
                break;
            }
            let may_pass = match effect(&refusal) {
                Effect::Unknown if refusal.code() == Code::DeadlineExceeded => {
                    if !running.contact.is_well().await {
                        break;
                    }
                    false
                }
                Effect::None | Effect::Unavailable | Effect::Unknown => true,
                Effect::Refused => false,
            };
            if !may_pass || attempt == RESTORE_ATTEMPTS {
                let (state, reason) = (State::Error, refusal.message());
                // Gone where its pipeline was deleted meanwhile, and then there
                // is nothing to mark.
                let _ = self
                    .store
                    .set_subscription_status(namespace, pipeline, name, label, state, reason);
                tracing::warn!(
                    extension = %name, pipeline = %format_args!("{namespace}/{pipeline}"), label,
                    code = ?refusal.code(), "an extension refused a subscription that was stored"
                );
                return Restored::Refused;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        Restored::AsItShouldBe
    }
}

async fn supervise(
    extensions: Weak<Extensions>,
    charge: Charge,
    running: Option<Arc<Running>>,
) -> Result<(), Dismissed> {
    let upgrade = || extensions.upgrade().ok_or(Dismissed);
    let mut backoff = BACKOFF;
    // Who was up before has been restored, or is being so.
    let mut to_restore = running.is_none();
    let mut watched = running;
    if watched.is_none() {
        watched = upgrade()?.raise(&charge).await?;
    }
    loop {
        if let Some(running) = watched.take() {
            let since = Instant::now();
            let period = upgrade()?.common.health_check_period;
            let restored = async {
                if to_restore && let Some(extensions) = extensions.upgrade() {
                    extensions.restore_subscriptions(&charge.name, &running).await;
                }
                // Not to hold the core while it is merely watched.
                std::future::pending().await
            };
            // Watched from the first: it may hang over a subscription.
            let problem = tokio::select! {
                problem = running.contact.unwell(period) => problem,
                never = restored => never,
            };
            tracing::warn!(extension = charge.name, %problem, "an extension is started again");
            upgrade()?.slots.fell(&charge, &problem)?;
            running.contact.kill().await;
            if since.elapsed() >= RECOVERED {
                backoff = BACKOFF;
            }
        }
        tokio::time::sleep(backoff.pause()).await;
        watched = upgrade()?.raise(&charge).await?;
        to_restore = true;
    }
}
