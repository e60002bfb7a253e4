//! Who may call the embedded core, and what they may do.
//!
//! [`TokenTable`] stands before the whole server: a call with an unknown,
//! expired or disabled token goes no further. What the token of a call gives
//! access to is up to each method, since a namespace is named inside the
//! message: a method asks its [`Caller`].

use std::sync::Arc;

use http::HeaderMap;
use serde::Deserialize;
use tonic::Status;

use super::extensions::Extensions;
use super::store::{Store, has_access, or_default};
use crate::proto;
use crate::proto::run_status_reason::RunStatusReasonKind;
use crate::proto::token::Kind;
use crate::server::auth::{Access, Authorize, OPEN, bearer, sha256};

/// The methods that need no token: to see what server this is, and to come by
/// the first token.
const WITHOUT_TOKEN: [&str; 2] = ["/proto.Gofer/GetSystemInfo", "/proto.Gofer/BootstrapToken"];

/// Tokens, and the keys of extensions that run. Looked up by their SHA-256: the
/// time that takes tells something of the digest, and nothing of the token.
#[derive(Clone)]
pub(super) struct TokenTable {
    store: Arc<Store>,
    extensions: Arc<Extensions>,
}

impl TokenTable {
    pub(super) fn new(store: Arc<Store>, extensions: Arc<Extensions>) -> Self {
        Self { store, extensions }
    }

    /// Whom the token of a call belongs to.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let Some(token) = bearer(headers) else {
            return Err(Status::unauthenticated(
                "send a token as metadata: `authorization: Bearer <token>`",
            ));
        };
        let digest = sha256(token);
        if self.extensions.knows_token(&digest) {
            return Ok(Caller::Manager);
        }
        let Some(token) = self.store.token_of(&digest) else {
            return Err(Status::unauthenticated("the token is not known here"));
        };
        Caller::with(token, self.store.clock().unix_millis())
    }
}

impl Authorize for TokenTable {
    fn authorize(&self, path: &str, headers: &HeaderMap) -> Result<Access, Status> {
        if path.starts_with(OPEN) || WITHOUT_TOKEN.contains(&path) {
            return Ok(Access::Open);
        }
        self.caller(headers).map(|_| Access::Granted)
    }
}

/// The one who calls.
#[derive(Clone)]
pub(super) enum Caller {
    /// May do everything.
    Manager,
    /// May work in the namespaces that the token's patterns match.
    Client(Arc<proto::Token>),
}

impl Caller {
    fn with(token: Arc<proto::Token>, now: i64) -> Result<Self, Status> {
        if token.disabled {
            return Err(Status::unauthenticated("the token is disabled"));
        }
        if token.expires != 0 && token.expires <= now {
            return Err(Status::unauthenticated("the token has expired"));
        }
        match token.kind() {
            Kind::Management => Ok(Self::Manager),
            Kind::Client => Ok(Self::Client(token)),
            Kind::Unknown => Err(Status::unauthenticated("the token is of no known kind")),
        }
    }

    /// For what concerns the whole server.
    pub(super) fn manage(&self) -> Result<(), Status> {
        match self {
            Self::Manager => Ok(()),
            Self::Client(_) => Err(Status::permission_denied("this needs a management token")),
        }
    }

    /// The namespace that a request names, where the caller may work in it. An
    /// empty name is `default`.
    pub(super) fn enter<'a>(&self, namespace: &'a str) -> Result<&'a str, Status> {
        let namespace = or_default(namespace);
        if self.may_enter(namespace) {
            return Ok(namespace);
        }
        Err(Status::permission_denied(format!(
            "the token gives no access to the namespace `{namespace}`"
        )))
    }

    pub(super) fn may_enter(&self, namespace: &str) -> bool {
        match self {
            Self::Manager => true,
            Self::Client(token) => has_access(token, namespace),
        }
    }

    /// Why a run is over that this caller cancels.
    pub(super) fn cancellation(&self) -> RunStatusReasonKind {
        match self {
            Self::Manager => RunStatusReasonKind::AdminCancelled,
            Self::Client(_) => RunStatusReasonKind::UserCancelled,
        }
    }

    /// An event belongs to the namespace that its details name; one without is
    /// for everyone.
    pub(super) fn may_see(&self, event: &proto::Event) -> bool {
        #[derive(Deserialize)]
        struct Details {
            namespace_id: Option<String>,
        }
        match self {
            Self::Manager => true,
            Self::Client(_) => serde_json::from_str::<Details>(&event.details)
                .is_ok_and(|it| it.namespace_id.is_none_or(|namespace| self.may_enter(&namespace))),
        }
    }
}

#[cfg(test)]
mod tests;
