//! The embedded core's additions to Gofer's API.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Api, ResponseStream, complete};
use crate::authorize::{Authenticated, Caller, TokenWatch};
use crate::store::{Backup, Options};
use gofer_net::unix_millis;
use gofer_proto as proto;
use gofer_proto::embedded::backup_response::Part;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use gofer_proto::embedded::{
    BackupEnd, BackupHeader, BackupRequest, BackupResponse, ExtensionState, FollowEventsRequest,
    FollowEventsResponse, GetCapabilitiesRequest, GetCapabilitiesResponse, InstallExtensionRequest,
    InstallExtensionResponse, ListExtensionStatesRequest, ListExtensionStatesResponse,
    ListSubscriptionStatesRequest, ListSubscriptionStatesResponse, UpdateExtensionRequest,
    UpdateExtensionResponse,
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

    async fn list_subscription_states(
        &self,
        request: Request<ListSubscriptionStatesRequest>,
    ) -> Result<Response<ListSubscriptionStatesResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        Self::list_subscription_states(self, &caller, request).await.map(Response::new)
    }

    type BackupStream = ResponseStream<BackupResponse>;

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let (caller, token) = self.tokens.watch(Authenticated::of(&request)?.clone())?;
        caller.require_manager()?;
        let mut backup = self.store.back_up().await?;
        let header = Some(std::mem::take(&mut backup.header));
        Ok(Response::new(Box::pin(BackupParts { backup, header, token, over: false })))
    }

    type FollowEventsStream = ResponseStream<FollowEventsResponse>;

    async fn follow_events(
        &self,
        request: Request<FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let (caller, token) = self.tokens.watch(Authenticated::of(&request)?.clone())?;
        Ok(Response::new(Self::follow_events(self, caller, token, request.into_inner())))
    }
}

/// The messages of a backup.
struct BackupParts {
    backup: Backup,
    /// Until it is sent.
    header: Option<BackupHeader>,
    token: TokenWatch,
    over: bool,
}

impl BackupParts {
    /// The end comes only after all records.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Part, Status>> {
        let records = match self.header.take() {
            Some(header) => return Poll::Ready(Ok(Part::Header(header))),
            None => ready!(self.backup.records.poll_recv(context)),
        };
        if let Some(records) = records {
            return Poll::Ready(Ok(Part::Records(records)));
        }
        let outcome = ready!(Pin::new(&mut self.backup.outcome).poll(context));
        self.over = true;
        let stopped =
            |_| Status::internal("the backup was not completed; the core may be stopping");
        let end = outcome.map_err(stopped).flatten().map(|records| BackupEnd { records });
        Poll::Ready(end.map(Part::End))
    }
}

impl Stream for BackupParts {
    type Item = Result<BackupResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let part = ready!(self.poll_part(context));
        // It may have lost its access meanwhile.
        let part = self.token.require(Caller::require_manager).and(part);
        self.over |= part.is_err();
        Poll::Ready(Some(part.map(|part| BackupResponse { part: Some(part) })))
    }
}
