//! Access to the embedded core.
//!
//! [`TokenTable`] authenticates each call before anything else sees it, and refuses one with an
//! unknown, expired or disabled token. The token's digest travels with the request as
//! [`Authenticated`]. Once the message has arrived, each method looks up its [`Caller`] and checks
//! its access: the token may have been revoked meanwhile, and the namespace is inside the message.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::watch;
use tonic::Status;

use super::extensions::Extensions;
use super::store::{Store, StoredToken, or_default};
use gofer_net::auth::{self, Authorize, Class, Decision, OPEN, bearer, sha256};
use gofer_proto as proto;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::token::Kind;

/// The methods that require no token: to identify the server, and to get the first token.
const WITHOUT_TOKEN: [&str; 2] = ["/proto.Gofer/GetSystemInfo", "/proto.Gofer/BootstrapToken"];

/// Tokens, and the keys of running extensions. They are looked up by their SHA-256: the timing of
/// that reveals something about the digest, and nothing about the token.
#[derive(Clone)]
pub(super) struct TokenTable {
    store: Arc<Store>,
    extensions: Arc<Extensions>,
}

impl TokenTable {
    pub(super) fn new(store: Arc<Store>, extensions: Arc<Extensions>) -> Self {
        Self { store, extensions }
    }

    /// The caller of a long call, and a watch on its token.
    pub(super) fn watch(&self, by: Authenticated) -> Result<(Caller, TokenWatch), Status> {
        // Subscribed first, so that no change is missed.
        let changes = self.store.token_changes();
        let caller = self.caller(by)?;
        Ok((caller, TokenWatch { tokens: self.clone(), by, changes }))
    }

    /// What the limits of the caller's connections depend on.
    fn class(&self, Authenticated(digest): Authenticated, caller: &Caller) -> Class {
        match caller {
            _ if self.extensions.has_launched(&digest) => Class::Extension,
            Caller::Manager => Class::Manager,
            Caller::Client(_) => Class::Other,
        }
    }

    /// The caller, if its token is still valid.
    pub(super) fn caller(&self, Authenticated(digest): Authenticated) -> Result<Caller, Status> {
        if self.extensions.accepts_token(&digest) {
            return Ok(Caller::Manager);
        }
        let Some(token) = self.store.token_of(&digest) else {
            return Err(Status::unauthenticated("unknown token; create one with CreateToken"));
        };
        Caller::with(token, self.store.clock().unix_millis())
    }
}

/// The token of a long call. If it is disabled, deleted or expires meanwhile, the call ends.
pub(super) struct TokenWatch {
    tokens: TokenTable,
    by: Authenticated,
    changes: watch::Receiver<()>,
}

impl TokenWatch {
    /// Whether any token has changed since the last check.
    pub(super) fn has_changed(&self) -> bool {
        self.changes.has_changed().unwrap_or(true)
    }

    pub(super) fn check(&mut self) -> Result<(), Status> {
        self.changes.mark_unchanged();
        self.tokens.caller(self.by).map(drop)
    }

    /// Waits until the token should be checked again.
    pub(super) fn may_have_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.clone();
        let store = &self.tokens.store;
        let expires = store.token_of(&self.by.0).map_or(0, |it| it.token.expires);
        let left = expires.saturating_sub(store.clock().unix_millis());
        // At least the resolution of the clock.
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1));
        async move {
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(left), if expires != 0 => {}
            }
        }
    }
}

impl Authorize for TokenTable {
    fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &mut http::Extensions,
    ) -> Result<Decision, Status> {
        let token = bearer(headers).map(|token| Authenticated(sha256(token)));
        let caller = token.map(|by| self.caller(by));
        if let (Some(by), Some(Ok(caller))) = (token, &caller) {
            extensions.insert(by);
            let class = self.class(by, caller);
            return Ok(Decision::Granted(auth::Caller { digest: by.0, class }));
        }
        if path.starts_with(OPEN) || WITHOUT_TOKEN.contains(&path) {
            return Ok(Decision::Open);
        }
        Err(caller.and_then(Result::err).unwrap_or_else(|| {
            Status::unauthenticated("send a token as metadata: `authorization: Bearer <token>`")
        }))
    }
}

/// Part of each request whose token was valid when it began: the token's digest.
#[derive(Clone, Copy)]
pub(super) struct Authenticated([u8; 32]);

impl Authenticated {
    /// Of a request. Missing only if the method requires no token.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get()
            .copied()
            .ok_or_else(|| Status::unauthenticated("this call requires a token"))
    }
}

/// The caller of a method.
pub(super) enum Caller {
    /// Has access to everything.
    Manager,
    /// Has access to the namespaces that the token's patterns match.
    Client(Arc<StoredToken>),
}

impl Caller {
    fn with(stored: Arc<StoredToken>, now: i64) -> Result<Self, Status> {
        let token = &stored.token;
        if token.disabled {
            return Err(Status::unauthenticated("the token is disabled; enable it or use another"));
        }
        if token.expires != 0 && token.expires <= now {
            return Err(Status::unauthenticated("the token has expired; create a new one"));
        }
        match token.kind() {
            Kind::Management => Ok(Self::Manager),
            Kind::Client => Ok(Self::Client(stored)),
            Kind::Unknown => Err(Status::unauthenticated("the token has an unknown kind")),
        }
    }

    /// For methods that concern the whole server.
    pub(super) fn require_manager(&self) -> Result<(), Status> {
        match self {
            Self::Manager => Ok(()),
            Self::Client(_) => Err(Status::permission_denied("this requires a management token")),
        }
    }

    /// The namespace that a request names, if the caller has access to it. An empty name is
    /// `default`.
    pub(super) fn authorize_namespace<'a>(&self, namespace: &'a str) -> Result<&'a str, Status> {
        let namespace = or_default(namespace);
        if self.has_access(namespace) {
            return Ok(namespace);
        }
        Err(Status::permission_denied(format!(
            "the token gives no access to the namespace `{namespace}`"
        )))
    }

    pub(super) fn has_access(&self, namespace: &str) -> bool {
        match self {
            Self::Manager => true,
            Self::Client(token) => token.has_access(namespace),
        }
    }

    /// The reason recorded for runs that this caller cancels.
    pub(super) fn cancellation(&self) -> RunStatusReasonKind {
        match self {
            Self::Manager => RunStatusReasonKind::AdminCancelled,
            Self::Client(_) => RunStatusReasonKind::UserCancelled,
        }
    }

    /// An event belongs to the namespace in its details; any caller may see one without.
    pub(super) fn can_see(&self, event: &proto::Event) -> bool {
        #[derive(Deserialize)]
        struct Details {
            namespace_id: Option<String>,
        }
        match self {
            Self::Manager => true,
            Self::Client(_) => serde_json::from_str::<Details>(&event.details).is_ok_and(|it| {
                it.namespace_id.is_none_or(|namespace| self.has_access(&namespace))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
