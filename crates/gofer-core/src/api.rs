//! The part of Gofer's API that the embedded core implements.
//!
//! `methods!` is the table of all 71 methods. Each has a function of the same name in one of the
//! modules here that takes and returns plain messages: it checks what its [`Caller`] may do, and
//! leaves the rest to the store and the extensions.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "all methods have the same shape, whether they use everything or not"
)]

mod conversations;
mod deployments;
mod embedded;
mod events;
mod extensions;
mod namespaces;
mod objects;
mod pipelines;
mod runs;
mod secrets;
mod subscription_states;
mod subscriptions;
mod task_runs;
mod tokens;

use std::future::Future;
use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use self::conversations::Conversations;
use super::allowed::Allowed;
use super::authorize::{Authenticated, Caller, TokenTable};
use super::conversations::ResponseStream;
use super::extensions::Extensions;
use super::store::Store;
use gofer_net::Throttle;
use gofer_proto as proto;
use gofer_proto::server::gofer_server::Gofer;

#[derive(Clone)]
pub(super) struct Api {
    store: Arc<Store>,
    extensions: Arc<Extensions>,
    tokens: TokenTable,
    allowed: Allowed,
    conversations: Conversations,
    /// Subscriptions that their extensions did not end, as they are logged.
    unended: Arc<Throttle>,
}

impl Api {
    pub(super) fn new(
        store: Arc<Store>,
        extensions: Arc<Extensions>,
        tokens: TokenTable,
        allowed: Allowed,
    ) -> Self {
        let (conversations, unended) = (Conversations::default(), Arc::default());
        Self { store, extensions, tokens, allowed, conversations, unended }
    }

    /// The same for another listener.
    pub(super) fn with_allowed(&self, allowed: Allowed) -> Self {
        Self { allowed, ..self.clone() }
    }

    /// The caller of a request whose message has arrived.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.tokens.caller(Authenticated::of(request)?)
    }
}

/// Completes a change even if its caller disconnects, which drops the future of the call at any
/// point.
pub(super) async fn complete<T: Send + 'static>(
    change: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(change).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::internal("the change was not completed; the core may be stopping")),
    }
}

/// The length of an object or a secret, as responses report it.
fn length(content: &[u8]) -> i64 {
    i64::try_from(content.len()).unwrap_or(i64::MAX)
}

macro_rules! methods {
    (
        open { $($open:ident: $OpenRequest:ident => $OpenResponse:ident;)* }
        immediate { $($now:ident: $NowRequest:ident => $NowResponse:ident;)* }
        awaited { $($later:ident: $LaterRequest:ident => $LaterResponse:ident;)* }
        streaming { $($streaming:tt)* }
    ) => {
        #[tonic::async_trait]
        impl Gofer for Api {
            $(async fn $open(
                &self,
                request: Request<proto::$OpenRequest>,
            ) -> Result<Response<proto::$OpenResponse>, Status> {
                Self::$open(self, request.into_inner()).map(Response::new)
            })*

            $(async fn $now(
                &self,
                request: Request<proto::$NowRequest>,
            ) -> Result<Response<proto::$NowResponse>, Status> {
                let caller = self.caller(&request)?;
                Self::$now(self, &caller, request.into_inner()).map(Response::new)
            })*

            $(async fn $later(
                &self,
                request: Request<proto::$LaterRequest>,
            ) -> Result<Response<proto::$LaterResponse>, Status> {
                let caller = self.caller(&request)?;
                Self::$later(self, &caller, request.into_inner()).await.map(Response::new)
            })*

            $($streaming)*
        }
    };
}

methods! {
    // Require no token.
    open {
        get_system_info: GetSystemInfoRequest => GetSystemInfoResponse;
        bootstrap_token: BootstrapTokenRequest => BootstrapTokenResponse;
    }

    // Answered from the store.
    immediate {
        toggle_event_ingress: ToggleEventIngressRequest => ToggleEventIngressResponse;

        create_token: CreateTokenRequest => CreateTokenResponse;
        list_tokens: ListTokensRequest => ListTokensResponse;
        get_token: GetTokenRequest => GetTokenResponse;
        enable_token: EnableTokenRequest => EnableTokenResponse;
        disable_token: DisableTokenRequest => DisableTokenResponse;
        delete_token: DeleteTokenRequest => DeleteTokenResponse;

        list_namespaces: ListNamespacesRequest => ListNamespacesResponse;
        create_namespace: CreateNamespaceRequest => CreateNamespaceResponse;
        get_namespace: GetNamespaceRequest => GetNamespaceResponse;
        update_namespace: UpdateNamespaceRequest => UpdateNamespaceResponse;
        delete_namespace: DeleteNamespaceRequest => DeleteNamespaceResponse;

        get_pipeline: GetPipelineRequest => GetPipelineResponse;
        list_pipelines: ListPipelinesRequest => ListPipelinesResponse;
        enable_pipeline: EnablePipelineRequest => EnablePipelineResponse;
        disable_pipeline: DisablePipelineRequest => DisablePipelineResponse;
        register_pipeline_config: RegisterPipelineConfigRequest => RegisterPipelineConfigResponse;
        list_pipeline_configs: ListPipelineConfigsRequest => ListPipelineConfigsResponse;
        get_pipeline_config: GetPipelineConfigRequest => GetPipelineConfigResponse;
        delete_pipeline_config: DeletePipelineConfigRequest => DeletePipelineConfigResponse;
        deploy_pipeline: DeployPipelineRequest => DeployPipelineResponse;
        list_deployments: ListDeploymentsRequest => ListDeploymentsResponse;
        get_deployment: GetDeploymentRequest => GetDeploymentResponse;

        get_pipeline_extension_subscription:
            GetPipelineExtensionSubscriptionRequest => GetPipelineExtensionSubscriptionResponse;
        list_pipeline_extension_subscriptions:
            ListPipelineExtensionSubscriptionsRequest => ListPipelineExtensionSubscriptionsResponse;

        get_run: GetRunRequest => GetRunResponse;
        list_runs: ListRunsRequest => ListRunsResponse;
        start_run: StartRunRequest => StartRunResponse;
        retry_run: RetryRunRequest => RetryRunResponse;
        cancel_run: CancelRunRequest => CancelRunResponse;
        cancel_all_runs: CancelAllRunsRequest => CancelAllRunsResponse;
        repair_orphan: RepairOrphanRequest => RepairOrphanResponse;
        get_task_run: GetTaskRunRequest => GetTaskRunResponse;
        list_task_runs: ListTaskRunsRequest => ListTaskRunsResponse;
        cancel_task_run: CancelTaskRunRequest => CancelTaskRunResponse;
        delete_task_run_logs: DeleteTaskRunLogsRequest => DeleteTaskRunLogsResponse;

        list_extensions: ListExtensionsRequest => ListExtensionsResponse;

        get_event: GetEventRequest => GetEventResponse;

        list_pipeline_objects: ListPipelineObjectsRequest => ListPipelineObjectsResponse;
        get_pipeline_object: GetPipelineObjectRequest => GetPipelineObjectResponse;
        put_pipeline_object: PutPipelineObjectRequest => PutPipelineObjectResponse;
        delete_pipeline_object: DeletePipelineObjectRequest => DeletePipelineObjectResponse;
        list_run_objects: ListRunObjectsRequest => ListRunObjectsResponse;
        get_run_object: GetRunObjectRequest => GetRunObjectResponse;
        put_run_object: PutRunObjectRequest => PutRunObjectResponse;
        delete_run_object: DeleteRunObjectRequest => DeleteRunObjectResponse;

        get_pipeline_secret: GetPipelineSecretRequest => GetPipelineSecretResponse;
        list_pipeline_secrets: ListPipelineSecretsRequest => ListPipelineSecretsResponse;
        put_pipeline_secret: PutPipelineSecretRequest => PutPipelineSecretResponse;
        delete_pipeline_secret: DeletePipelineSecretRequest => DeletePipelineSecretResponse;
        get_global_secret: GetGlobalSecretRequest => GetGlobalSecretResponse;
        list_global_secrets: ListGlobalSecretsRequest => ListGlobalSecretsResponse;
        put_global_secret: PutGlobalSecretRequest => PutGlobalSecretResponse;
        delete_global_secret: DeleteGlobalSecretRequest => DeleteGlobalSecretResponse;
    }

    // Wait for an extension.
    awaited {
        delete_pipeline: DeletePipelineRequest => DeletePipelineResponse;

        create_pipeline_extension_subscription:
            CreatePipelineExtensionSubscriptionRequest => CreatePipelineExtensionSubscriptionResponse;
        enable_pipeline_extension_subscription:
            EnablePipelineExtensionSubscriptionRequest => EnablePipelineExtensionSubscriptionResponse;
        disable_pipeline_extension_subscription:
            DisablePipelineExtensionSubscriptionRequest => DisablePipelineExtensionSubscriptionResponse;
        delete_pipeline_extension_subscription:
            DeletePipelineExtensionSubscriptionRequest => DeletePipelineExtensionSubscriptionResponse;

        get_extension: GetExtensionRequest => GetExtensionResponse;
        install_extension: InstallExtensionRequest => InstallExtensionResponse;
        uninstall_extension: UninstallExtensionRequest => UninstallExtensionResponse;
        enable_extension: EnableExtensionRequest => EnableExtensionResponse;
        disable_extension: DisableExtensionRequest => DisableExtensionResponse;
    }

    streaming {
        type ListEventsStream = ResponseStream<proto::ListEventsResponse>;

        async fn list_events(
            &self,
            request: Request<proto::ListEventsRequest>,
        ) -> Result<Response<Self::ListEventsStream>, Status> {
            let (caller, token) = self.tokens.watch(Authenticated::of(&request)?.clone())?;
            Ok(Response::new(Self::list_events(self, caller, token, request.into_inner())))
        }

        type RunExtensionInstallerStream = ResponseStream<proto::RunExtensionInstallerExtensionMessage>;

        async fn run_extension_installer(
            &self,
            request: Request<Streaming<proto::RunExtensionInstallerClientMessage>>,
        ) -> Result<Response<Self::RunExtensionInstallerStream>, Status> {
            let by = Authenticated::of(&request)?.clone();
            let messages = Self::run_extension_installer(self, by, request.into_inner());
            messages.await.map(Response::new)
        }

        type RunPipelineConfiguratorStream =
            ResponseStream<proto::RunPipelineConfiguratorExtensionMessage>;

        async fn run_pipeline_configurator(
            &self,
            request: Request<Streaming<proto::RunPipelineConfiguratorClientMessage>>,
        ) -> Result<Response<Self::RunPipelineConfiguratorStream>, Status> {
            let by = Authenticated::of(&request)?.clone();
            let messages = Self::run_pipeline_configurator(self, by, request.into_inner());
            messages.await.map(Response::new)
        }

        type AttachToTaskRunStream = ResponseStream<proto::AttachToTaskRunOutput>;

        async fn attach_to_task_run(
            &self,
            request: Request<Streaming<proto::AttachToTaskRunRequest>>,
        ) -> Result<Response<Self::AttachToTaskRunStream>, Status> {
            let by = Authenticated::of(&request)?.clone();
            Err(Self::attach_to_task_run(self, by, request.into_inner()).await)
        }

        type GetTaskRunLogsStream = ResponseStream<proto::GetTaskRunLogsResponse>;

        async fn get_task_run_logs(
            &self,
            request: Request<proto::GetTaskRunLogsRequest>,
        ) -> Result<Response<Self::GetTaskRunLogsStream>, Status> {
            let caller = self.caller(&request)?;
            Err(Self::get_task_run_logs(self, &caller, request.into_inner()))
        }
    }
}

#[cfg(test)]
mod tests;
