//! The keys that processes and containers were launched with, so that the orphans of a core that was
//! killed can be recognized.

use tonic::Status;

use super::{Store, Tables};
use crate::launcher::Recorded;

impl Store {
    /// Records that something is about to be launched. Returns once that is on disk, so that nothing
    /// is ever forgotten.
    pub(crate) async fn begin_launch(&self, launch: Recorded) -> Result<(), Status> {
        self.committed(|store| {
            let mut tables = store.change()?;
            tables.journal.put_launch(&launch);
            tables.launches.insert(launch.digest, launch);
            Ok(())
        })
        .await
    }

    /// Records that nothing is left of a launch. If that cannot be stored, the next core finds out.
    pub(crate) fn end_launch(&self, digest: &[u8; 32]) {
        let Ok(mut tables) = self.change() else { return };
        let Tables { launches, journal, .. } = &mut *tables;
        if launches.remove(digest).is_some() {
            journal.remove_launch(digest);
        }
    }

    /// The launches of which something may be left.
    pub(crate) fn launches(&self) -> Vec<Recorded> {
        self.tables().launches.values().cloned().collect()
    }
}
