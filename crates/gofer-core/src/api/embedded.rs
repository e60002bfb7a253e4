//! The embedded core's additions to Gofer's API.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Api, complete};
use crate::store::Options;
use gofer_net::unix_millis;
use gofer_proto as proto;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use gofer_proto::embedded::{
    ExtensionState, GetCapabilitiesRequest, GetCapabilitiesResponse, InstallExtensionRequest,
    InstallExtensionResponse, ListExtensionStatesRequest, ListExtensionStatesResponse,
    UpdateExtensionRequest, UpdateExtensionResponse,
};

#[tonic::async_trait]
impl EmbeddedCore for Api {
    async fn update_extension(
        &self,
        request: Request<UpdateExtensionRequest>,
    ) -> Result<Response<UpdateExtensionResponse>, Status> {
        self.caller(&request)?.require_manager()?;
        self.allowed.check_image(&request.get_ref().image)?;
        let extensions = Arc::clone(&self.extensions);
        let update = async move { extensions.update(request.into_inner()).await };
        let refused = complete(update).await?;
        let refused = i64::try_from(refused).unwrap_or(i64::MAX);
        Ok(Response::new(UpdateExtensionResponse { refused }))
    }

    async fn install_extension(
        &self,
        request: Request<InstallExtensionRequest>,
    ) -> Result<Response<InstallExtensionResponse>, Status> {
        self.caller(&request)?.require_manager()?;
        let InstallExtensionRequest { name, image, user, pass, variables, options } =
            request.into_inner();
        let options = Options::new(options.unwrap_or_default())?;
        let request = proto::InstallExtensionRequest { name, image, user, pass, variables };
        self.install(request, options).await?;
        Ok(Response::new(InstallExtensionResponse {}))
    }

    async fn get_capabilities(
        &self,
        request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(GetCapabilitiesResponse { run_keys_enforced: true }))
    }

    async fn list_extension_states(
        &self,
        request: Request<ListExtensionStatesRequest>,
    ) -> Result<Response<ListExtensionStatesResponse>, Status> {
        let caller = self.caller(&request)?;
        let is_manager = caller.is_manager();
        let wanted = request.into_inner().name;
        let extensions = self
            .extensions
            .statuses()
            .into_iter()
            .filter(|(name, _)| wanted.is_empty() || *name == wanted)
            .filter(|(name, _)| caller.sees_extension(name))
            .map(|(name, status)| ExtensionState {
                options: caller.sees_options(&name).then(|| self.extensions.options(&name)),
                name,
                state: status.state.to_proto().into(),
                // May be the last lines of the extension's log.
                reason: if is_manager { status.reason } else { status.state.outline().to_owned() },
                restarts: status.restarts.into(),
                since: unix_millis(status.since),
            })
            .collect();
        Ok(Response::new(ListExtensionStatesResponse { extensions }))
    }
}
