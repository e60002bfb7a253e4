//! How much each pipeline and namespace keeps, and how much they may.

use tonic::Status;

/// Complete runs kept of one pipeline. Per pipeline, so that one that runs every second does not
/// evict the daily run from which another takes its schedule.
pub(super) const RUNS_PER_PIPELINE: usize = 10_000;

/// Bytes of the complete runs of one pipeline that are kept, most of which are variables.
pub(super) const RUN_BYTES_PER_PIPELINE: u64 = 64 << 20;

/// Bytes of all complete runs of a namespace that are kept.
pub(super) const RUN_BYTES_PER_NAMESPACE: u64 = 1 << 30;

/// Bytes of everything else in a namespace: configurations, objects, secrets and subscriptions.
pub(super) const CONTENT_PER_NAMESPACE: u64 = 1 << 30;

/// Earlier configurations kept of one pipeline.
pub(super) const EARLIER_CONFIGS: u64 = 100;

/// What a record costs beside its content.
pub(super) const RECORD: u64 = 64;

/// What a pipeline keeps in the history, stored since it is not counted when a store is opened.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Usage {
    /// The number of its newest run.
    #[prost(int64, tag = "1")]
    pub(super) last_run: i64,
    /// Its complete runs.
    #[prost(uint64, tag = "2")]
    pub(super) runs: u64,
    #[prost(uint64, tag = "3")]
    pub(super) run_bytes: u64,
    /// Configurations that are not live.
    #[prost(uint64, tag = "4")]
    pub(super) earlier_configs: u64,
    /// Of these, and of objects.
    #[prost(uint64, tag = "5")]
    pub(super) content_bytes: u64,
}

/// What all pipelines of a namespace keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NamespaceUsage {
    pub(super) run_bytes: u64,
    pub(super) content_bytes: u64,
}

impl NamespaceUsage {
    #[cfg(feature = "store")]
    pub(super) fn add(&mut self, pipeline: &Usage) {
        self.run_bytes += pipeline.run_bytes;
        self.content_bytes += pipeline.content_bytes;
    }

    pub(super) fn remove(&mut self, pipeline: &Usage) {
        self.run_bytes = self.run_bytes.saturating_sub(pipeline.run_bytes);
        self.content_bytes = self.content_bytes.saturating_sub(pipeline.content_bytes);
    }

    /// Whether there is room for content that replaces other content.
    pub(super) fn check_content(
        &self,
        namespace: &str,
        replaced: u64,
        bytes: u64,
    ) -> Result<(), Status> {
        let after = self.content_bytes.saturating_sub(replaced).saturating_add(bytes);
        if bytes <= replaced || after <= CONTENT_PER_NAMESPACE {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "the namespace `{namespace}` has no room for {bytes} bytes more: its configurations, \
             objects, secrets and subscriptions have {} of at most {CONTENT_PER_NAMESPACE} bytes; \
             delete some",
            self.content_bytes
        )))
    }

    pub(super) fn replace_content(&mut self, pipeline: &mut Usage, replaced: u64, bytes: u64) {
        for total in [&mut self.content_bytes, &mut pipeline.content_bytes] {
            *total = total.saturating_sub(replaced).saturating_add(bytes);
        }
    }

    /// As [`replace_content`](Self::replace_content), of what is no history.
    pub(super) fn replace_live(&mut self, replaced: u64, bytes: u64) {
        self.content_bytes = self.content_bytes.saturating_sub(replaced).saturating_add(bytes);
    }

    pub(super) fn add_run(&mut self, pipeline: &mut Usage, bytes: u64) {
        pipeline.runs += 1;
        pipeline.run_bytes += bytes;
        self.run_bytes += bytes;
    }

    pub(super) fn remove_run(&mut self, pipeline: &mut Usage, bytes: u64) {
        pipeline.runs = pipeline.runs.saturating_sub(1);
        pipeline.run_bytes = pipeline.run_bytes.saturating_sub(bytes);
        self.run_bytes = self.run_bytes.saturating_sub(bytes);
    }
}

/// The bytes of content of this length.
pub(super) fn size(content: usize) -> u64 {
    RECORD + content as u64
}
