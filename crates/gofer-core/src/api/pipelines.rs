//! Pipelines and their configurations.

use tonic::Status;

use super::{Api, complete};
use crate::authorize::Caller;
use crate::store::{Page, Store};
use gofer_proto as proto;
use gofer_proto::pipeline_metadata::PipelineState;

impl Api {
    pub(super) fn get_pipeline(
        &self,
        caller: &Caller,
        request: proto::GetPipelineRequest,
    ) -> Result<proto::GetPipelineResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let pipeline = self.store.pipeline(namespace, &request.id, request.version)?;
        Ok(proto::GetPipelineResponse { pipeline: Some(pipeline) })
    }

    pub(super) fn list_pipelines(
        &self,
        caller: &Caller,
        request: proto::ListPipelinesRequest,
    ) -> Result<proto::ListPipelinesResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let page = Page::new(request.offset, request.limit)?;
        Ok(proto::ListPipelinesResponse { pipelines: self.store.pipelines(namespace, page)? })
    }

    pub(super) fn enable_pipeline(
        &self,
        caller: &Caller,
        request: proto::EnablePipelineRequest,
    ) -> Result<proto::EnablePipelineResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let state = PipelineState::Active;
        self.store.set_pipeline_state(namespace, &request.id, state, caller.by())?;
        Ok(proto::EnablePipelineResponse {})
    }

    pub(super) fn disable_pipeline(
        &self,
        caller: &Caller,
        request: proto::DisablePipelineRequest,
    ) -> Result<proto::DisablePipelineResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let state = PipelineState::Disabled;
        self.store.set_pipeline_state(namespace, &request.id, state, caller.by())?;
        Ok(proto::DisablePipelineResponse {})
    }

    /// Ends the pipeline's runs and subscriptions too.
    pub(super) async fn delete_pipeline(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineRequest,
    ) -> Result<proto::DeletePipelineResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let reason = caller.cancellation();
        let (api, namespace, by) = (self.clone(), namespace.to_owned(), caller.by().clone());
        let end = async move {
            let delete =
                |store: &Store| store.delete_pipeline(&namespace, &request.id, reason, &by);
            let ended = api.store.committed(delete).await?;
            let mut outcome = Ok(());
            for subscription in &ended {
                // All are ended; the first error is reported.
                outcome = outcome.and(api.end_deleted(subscription).await);
            }
            outcome
        };
        complete(end).await?;
        Ok(proto::DeletePipelineResponse {})
    }

    pub(super) fn register_pipeline_config(
        &self,
        caller: &Caller,
        request: proto::RegisterPipelineConfigRequest,
    ) -> Result<proto::RegisterPipelineConfigResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let Some(config) = request.pipeline_config else {
            return Err(Status::invalid_argument("`pipeline_config` is missing"));
        };
        let pipeline = self.store.register_config(namespace, config, caller.by())?;
        Ok(proto::RegisterPipelineConfigResponse { pipeline: Some(pipeline) })
    }

    pub(super) fn list_pipeline_configs(
        &self,
        caller: &Caller,
        request: proto::ListPipelineConfigsRequest,
    ) -> Result<proto::ListPipelineConfigsResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let page = Page::new(request.offset, request.limit)?;
        let configs = self.store.configs(namespace, &request.pipeline_id, page)?;
        Ok(proto::ListPipelineConfigsResponse { configs })
    }

    pub(super) fn get_pipeline_config(
        &self,
        caller: &Caller,
        request: proto::GetPipelineConfigRequest,
    ) -> Result<proto::GetPipelineConfigResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let config = self.store.config(namespace, &request.pipeline_id, request.version)?;
        Ok(proto::GetPipelineConfigResponse { config: Some(config) })
    }

    pub(super) fn delete_pipeline_config(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineConfigRequest,
    ) -> Result<proto::DeletePipelineConfigResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let by = caller.by();
        self.store.delete_config(namespace, &request.pipeline_id, request.version, by)?;
        Ok(proto::DeletePipelineConfigResponse {})
    }
}
