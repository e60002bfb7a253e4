//! Who may call the embedded core, and what they may do.
//!
//! [`TokenTable`] stands before the whole server: a call with an unknown,
//! expired or disabled token goes no further. What the token of a call gives
//! access to is up to each method, since a namespace is named inside the
//! message: a method asks its [`Caller`].

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::watch;
use tonic::Status;

use super::extensions::Extensions;
use super::store::{Store, StoredToken, or_default};
use gofer_net::auth::{Authorize, Decision, OPEN, bearer, sha256};
use gofer_proto as proto;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::token::Kind;

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

    /// Follows the token of a call that goes on for long.
    pub(super) fn lease(&self, caller: &Authenticated) -> Result<Lease, Status> {
        // Watched first, so that no change is missed.
        let changes = self.store.token_changes();
        self.caller_with(&caller.digest)?;
        Ok(Lease { tokens: self.clone(), digest: caller.digest, changes })
    }

    fn caller_with(&self, digest: &[u8; 32]) -> Result<Caller, Status> {
        if self.extensions.accepts_token(digest) {
            return Ok(Caller::Manager);
        }
        let Some(token) = self.store.token_of(digest) else {
            return Err(Status::unauthenticated("the token is not known here"));
        };
        Caller::with(token, self.store.clock().unix_millis())
    }
}

fn digest(headers: &HeaderMap) -> Result<[u8; 32], Status> {
    let token = bearer(headers).ok_or_else(|| {
        Status::unauthenticated("send a token as metadata: `authorization: Bearer <token>`")
    })?;
    Ok(sha256(token))
}

/// The token of a call that goes on: it may be disabled, deleted or expire
/// meanwhile, and the call ends with it.
pub(super) struct Lease {
    tokens: TokenTable,
    digest: [u8; 32],
    changes: watch::Receiver<()>,
}

impl Lease {
    /// Whether some token has changed since the last look.
    pub(super) fn is_doubtful(&self) -> bool {
        self.changes.has_changed().unwrap_or(true)
    }

    pub(super) fn check(&mut self) -> Result<(), Status> {
        self.changes.mark_unchanged();
        self.tokens.caller_with(&self.digest).map(drop)
    }

    /// Waits until it is worth another look.
    pub(super) fn doubt(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.clone();
        let store = &self.tokens.store;
        let expires = store.token_of(&self.digest).map_or(0, |it| it.token.expires);
        let left = expires.saturating_sub(store.clock().unix_millis());
        // Not less than the clock tells apart.
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
        if path.starts_with(OPEN) || WITHOUT_TOKEN.contains(&path) {
            return Ok(Decision::Open);
        }
        let digest = digest(headers)?;
        let caller = self.caller_with(&digest)?;
        extensions.insert(Authenticated { caller, digest });
        Ok(Decision::Granted)
    }
}

/// Comes with each call whose token is valid.
#[derive(Clone)]
pub(super) struct Authenticated {
    pub(super) caller: Caller,
    digest: [u8; 32],
}

impl Authenticated {
    /// Of a call; none of those that need no token asks for it.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request.extensions().get().ok_or_else(|| Status::unauthenticated("this call needs a token"))
    }
}

/// The one who calls.
#[derive(Clone)]
pub(super) enum Caller {
    /// May do everything.
    Manager,
    /// May work in the namespaces that the token's patterns match.
    Client(Arc<StoredToken>),
}

impl Caller {
    fn with(stored: Arc<StoredToken>, now: i64) -> Result<Self, Status> {
        let token = &stored.token;
        if token.disabled {
            return Err(Status::unauthenticated("the token is disabled"));
        }
        if token.expires != 0 && token.expires <= now {
            return Err(Status::unauthenticated("the token has expired"));
        }
        match token.kind() {
            Kind::Management => Ok(Self::Manager),
            Kind::Client => Ok(Self::Client(stored)),
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
            Self::Client(token) => token.has_access(namespace),
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
