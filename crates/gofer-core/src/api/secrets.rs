//! Secrets of pipelines, and global ones, which require a management token. An extension must have
//! been granted either.

use tonic::Status;

use super::{Api, length};
use crate::authorize::Caller;
use crate::grants::Grant;
use crate::store::Holder;
use gofer_proto as proto;

/// The pipeline that a request names, if the caller may have access to its secrets.
macro_rules! holder {
    ($caller:expr, $request:expr, $grant:expr) => {{
        let (namespace, by) = $caller.authorize_secrets(&$request.namespace_id, $grant)?;
        Holder::Pipeline { namespace, pipeline: &$request.pipeline_id, by }
    }};
}

impl Api {
    pub(super) fn get_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::GetPipelineSecretRequest,
    ) -> Result<proto::GetPipelineSecretResponse, Status> {
        let (metadata, secret) =
            self.store.secret(holder!(caller, request, Grant::ReadSecrets), &request.key)?;
        let secret = if request.include_secret { secret } else { String::new() };
        Ok(proto::GetPipelineSecretResponse { metadata: Some(metadata), secret })
    }

    pub(super) fn list_pipeline_secrets(
        &self,
        caller: &Caller,
        request: proto::ListPipelineSecretsRequest,
    ) -> Result<proto::ListPipelineSecretsResponse, Status> {
        let keys = self.store.secrets(holder!(caller, request, Grant::ReadSecrets))?;
        Ok(proto::ListPipelineSecretsResponse { keys })
    }

    pub(super) fn put_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::PutPipelineSecretRequest,
    ) -> Result<proto::PutPipelineSecretResponse, Status> {
        let (holder, bytes) =
            (holder!(caller, request, Grant::WriteSecrets), length(request.content.as_bytes()));
        let proto::PutPipelineSecretRequest { key, content, force, .. } = request.clone();
        self.store.put_secret(holder, key, content, Vec::new(), force)?;
        Ok(proto::PutPipelineSecretResponse { bytes })
    }

    pub(super) fn delete_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineSecretRequest,
    ) -> Result<proto::DeletePipelineSecretResponse, Status> {
        self.store.delete_secret(holder!(caller, request, Grant::WriteSecrets), &request.key)?;
        Ok(proto::DeletePipelineSecretResponse {})
    }

    pub(super) fn get_global_secret(
        &self,
        caller: &Caller,
        request: proto::GetGlobalSecretRequest,
    ) -> Result<proto::GetGlobalSecretResponse, Status> {
        caller.require_global_secrets()?;
        let (metadata, secret) = self.store.secret(Holder::Global, &request.key)?;
        let secret = if request.include_secret { secret } else { String::new() };
        Ok(proto::GetGlobalSecretResponse { metadata: Some(metadata), secret })
    }

    pub(super) fn list_global_secrets(
        &self,
        caller: &Caller,
        _: proto::ListGlobalSecretsRequest,
    ) -> Result<proto::ListGlobalSecretsResponse, Status> {
        caller.require_global_secrets()?;
        Ok(proto::ListGlobalSecretsResponse { keys: self.store.secrets(Holder::Global)? })
    }

    pub(super) fn put_global_secret(
        &self,
        caller: &Caller,
        request: proto::PutGlobalSecretRequest,
    ) -> Result<proto::PutGlobalSecretResponse, Status> {
        caller.require_manager()?;
        let proto::PutGlobalSecretRequest { key, content, namespaces, force } = request;
        let bytes = length(content.as_bytes());
        self.store.put_secret(Holder::Global, key, content, namespaces, force)?;
        Ok(proto::PutGlobalSecretResponse { bytes })
    }

    pub(super) fn delete_global_secret(
        &self,
        caller: &Caller,
        request: proto::DeleteGlobalSecretRequest,
    ) -> Result<proto::DeleteGlobalSecretResponse, Status> {
        caller.require_manager()?;
        self.store.delete_secret(Holder::Global, &request.key)?;
        Ok(proto::DeleteGlobalSecretResponse {})
    }
}
