//! Objects of pipelines and of runs.

use tonic::Status;

use super::{Api, length};
use crate::authorize::Caller;
use crate::store::{Owner, object_limit};
use gofer_proto as proto;

/// The owner that a request names.
macro_rules! owner {
    ($caller:expr, $request:expr, $run:expr) => {
        Owner {
            namespace: &$request.namespace_id,
            pipeline: &$request.pipeline_id,
            run: $run,
            by: $caller.by(),
        }
    };
}

impl Api {
    pub(super) fn get_pipeline_object(
        &self,
        caller: &Caller,
        request: proto::GetPipelineObjectRequest,
    ) -> Result<proto::GetPipelineObjectResponse, Status> {
        let content = self.store.object(owner!(caller, request, None), &request.key)?;
        Ok(proto::GetPipelineObjectResponse { content })
    }

    pub(super) fn list_pipeline_objects(
        &self,
        caller: &Caller,
        request: proto::ListPipelineObjectsRequest,
    ) -> Result<proto::ListPipelineObjectsResponse, Status> {
        let keys = self.store.objects(owner!(caller, request, None))?;
        Ok(proto::ListPipelineObjectsResponse { keys })
    }

    pub(super) fn put_pipeline_object(
        &self,
        caller: &Caller,
        request: proto::PutPipelineObjectRequest,
    ) -> Result<proto::PutPipelineObjectResponse, Status> {
        let (owner, bytes) = (owner!(caller, request, None), length(&request.content));
        let evicted = self.store.put_object(owner, request.key, request.content, request.force)?;
        Ok(proto::PutPipelineObjectResponse {
            bytes,
            object_limit: object_limit(),
            object_evicted: evicted.unwrap_or_default(),
        })
    }

    pub(super) fn delete_pipeline_object(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineObjectRequest,
    ) -> Result<proto::DeletePipelineObjectResponse, Status> {
        self.store.delete_object(owner!(caller, request, None), &request.key)?;
        Ok(proto::DeletePipelineObjectResponse {})
    }

    pub(super) fn get_run_object(
        &self,
        caller: &Caller,
        request: proto::GetRunObjectRequest,
    ) -> Result<proto::GetRunObjectResponse, Status> {
        let owner = owner!(caller, request, Some(request.run_id));
        Ok(proto::GetRunObjectResponse { content: self.store.object(owner, &request.key)? })
    }

    pub(super) fn list_run_objects(
        &self,
        caller: &Caller,
        request: proto::ListRunObjectsRequest,
    ) -> Result<proto::ListRunObjectsResponse, Status> {
        let keys = self.store.objects(owner!(caller, request, Some(request.run_id)))?;
        Ok(proto::ListRunObjectsResponse { keys })
    }

    pub(super) fn put_run_object(
        &self,
        caller: &Caller,
        request: proto::PutRunObjectRequest,
    ) -> Result<proto::PutRunObjectResponse, Status> {
        let owner = owner!(caller, request, Some(request.run_id));
        let bytes = length(&request.content);
        self.store.put_object(owner, request.key, request.content, request.force)?;
        Ok(proto::PutRunObjectResponse { bytes })
    }

    pub(super) fn delete_run_object(
        &self,
        caller: &Caller,
        request: proto::DeleteRunObjectRequest,
    ) -> Result<proto::DeleteRunObjectResponse, Status> {
        let owner = owner!(caller, request, Some(request.run_id));
        self.store.delete_object(owner, &request.key)?;
        Ok(proto::DeleteRunObjectResponse {})
    }
}
