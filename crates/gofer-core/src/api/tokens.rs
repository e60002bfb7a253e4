//! The server itself, and its tokens.

use std::time::Duration;

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use gofer_net::auth::sha256;
use gofer_proto as proto;
use gofer_proto::token::Kind;
use gofer_sdk::GoDuration;

/// The metadata in which responses show the first digits of a token's digest: its message has no
/// field for that, and Gofer's own command line shows metadata.
const DIGEST: &str = "gofer-sdk.sha256";

/// As many as are shown.
const DIGITS: usize = 16;

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
        let value = self.store.toggle_ignoring_runs(caller.by())?;
        Ok(proto::ToggleEventIngressResponse { value })
    }

    pub(super) fn bootstrap_token(
        &self,
        _: proto::BootstrapTokenRequest,
    ) -> Result<proto::BootstrapTokenResponse, Status> {
        self.allowed.check_bootstrap()?;
        let (details, token) = self.store.bootstrap_token()?;
        let details = with_digest((sha256(token.as_bytes()), details));
        Ok(proto::BootstrapTokenResponse { details: Some(details), token })
    }

    pub(super) fn create_token(
        &self,
        caller: &Caller,
        request: proto::CreateTokenRequest,
    ) -> Result<proto::CreateTokenResponse, Status> {
        use proto::create_token_request::Kind as Requested;
        caller.require_manager()?;
        if request.metadata.contains_key(DIGEST) {
            return Err(Status::invalid_argument(format!(
                "`metadata` must not have the key `{DIGEST}`, which the core sets"
            )));
        }
        let kind = match request.kind() {
            Requested::Management => Kind::Management,
            // Gofer's own command line sends no kind for a client.
            Requested::Unknown | Requested::Client => Kind::Client,
        };
        let valid_for = valid_for(&request.expires)?;
        let proto::CreateTokenRequest { namespaces, metadata, .. } = request;
        let (details, token) =
            self.store.create_token(kind, namespaces, metadata, Some(valid_for), caller.by())?;
        let details = with_digest((sha256(token.as_bytes()), details));
        Ok(proto::CreateTokenResponse { details: Some(details), token })
    }

    pub(super) fn list_tokens(
        &self,
        caller: &Caller,
        request: proto::ListTokensRequest,
    ) -> Result<proto::ListTokensResponse, Status> {
        caller.require_manager()?;
        let tokens = self.store.tokens(&request.namespace);
        Ok(proto::ListTokensResponse { tokens: tokens.into_iter().map(with_digest).collect() })
    }

    pub(super) fn get_token(
        &self,
        caller: &Caller,
        request: proto::GetTokenRequest,
    ) -> Result<proto::GetTokenResponse, Status> {
        caller.require_manager()?;
        let details = with_digest(self.store.token(&request.token)?);
        Ok(proto::GetTokenResponse { details: Some(details) })
    }

    pub(super) fn enable_token(
        &self,
        caller: &Caller,
        request: proto::EnableTokenRequest,
    ) -> Result<proto::EnableTokenResponse, Status> {
        caller.require_manager()?;
        self.store.disable_token(&request.token, false, caller.by())?;
        Ok(proto::EnableTokenResponse {})
    }

    pub(super) fn disable_token(
        &self,
        caller: &Caller,
        request: proto::DisableTokenRequest,
    ) -> Result<proto::DisableTokenResponse, Status> {
        caller.require_manager()?;
        self.store.disable_token(&request.token, true, caller.by())?;
        Ok(proto::DisableTokenResponse {})
    }

    pub(super) fn delete_token(
        &self,
        caller: &Caller,
        request: proto::DeleteTokenRequest,
    ) -> Result<proto::DeleteTokenResponse, Status> {
        caller.require_manager()?;
        self.store.delete_token(&request.token, caller.by())?;
        Ok(proto::DeleteTokenResponse {})
    }
}

fn with_digest((digest, mut token): ([u8; 32], proto::Token)) -> proto::Token {
    let mut digits = hex::encode(digest);
    digits.truncate(DIGITS);
    token.metadata.insert(DIGEST.to_owned(), digits);
    token
}

/// How long a token is to be valid. Gofer requires it too.
fn valid_for(text: &str) -> Result<Duration, Status> {
    let time = text.parse::<GoDuration>().ok().filter(|time| time.is_positive());
    time.and_then(|time| Duration::try_from(time).ok()).ok_or_else(|| {
        Status::invalid_argument(
            "`expires` must be a duration from now, such as `720h` or `876000h` (a day is `24h`)",
        )
    })
}
