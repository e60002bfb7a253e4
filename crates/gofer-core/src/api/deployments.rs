//! Deployments, as far as there are any: a configuration is live as soon as it is registered. That is
//! shown as one deployment of each version that is kept, with the version as its number.

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use crate::store::Page;
use gofer_proto as proto;
use gofer_proto::PipelineConfig;
use gofer_proto::deployment::{DeploymentState, DeploymentStatus};
use gofer_proto::pipeline_config::PipelineConfigState;

impl Api {
    /// The version that is live has been deployed already; no other can be.
    pub(super) fn deploy_pipeline(
        &self,
        caller: &Caller,
        request: proto::DeployPipelineRequest,
    ) -> Result<proto::DeployPipelineResponse, Status> {
        let namespace = caller.authorize_namespace(&request.namespace_id)?;
        let config = self.store.config(namespace, &request.id, request.version)?;
        if config.state() != PipelineConfigState::Live {
            return Err(Status::failed_precondition(format!(
                "version {} of the pipeline `{namespace}/{}` has been replaced; in an embedded core \
                 the newest version is live as soon as it is registered, so register this one again",
                config.version, request.id
            )));
        }
        Ok(proto::DeployPipelineResponse { deployment_id: config.version })
    }

    /// Newest first.
    pub(super) fn list_deployments(
        &self,
        caller: &Caller,
        request: proto::ListDeploymentsRequest,
    ) -> Result<proto::ListDeploymentsResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let page = Page::new(request.offset, request.limit)?;
        let configs = self.store.configs(namespace, &request.pipeline_id, page)?;
        Ok(proto::ListDeploymentsResponse { deployments: configs.iter().map(deployment).collect() })
    }

    pub(super) fn get_deployment(
        &self,
        caller: &Caller,
        request: proto::GetDeploymentRequest,
    ) -> Result<proto::GetDeploymentResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        if request.id <= 0 {
            return Err(Status::not_found(format!(
                "the pipeline `{namespace}/{}` has no deployment {}",
                request.pipeline_id, request.id
            )));
        }
        let config = self.store.config(namespace, &request.pipeline_id, request.id)?;
        Ok(proto::GetDeploymentResponse { deployment: Some(deployment(&config)) })
    }
}

fn deployment(config: &PipelineConfig) -> proto::Deployment {
    proto::Deployment {
        namespace: config.namespace.clone(),
        pipeline: config.pipeline.clone(),
        id: config.version,
        start_version: config.version - 1,
        end_version: config.version,
        started: config.registered,
        ended: config.registered,
        state: DeploymentState::Complete.into(),
        status: DeploymentStatus::Successful.into(),
        status_reason: None,
        logs: Vec::new(),
    }
}
