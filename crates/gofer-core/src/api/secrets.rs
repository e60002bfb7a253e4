//! Secrets of pipelines, and global ones, which require a management token. An extension must have
//! been granted either.

use tonic::Status;

use super::{Api, length};
use crate::authorize::Caller;
use crate::store::Holder;
use gofer_proto as proto;

/// The pipeline that a request names.
macro_rules! pipeline {
    ($caller:expr, $request:expr) => {
        Holder::Pipeline {
            namespace: &$request.namespace_id,
            pipeline: &$request.pipeline_id,
            by: $caller.by(),
        }
    };
}

impl Api {
    pub(super) fn get_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::GetPipelineSecretRequest,
    ) -> Result<proto::GetPipelineSecretResponse, Status> {
        let (metadata, secret) = self.store.secret(pipeline!(caller, request), &request.key)?;
        let secret = if request.include_secret { secret } else { String::new() };
        Ok(proto::GetPipelineSecretResponse { metadata: Some(metadata), secret })
    }

    pub(super) fn list_pipeline_secrets(
        &self,
        caller: &Caller,
        request: proto::ListPipelineSecretsRequest,
    ) -> Result<proto::ListPipelineSecretsResponse, Status> {
        let keys = self.store.secrets(pipeline!(caller, request))?;
        Ok(proto::ListPipelineSecretsResponse { keys })
    }

    pub(super) fn put_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::PutPipelineSecretRequest,
    ) -> Result<proto::PutPipelineSecretResponse, Status> {
        let (holder, bytes) = (pipeline!(caller, request), length(request.content.as_bytes()));
        let proto::PutPipelineSecretRequest { key, content, force, .. } = request.clone();
        self.store.put_secret(holder, key, content, Vec::new(), force)?;
        Ok(proto::PutPipelineSecretResponse { bytes })
    }

    pub(super) fn delete_pipeline_secret(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineSecretRequest,
    ) -> Result<proto::DeletePipelineSecretResponse, Status> {
        self.store.delete_secret(pipeline!(caller, request), &request.key)?;
        Ok(proto::DeletePipelineSecretResponse {})
    }

    pub(super) fn get_global_secret(
        &self,
        caller: &Caller,
        request: proto::GetGlobalSecretRequest,
    ) -> Result<proto::GetGlobalSecretResponse, Status> {
        let (metadata, secret) =
            self.store.secret(Holder::Global { by: caller.by() }, &request.key)?;
        let secret = if request.include_secret { secret } else { String::new() };
        Ok(proto::GetGlobalSecretResponse { metadata: Some(metadata), secret })
    }

    pub(super) fn list_global_secrets(
        &self,
        caller: &Caller,
        _: proto::ListGlobalSecretsRequest,
    ) -> Result<proto::ListGlobalSecretsResponse, Status> {
        Ok(proto::ListGlobalSecretsResponse {
            keys: self.store.secrets(Holder::Global { by: caller.by() })?,
        })
    }

    pub(super) fn put_global_secret(
        &self,
        caller: &Caller,
        request: proto::PutGlobalSecretRequest,
    ) -> Result<proto::PutGlobalSecretResponse, Status> {
        let proto::PutGlobalSecretRequest { key, content, namespaces, force } = request;
        let bytes = length(content.as_bytes());
        self.store.put_secret(
            Holder::Global { by: caller.by() },
            key,
            content,
            namespaces,
            force,
        )?;
        Ok(proto::PutGlobalSecretResponse { bytes })
    }

    pub(super) fn delete_global_secret(
        &self,
        caller: &Caller,
        request: proto::DeleteGlobalSecretRequest,
    ) -> Result<proto::DeleteGlobalSecretResponse, Status> {
        self.store.delete_secret(Holder::Global { by: caller.by() }, &request.key)?;
        Ok(proto::DeleteGlobalSecretResponse {})
    }
}
