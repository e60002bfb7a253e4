//! Runs.

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use crate::store::Page;
use gofer_proto as proto;

impl Api {
    pub(super) fn get_run(
        &self,
        caller: &Caller,
        request: proto::GetRunRequest,
    ) -> Result<proto::GetRunResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let run = self.store.run(namespace, &request.pipeline_id, request.id)?;
        Ok(proto::GetRunResponse { run: Some(run) })
    }

    pub(super) fn list_runs(
        &self,
        caller: &Caller,
        request: proto::ListRunsRequest,
    ) -> Result<proto::ListRunsResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let page = Page::new(request.offset, request.limit)?;
        let runs = self.store.list_runs(namespace, &request.pipeline_id, page)?;
        Ok(proto::ListRunsResponse { runs })
    }

    pub(super) fn start_run(
        &self,
        caller: &Caller,
        request: proto::StartRunRequest,
    ) -> Result<proto::StartRunResponse, Status> {
        Ok(proto::StartRunResponse { run: Some(self.store.start_run(request, caller.by())?) })
    }

    pub(super) fn retry_run(
        &self,
        caller: &Caller,
        request: proto::RetryRunRequest,
    ) -> Result<proto::RetryRunResponse, Status> {
        Ok(proto::RetryRunResponse { run: Some(self.store.retry_run(request, caller.by())?) })
    }

    /// Immediate with or without `force`: the execution gets no grace period.
    pub(super) fn cancel_run(
        &self,
        caller: &Caller,
        request: proto::CancelRunRequest,
    ) -> Result<proto::CancelRunResponse, Status> {
        let proto::CancelRunRequest { namespace_id, pipeline_id, run_id, .. } = request;
        let (reason, by) = (caller.cancellation(), caller.by());
        self.store.cancel_run(&namespace_id, &pipeline_id, run_id, reason, by)?;
        Ok(proto::CancelRunResponse {})
    }

    pub(super) fn cancel_all_runs(
        &self,
        caller: &Caller,
        request: proto::CancelAllRunsRequest,
    ) -> Result<proto::CancelAllRunsResponse, Status> {
        let proto::CancelAllRunsRequest { namespace_id, pipeline_id, .. } = request;
        let (reason, by) = (caller.cancellation(), caller.by());
        let runs = self.store.cancel_runs(&namespace_id, &pipeline_id, reason, by)?;
        Ok(proto::CancelAllRunsResponse { runs })
    }
}
