//! The embedded core's additions to Gofer's API.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Api, complete};
use gofer_net::unix_millis;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use gofer_proto::embedded::{
    ExtensionState, ListExtensionStatesRequest, ListExtensionStatesResponse,
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

    async fn list_extension_states(
        &self,
        request: Request<ListExtensionStatesRequest>,
    ) -> Result<Response<ListExtensionStatesResponse>, Status> {
        // As for ListExtensions: any token.
        self.caller(&request)?;
        let wanted = request.into_inner().name;
        let extensions = self
            .extensions
            .statuses()
            .into_iter()
            .filter(|(name, _)| wanted.is_empty() || *name == wanted)
            .map(|(name, status)| ExtensionState {
                name,
                state: status.state.to_proto().into(),
                reason: status.reason,
                restarts: status.restarts.into(),
                since: unix_millis(status.since),
            })
            .collect();
        Ok(Response::new(ListExtensionStatesResponse { extensions }))
    }
}
