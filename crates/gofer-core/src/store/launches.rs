//! The keys that child processes were launched with, so that the orphans of a core that was killed
//! can be recognized.

use tonic::Status;

use super::{Store, Tables};

impl Store {
    /// Records that a process is about to be launched with a key of this digest. Returns once that
    /// is on disk, so that no process is ever forgotten.
    pub(crate) async fn begin_launch(&self, digest: &[u8; 32]) -> Result<(), Status> {
        {
            let mut tables = self.change()?;
            tables.launches.insert(*digest);
            tables.journal.put_launch(digest);
        }
        self.durable().await
    }

    /// Records that the process has ended. If that cannot be stored, the next core finds out.
    pub(crate) fn end_launch(&self, digest: &[u8; 32]) {
        let Ok(mut tables) = self.change() else { return };
        let Tables { launches, journal, .. } = &mut *tables;
        if launches.remove(digest) {
            journal.remove_launch(digest);
        }
    }

    /// The launches whose processes are not known to have ended.
    pub(crate) fn launches(&self) -> Vec<[u8; 32]> {
        self.tables().launches.iter().copied().collect()
    }
}
