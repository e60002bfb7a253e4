//! Access to the embedded core.
//!
//! [`TokenTable`] authenticates each call before anything else sees it, and refuses one with an
//! unknown, expired or disabled token. The token's digest travels with the request as
//! [`Authenticated`]. Once the message has arrived, each method looks up its [`Caller`] and checks
//! its access: the token may have been revoked meanwhile, and the namespace is inside the message.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::watch;
use tonic::Status;

use super::grants::Grant;
use super::store::{
    By, ExtensionKey, KeyHolder, Needs, Store, StoredToken, not_subscribed_in, or_default,
    unknown_token,
};
use gofer_net::auth::{self, Authorize, Class, Decision, OPEN, bearer, sha256};
use gofer_proto as proto;
use gofer_proto::run_status_reason::RunStatusReasonKind;
use gofer_proto::token::Kind as TokenKind;

/// The methods that require no token: to identify the server, and to get the first token.
const WITHOUT_TOKEN: [&str; 2] = ["/proto.Gofer/GetSystemInfo", "/proto.Gofer/BootstrapToken"];

/// After this time at most, a long call looks at the clock, by which its token expires: someone may
/// have set it.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// Tokens, and the keys of running extensions. They are looked up by their SHA-256: the timing of
/// that reveals something about the digest, and nothing about the token.
#[derive(Clone)]
pub(super) struct TokenTable {
    store: Arc<Store>,
}

impl TokenTable {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The caller of a long call, and a watch on its token.
    pub(super) fn watch(&self, by: Authenticated) -> Result<(Caller, TokenWatch), Status> {
        // Subscribed first, so that no change is missed.
        let changes = self.store.token_changes();
        let caller = self.caller(by)?;
        Ok((caller, TokenWatch { tokens: self.clone(), by, changes }))
    }

    /// The caller, if its token is still valid. The key of an installer's conversation is for no
    /// method that requires one.
    pub(super) fn caller(&self, Authenticated(digest): Authenticated) -> Result<Caller, Status> {
        match self.store.key_holder(&digest) {
            Some(KeyHolder::Core) => Ok(Caller { by: By::Core, is: Kind::Manager }),
            Some(KeyHolder::Extension(key)) => {
                let by = By::Extension(Arc::clone(&key));
                let store = Arc::clone(&self.store);
                Ok(Caller { by, is: Kind::Extension(ExtensionCaller { store, key }) })
            }
            Some(KeyHolder::Installer) => Err(Status::permission_denied(
                "the key of an installer's conversation gives access to nothing",
            )),
            None => {
                let token = self.store.token_of(&digest).ok_or_else(unknown_token)?;
                Caller::with(digest, token, self.store.clock().unix_millis())
            }
        }
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
        self.require(|_| Ok(()))
    }

    /// Checks that the token is still valid, and its caller for something.
    pub(super) fn require(
        &mut self,
        requirement: impl Fn(&Caller) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.changes.mark_unchanged();
        requirement(&self.tokens.caller(self.by)?)
    }

    /// Waits until the token should be checked again.
    pub(super) fn may_have_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.clone();
        let store = &self.tokens.store;
        let expires = store.token_of(&self.by.0).map_or(0, |it| it.token.expires);
        let left = expires.saturating_sub(store.clock().unix_millis());
        // At least the resolution of the clock.
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1));
        let left = left.min(LOOK_AT_CLOCK);
        async move {
            tokio::select! {
                biased;
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
        // Whatever its token: these calls have limits of their own, and end.
        if path.starts_with(OPEN) {
            return Ok(Decision::Open);
        }
        let token = bearer(headers).map(|token| Authenticated(sha256(token)));
        let caller = token.map(|by| self.caller(by));
        if let (Some(by), Some(Ok(caller))) = (token, &caller) {
            extensions.insert(by);
            let class = match &caller.is {
                Kind::Manager => Class::Manager,
                Kind::Extension(_) => Class::Extension,
                Kind::Client(_) => Class::Other,
            };
            return Ok(Decision::Granted(auth::Caller { digest: by.0, class }));
        }
        if WITHOUT_TOKEN.contains(&path) {
            return Ok(Decision::Open);
        }
        Err(caller.and_then(Result::err).unwrap_or_else(|| {
            Status::unauthenticated("send a token as metadata: `authorization: Bearer <token>`")
        }))
    }

    fn is_valid(&self, caller: &auth::Caller) -> bool {
        self.caller(Authenticated(caller.digest)).is_ok()
    }
}

/// Part of each request whose token was valid when it began: the token's digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
pub(super) struct Caller {
    by: By,
    is: Kind,
}

enum Kind {
    /// Has access to everything.
    Manager,
    /// Has access to the namespaces that the token's patterns match.
    Client(Arc<StoredToken>),
    /// Has access to the pipelines that are subscribed to it, and reads what is in their namespaces.
    Extension(ExtensionCaller),
}

/// An extension that calls with the key it was launched with.
struct ExtensionCaller {
    store: Arc<Store>,
    key: Arc<ExtensionKey>,
}

impl Caller {
    fn with(digest: [u8; 32], stored: Arc<StoredToken>, now: i64) -> Result<Self, Status> {
        stored.check_valid(now)?;
        let is = match stored.token.kind() {
            TokenKind::Management => Kind::Manager,
            TokenKind::Client => Kind::Client(stored),
            TokenKind::Unknown => {
                return Err(Status::unauthenticated("the token has an unknown kind"));
            }
        };
        Ok(Self { by: By::Token(digest), is })
    }

    /// For changes, which check their caller's access in their own transaction.
    pub(super) fn by(&self) -> &By {
        &self.by
    }

    /// Whether it may do everything.
    pub(super) fn is_manager(&self) -> bool {
        match &self.is {
            Kind::Manager => true,
            Kind::Client(_) => false,
            Kind::Extension(it) => it.is_granted(Grant::Everything),
        }
    }

    /// For methods that concern the whole server.
    pub(super) fn require_manager(&self) -> Result<(), Status> {
        match &self.is {
            Kind::Manager => Ok(()),
            Kind::Client(token) => token.check_management(),
            Kind::Extension(it) => it.require(Grant::Everything),
        }
    }

    /// For methods that any token may call, but an extension only if it was granted more.
    pub(super) fn require_token(&self) -> Result<(), Status> {
        match &self.is {
            Kind::Manager | Kind::Client(_) => Ok(()),
            Kind::Extension(it) => it.require(Grant::Namespaces),
        }
    }

    /// The namespace that a request names, if the caller may do everything in it that does not
    /// require a management token. An empty name is `default`.
    pub(super) fn authorize_namespace<'a>(&self, namespace: &'a str) -> Result<&'a str, Status> {
        let namespace = self.authorize_reading(namespace)?;
        self.require_token()?;
        Ok(namespace)
    }

    /// The namespace that a request names, if the caller may read what is in it.
    pub(super) fn authorize_reading<'a>(&self, namespace: &'a str) -> Result<&'a str, Status> {
        let namespace = or_default(namespace);
        match &self.is {
            _ if self.reads(namespace) => Ok(namespace),
            Kind::Manager => Ok(namespace),
            Kind::Client(token) => token.check_access(namespace).map(|()| namespace),
            Kind::Extension(it) => Err(not_subscribed_in(namespace, &it.key.name)),
        }
    }

    /// Whether the caller may read what is in a namespace.
    fn reads(&self, namespace: &str) -> bool {
        match &self.is {
            Kind::Manager => true,
            Kind::Client(token) => token.has_access(namespace),
            Kind::Extension(it) => {
                self.is_manager() || it.store.is_subscribed_in(&it.key, namespace)
            }
        }
    }

    /// Whether the caller may read what is in a namespace, for a listing, which asks while it holds
    /// the store.
    pub(super) fn readable(&self) -> impl Fn(&str) -> bool {
        // Whatever needs the store is asked now.
        let is_manager = self.is_manager();
        let own = match &self.is {
            Kind::Extension(it) => it.store.namespaces_of(&it.key),
            Kind::Manager | Kind::Client(_) => BTreeSet::new(),
        };
        move |namespace| match &self.is {
            _ if is_manager => true,
            Kind::Client(token) => token.has_access(namespace),
            Kind::Manager | Kind::Extension(_) => own.contains(namespace),
        }
    }

    /// Checks that the caller may see an installed extension, and subscriptions to it in the
    /// namespaces that it may read.
    pub(super) fn authorize_extension(&self, name: &str) -> Result<(), Status> {
        if self.sees_extension(name) {
            return Ok(());
        }
        Err(Status::permission_denied(
            "an extension may see other extensions, and subscriptions to them, only if it was \
             granted `namespaces` or `everything`",
        ))
    }

    pub(super) fn sees_extension(&self, name: &str) -> bool {
        match &self.is {
            Kind::Manager | Kind::Client(_) => true,
            Kind::Extension(it) => it.key.name == name || it.is_granted(Grant::Namespaces),
        }
    }

    /// Whether the caller may see what an extension was granted, and the patterns of the namespaces
    /// that may use it.
    pub(super) fn sees_options(&self, name: &str) -> bool {
        match &self.is {
            Kind::Extension(it) if it.key.name == name => true,
            _ => self.is_manager(),
        }
    }

    /// The reason recorded for runs that this caller cancels.
    pub(super) fn cancellation(&self) -> RunStatusReasonKind {
        match &self.is {
            Kind::Manager => RunStatusReasonKind::AdminCancelled,
            Kind::Client(_) | Kind::Extension(_) => RunStatusReasonKind::UserCancelled,
        }
    }

    /// An event belongs to the namespace in its details; any token may see one without. An extension
    /// sees those about itself.
    pub(super) fn can_see(&self, event: &proto::Event) -> bool {
        #[derive(Deserialize)]
        struct Details {
            namespace_id: Option<String>,
            name: Option<String>,
        }
        if self.is_manager() {
            return true;
        }
        let Ok(details) = serde_json::from_str::<Details>(&event.details) else { return false };
        match (details.namespace_id, details.name) {
            (Some(namespace), _) => self.reads(&namespace),
            (None, Some(name)) => self.sees_extension(&name),
            (None, None) => matches!(self.is, Kind::Client(_)),
        }
    }

    /// Whether what the caller may see can change while its token stays the same.
    pub(super) fn may_lose_access(&self) -> bool {
        matches!(self.is, Kind::Extension(_))
    }
}

impl ExtensionCaller {
    fn require(&self, grant: Grant) -> Result<(), Status> {
        self.store.authorize(&By::Extension(Arc::clone(&self.key)), Needs::Management(grant))
    }

    /// As of now: the grants of an extension that runs can be taken back.
    fn is_granted(&self, grant: Grant) -> bool {
        self.store.is_granted(&self.key, grant)
    }
}

#[cfg(test)]
mod tests;
