//! Which keys child processes were started with, so that what a killed core
//! left behind can be told from everything else.

use tonic::Status;

use super::{Store, Tables};

impl Store {
    /// Remembers that a process is about to be started with a key of this
    /// digest. It is on disk by then, so that no process is ever forgotten.
    pub(crate) async fn begin_start(&self, digest: &[u8; 32]) -> Result<(), Status> {
        {
            let mut tables = self.tables();
            tables.starts.insert(*digest);
            tables.journal.put_start(digest);
        }
        self.durable().await
    }

    /// The process has ended.
    pub(crate) fn end_start(&self, digest: &[u8; 32]) {
        let mut tables = self.tables();
        let Tables { starts, journal, .. } = &mut *tables;
        if starts.remove(digest) {
            journal.remove_start(digest);
        }
    }

    /// Of those that have not ended, as far as is known.
    pub(crate) fn starts(&self) -> Vec<[u8; 32]> {
        self.tables().starts.iter().copied().collect()
    }
}
