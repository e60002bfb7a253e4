//! Stands in for backups if the feature `store` is off: there is no file to copy.

use gofer_proto::embedded::{BackupHeader, BackupRecords};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

pub(super) enum Source {}

pub(crate) struct Backup {
    pub(crate) header: BackupHeader,
    pub(crate) records: mpsc::Receiver<BackupRecords>,
    pub(crate) outcome: JoinHandle<Result<u64, Status>>,
}

#[expect(clippy::unused_async, reason = "as with the feature")]
impl Source {
    pub(super) async fn begin(&self) -> Result<Backup, Status> {
        match *self {}
    }
}
