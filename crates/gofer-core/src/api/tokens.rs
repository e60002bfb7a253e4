//! The server itself, and its tokens.

use std::time::Duration;

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use gofer_proto as proto;
use gofer_proto::token::Kind;
use gofer_sdk::GoDuration;

impl Api {
    pub(super) fn get_system_info(
        &self,
        _: proto::GetSystemInfoRequest,
    ) -> Result<proto::GetSystemInfoResponse, Status> {
        Ok(proto::GetSystemInfoResponse {
            commit: "embedded".to_owned(),
            semver: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    pub(super) fn toggle_event_ingress(
        &self,
        caller: &Caller,
        _: proto::ToggleEventIngressRequest,
    ) -> Result<proto::ToggleEventIngressResponse, Status> {
        caller.require_manager()?;
        Ok(proto::ToggleEventIngressResponse { value: self.store.toggle_ignoring_runs() })
    }

    pub(super) fn bootstrap_token(
        &self,
        _: proto::BootstrapTokenRequest,
    ) -> Result<proto::BootstrapTokenResponse, Status> {
        let (details, token) = self.store.bootstrap_token()?;
        Ok(proto::BootstrapTokenResponse { details: Some(details), token })
    }

    pub(super) fn create_token(
        &self,
        caller: &Caller,
        request: proto::CreateTokenRequest,
    ) -> Result<proto::CreateTokenResponse, Status> {
        use proto::create_token_request::Kind as Requested;
        caller.require_manager()?;
        let kind = match request.kind() {
            Requested::Unknown => Kind::Unknown,
            Requested::Management => Kind::Management,
            Requested::Client => Kind::Client,
        };
        let valid_for = valid_for(&request.expires)?;
        let (details, token) =
            self.store.create_token(kind, request.namespaces, request.metadata, valid_for)?;
        Ok(proto::CreateTokenResponse { details: Some(details), token })
    }

    pub(super) fn list_tokens(
        &self,
        caller: &Caller,
        request: proto::ListTokensRequest,
    ) -> Result<proto::ListTokensResponse, Status> {
        caller.require_manager()?;
        Ok(proto::ListTokensResponse { tokens: self.store.tokens(&request.namespace) })
    }

    pub(super) fn get_token(
        &self,
        caller: &Caller,
        request: proto::GetTokenRequest,
    ) -> Result<proto::GetTokenResponse, Status> {
        caller.require_manager()?;
        Ok(proto::GetTokenResponse { details: Some(self.store.token(&request.token)?) })
    }

    pub(super) fn enable_token(
        &self,
        caller: &Caller,
        request: proto::EnableTokenRequest,
    ) -> Result<proto::EnableTokenResponse, Status> {
        caller.require_manager()?;
        self.store.disable_token(&request.token, false)?;
        Ok(proto::EnableTokenResponse {})
    }

    pub(super) fn disable_token(
        &self,
        caller: &Caller,
        request: proto::DisableTokenRequest,
    ) -> Result<proto::DisableTokenResponse, Status> {
        caller.require_manager()?;
        self.store.disable_token(&request.token, true)?;
        Ok(proto::DisableTokenResponse {})
    }

    pub(super) fn delete_token(
        &self,
        caller: &Caller,
        request: proto::DeleteTokenRequest,
    ) -> Result<proto::DeleteTokenResponse, Status> {
        caller.require_manager()?;
        self.store.delete_token(&request.token)?;
        Ok(proto::DeleteTokenResponse {})
    }
}

/// How long a token is to be valid; empty means forever.
fn valid_for(text: &str) -> Result<Option<Duration>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = text.parse::<GoDuration>().ok().filter(|time| time.is_positive());
    match time.map(Duration::try_from) {
        Some(Ok(time)) => Ok(Some(time)),
        _ => Err(Status::invalid_argument(
            "`expires` must be a duration from now on, such as `720h`, or empty for a token that never expires",
        )),
    }
}
