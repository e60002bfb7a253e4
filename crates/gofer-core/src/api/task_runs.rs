//! Task runs. A core executes no tasks, so there are none, and no run is ever an orphan: one that is
//! being executed when the core ends has failed when it starts again.

use std::time::Duration;

use tonic::{Status, Streaming};

use super::Api;
use crate::authorize::{Authenticated, Caller};
use crate::store::Needs;
use gofer_proto as proto;
use gofer_proto::attach_to_task_run_request::RequestType;

/// How long the first message of a stream may take.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

impl Api {
    pub(super) fn repair_orphan(
        &self,
        caller: &Caller,
        request: proto::RepairOrphanRequest,
    ) -> Result<proto::RepairOrphanResponse, Status> {
        self.run_to_change(caller, &request.namespace_id, &request.pipeline_id, request.run_id)?;
        Ok(proto::RepairOrphanResponse {})
    }

    pub(super) fn list_task_runs(
        &self,
        caller: &Caller,
        request: proto::ListTaskRunsRequest,
    ) -> Result<proto::ListTaskRunsResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        self.store.run(namespace, &request.pipeline_id, request.run_id)?;
        Ok(proto::ListTaskRunsResponse { task_runs: Vec::new() })
    }

    pub(super) fn get_task_run(
        &self,
        caller: &Caller,
        request: proto::GetTaskRunRequest,
    ) -> Result<proto::GetTaskRunResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        self.store.run(namespace, &request.pipeline_id, request.run_id)?;
        Err(no_task_run(request.run_id, &request.id))
    }

    pub(super) fn cancel_task_run(
        &self,
        caller: &Caller,
        request: proto::CancelTaskRunRequest,
    ) -> Result<proto::CancelTaskRunResponse, Status> {
        self.run_to_change(caller, &request.namespace_id, &request.pipeline_id, request.run_id)?;
        Err(no_task_run(request.run_id, &request.id))
    }

    pub(super) fn delete_task_run_logs(
        &self,
        caller: &Caller,
        request: proto::DeleteTaskRunLogsRequest,
    ) -> Result<proto::DeleteTaskRunLogsResponse, Status> {
        self.run_to_change(caller, &request.namespace_id, &request.pipeline_id, request.run_id)?;
        Err(no_task_run(request.run_id, &request.id))
    }

    /// Returns why there are none.
    pub(super) fn get_task_run_logs(
        &self,
        caller: &Caller,
        request: proto::GetTaskRunLogsRequest,
    ) -> Status {
        let proto::GetTaskRunLogsRequest { namespace_id, pipeline_id, run_id, id } = request;
        let request = proto::GetTaskRunRequest { namespace_id, pipeline_id, run_id, id };
        match self.get_task_run(caller, request) {
            Err(status) => status,
            Ok(_) => Status::not_found("there are no logs"),
        }
    }

    /// Returns why there is nothing to attach to.
    pub(super) async fn attach_to_task_run(
        &self,
        by: Authenticated,
        mut messages: Streaming<proto::AttachToTaskRunRequest>,
    ) -> Status {
        let first = match tokio::time::timeout(FIRST_MESSAGE, messages.message()).await {
            Ok(Ok(first)) => first,
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("the first message did not arrive in time"),
        };
        let Some(RequestType::Init(init)) = first.and_then(|first| first.request_type) else {
            return Status::invalid_argument("the first message must be `init`");
        };
        // It may have been revoked while the message was on its way.
        let caller = match self.tokens.caller(&by) {
            Ok(caller) => caller,
            Err(status) => return status,
        };
        let (namespace, pipeline) = (&init.namespace_id, &init.pipeline_id);
        match self.run_to_change(&caller, namespace, pipeline, init.run_id) {
            Err(status) => status,
            Ok(()) => no_task_run(init.run_id, &init.id),
        }
    }

    /// Checks that a run exists and that the caller may change it.
    fn run_to_change(
        &self,
        caller: &Caller,
        namespace: &str,
        pipeline: &str,
        run: i64,
    ) -> Result<(), Status> {
        self.store.authorize(caller.by(), Needs::Pipeline(namespace, pipeline))?;
        self.store.run(namespace, pipeline, run).map(drop)
    }
}

fn no_task_run(run: i64, id: &str) -> Status {
    Status::not_found(format!(
        "run {run} has no task run `{id}`: an embedded core stores tasks and does not execute them"
    ))
}
