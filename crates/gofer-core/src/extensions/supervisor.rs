//! Keeps an extension up: restarts it when it ends or becomes unhealthy.
//!
//! Each extension has its own supervisor, so one that never comes up does not delay the others.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::slots::{Lease, Superseded};
use super::{Extensions, Running};
use gofer_net::Backoff;

/// Between an extension's end and its next launch. The first pause is short: most failures are
/// transient.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// After an extension has run this long, the backoff starts over.
const RECOVERED: Duration = Duration::from_secs(60);

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
