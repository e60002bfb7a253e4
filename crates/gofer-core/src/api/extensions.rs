//! Installed extensions. Any token may list them, and an extension sees itself; changes require a
//! management token.

use std::sync::Arc;

use tonic::Status;

use super::{Api, complete};
use crate::authorize::Caller;
use crate::store::{Options, check_extension_name};
use gofer_proto as proto;

impl Api {
    pub(super) async fn get_extension(
        &self,
        caller: &Caller,
        request: proto::GetExtensionRequest,
    ) -> Result<proto::GetExtensionResponse, Status> {
        caller.authorize_extension(&request.name)?;
        let extension = self.extensions.inspect(&request.name).await?;
        Ok(proto::GetExtensionResponse { extension: Some(extension) })
    }

    pub(super) fn list_extensions(
        &self,
        caller: &Caller,
        _: proto::ListExtensionsRequest,
    ) -> Result<proto::ListExtensionsResponse, Status> {
        let mut extensions = self.extensions.list();
        extensions.retain(|it| caller.sees_extension(&it.name));
        Ok(proto::ListExtensionsResponse { extensions })
    }

    pub(super) async fn install_extension(
        &self,
        caller: &Caller,
        request: proto::InstallExtensionRequest,
    ) -> Result<proto::InstallExtensionResponse, Status> {
        caller.require_manager()?;
        self.install(request, Options::default()).await?;
        Ok(proto::InstallExtensionResponse {})
    }

    pub(super) async fn install(
        &self,
        request: proto::InstallExtensionRequest,
        options: Options,
    ) -> Result<(), Status> {
        check_extension_name(&request.name)?;
        self.allowed.check_image(&request.image)?;
        let extensions = Arc::clone(&self.extensions);
        complete(async move { extensions.install(request, options).await }).await
    }

    pub(super) async fn uninstall_extension(
        &self,
        caller: &Caller,
        request: proto::UninstallExtensionRequest,
    ) -> Result<proto::UninstallExtensionResponse, Status> {
        caller.require_manager()?;
        let extensions = Arc::clone(&self.extensions);
        complete(async move { extensions.uninstall(&request.name).await }).await?;
        Ok(proto::UninstallExtensionResponse {})
    }

    pub(super) async fn enable_extension(
        &self,
        caller: &Caller,
        request: proto::EnableExtensionRequest,
    ) -> Result<proto::EnableExtensionResponse, Status> {
        caller.require_manager()?;
        let extensions = Arc::clone(&self.extensions);
        complete(async move { extensions.enable(&request.name).await }).await?;
        Ok(proto::EnableExtensionResponse {})
    }

    pub(super) async fn disable_extension(
        &self,
        caller: &Caller,
        request: proto::DisableExtensionRequest,
    ) -> Result<proto::DisableExtensionResponse, Status> {
        caller.require_manager()?;
        let extensions = Arc::clone(&self.extensions);
        complete(async move { extensions.disable(&request.name).await }).await?;
        Ok(proto::DisableExtensionResponse {})
    }
}
