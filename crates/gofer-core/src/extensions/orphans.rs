//! What earlier cores that were killed have left: ended when a core starts, and forgotten only once it
//! is gone.

use std::sync::Arc;

use super::Extensions;
use crate::launcher::{Left, RETRY_ORPHANS, Recorded, end_orphans};

impl Extensions {
    /// Ends the orphans of earlier cores. Processes have ended when this returns, unless that takes
    /// long; containers are removed in the background, since the engine may be slow, or there may be
    /// none. What cannot be ended is tried again, and left to the next core when this one stops.
    pub(crate) async fn end_orphans(&self) {
        let (containers, others): (Vec<_>, Vec<_>) =
            self.store.launches().into_iter().partition(|it| it.is_container == Some(true));
        let ended = self.end_orphaned_processes(others).await;
        let containers: Vec<_> =
            containers.into_iter().chain(ended.unknown).map(|it| it.digest).collect();
        if containers.is_empty() && ended.killed.is_empty() {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        self.processes.spawn(async move {
            let store = Arc::clone(&this.store);
            let removal =
                this.containers.remove_orphans(containers, |digest| store.end_launch(digest));
            let stopping = this.stopping.clone();
            let retries = stopping.run_until_cancelled(this.retry(ended.killed));
            tokio::join!(removal, retries);
        });
    }

    /// Those whose processes have not ended.
    async fn retry(&self, mut killed: Vec<Recorded>) {
        let mut backoff = RETRY_ORPHANS;
        while !killed.is_empty() {
            tokio::time::sleep(backoff.pause()).await;
            killed = self.end_orphaned_processes(killed).await.killed;
        }
    }

    /// Forgets those that are gone.
    async fn end_orphaned_processes(&self, launches: Vec<Recorded>) -> Ended {
        let mut ended = Ended::default();
        for (launch, left) in end_orphans(launches).await {
            match (left, launch.is_container) {
                // Perhaps this store is a copy of another core's. The next start looks again.
                (Left::Owned, _) => {}
                (Left::Killed, _) => ended.killed.push(launch),
                (Left::Nothing, Some(_)) => self.store.end_launch(&launch.digest),
                (Left::Nothing, None) => ended.unknown.push(launch),
            }
        }
        ended
    }
}

/// What is left of launches.
#[derive(Default)]
struct Ended {
    /// Their processes have not ended yet.
    killed: Vec<Recorded>,
    /// They have no process, and may have a container.
    unknown: Vec<Recorded>,
}
