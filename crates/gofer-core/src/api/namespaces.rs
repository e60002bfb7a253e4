//! Namespaces. A client token has access to those that its patterns match, an extension sees those
//! of its subscriptions, and neither sees others.

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use crate::store::Page;
use gofer_proto as proto;

impl Api {
    pub(super) fn list_namespaces(
        &self,
        caller: &Caller,
        request: proto::ListNamespacesRequest,
    ) -> Result<proto::ListNamespacesResponse, Status> {
        let page = Page::new(request.offset, request.limit)?;
        let readable = caller.readable();
        let seen = |it: &proto::Namespace| readable(&it.id);
        Ok(proto::ListNamespacesResponse { namespaces: self.store.namespaces(page, seen) })
    }

    pub(super) fn create_namespace(
        &self,
        caller: &Caller,
        request: proto::CreateNamespaceRequest,
    ) -> Result<proto::CreateNamespaceResponse, Status> {
        caller.authorize_namespace(&request.id)?;
        let namespace = self.store.create_namespace(request, caller.by())?;
        Ok(proto::CreateNamespaceResponse { namespace: Some(namespace) })
    }

    pub(super) fn get_namespace(
        &self,
        caller: &Caller,
        request: proto::GetNamespaceRequest,
    ) -> Result<proto::GetNamespaceResponse, Status> {
        let namespace = self.store.namespace(caller.authorize_reading(&request.id)?)?;
        Ok(proto::GetNamespaceResponse { namespace: Some(namespace) })
    }

    pub(super) fn update_namespace(
        &self,
        caller: &Caller,
        request: proto::UpdateNamespaceRequest,
    ) -> Result<proto::UpdateNamespaceResponse, Status> {
        caller.authorize_namespace(&request.id)?;
        self.store.update_namespace(request, caller.by())?;
        Ok(proto::UpdateNamespaceResponse {})
    }

    pub(super) fn delete_namespace(
        &self,
        caller: &Caller,
        request: proto::DeleteNamespaceRequest,
    ) -> Result<proto::DeleteNamespaceResponse, Status> {
        let namespace = caller.authorize_namespace(&request.id)?;
        self.store.delete_namespace(namespace, caller.by())?;
        Ok(proto::DeleteNamespaceResponse {})
    }
}
