//! Access to the embedded core.
//!
//! [`TokenTable`] authenticates each call before anything else sees it, and refuses one with an
//! unknown, expired or disabled token. Who called travels with the request as [`Authenticated`]. Once
//! the message has arrived, each method checks the access of its [`Caller`]: the namespace is inside
//! the message. The token is looked up again only if any has changed meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tonic::Status;

use super::grants::Grant;
use super::store::{
    By, Credential, EventScope, ExtensionKey, KeyHolder, Needs, Store, StoredToken,
    not_subscribed_in, or_default, unknown_token,
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
        let caller = self.caller(&by)?;
        Ok((caller.clone(), TokenWatch { tokens: self.clone(), by }))
    }

    /// The caller of a request, if its token is still valid.
    pub(super) fn caller(&self, by: &Authenticated) -> Result<Caller, Status> {
        if by.changes.has_changed().unwrap_or(true) {
            return self.look_up(by.digest);
        }
        by.caller.check_valid(self.store.clock().unix_millis())?;
        Ok(by.caller.clone())
    }

    fn authenticate(&self, token: &[u8]) -> Result<Authenticated, Status> {
        // Before the look-up, so that no change is missed.
        let changes = self.store.token_changes();
        let digest = sha256(token);
        Ok(Authenticated { digest, caller: self.look_up(digest)?, changes })
    }

    /// The key of an installer's conversation is for no method that requires one.
    fn look_up(&self, digest: [u8; 32]) -> Result<Caller, Status> {
        #[cfg(test)]
        tests::LOOK_UPS.with(|count| count.set(count.get() + 1));
        match self.store.credential(&digest).ok_or_else(unknown_token)? {
            Credential::Key(KeyHolder::Core) => {
                Ok(Caller { by: By::Core, is: Kind::Manager(None) })
            }
            Credential::Key(KeyHolder::Extension(key)) => {
                let by = By::Extension(Arc::clone(&key));
                let store = Arc::clone(&self.store);
                Ok(Caller { by, is: Kind::Extension(ExtensionCaller { store, key }) })
            }
            Credential::Key(KeyHolder::Installer) => Err(Status::permission_denied(
                "the key of an installer's conversation gives access to nothing",
            )),
            Credential::Token(token) => {
                Caller::with(digest, token, self.store.clock().unix_millis())
            }
        }
    }
}

/// The token of a long call. If it is disabled, deleted or expires meanwhile, the call ends.
pub(super) struct TokenWatch {
    tokens: TokenTable,
    by: Authenticated,
}

impl TokenWatch {
    /// Whether any token has changed since the last check.
    pub(super) fn has_changed(&self) -> bool {
        self.by.changes.has_changed().unwrap_or(true)
    }

    pub(super) fn check(&mut self) -> Result<(), Status> {
        self.require(|_| Ok(()))
    }

    /// Checks that the token is still valid, and its caller for something.
    pub(super) fn require(
        &mut self,
        requirement: impl Fn(&Caller) -> Result<(), Status>,
    ) -> Result<(), Status> {
        if self.has_changed() {
            self.by.changes.mark_unchanged();
            self.by.caller = self.tokens.look_up(self.by.digest)?;
        }
        requirement(&self.tokens.caller(&self.by)?)
    }

    /// Waits until the token should be checked again.
    pub(super) fn may_have_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.by.changes.clone();
        let expires = self.by.caller.token().map_or(0, |it| it.token.expires);
        let left = expires.saturating_sub(self.tokens.store.clock().unix_millis());
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
        let refusal = match bearer(headers).map(|token| self.authenticate(token)) {
            Some(Ok(by)) => {
                let class = match &by.caller.is {
                    Kind::Manager(_) => Class::Manager,
                    Kind::Extension(_) => Class::Extension,
                    Kind::Client(_) => Class::Other,
                };
                let digest = by.digest;
                extensions.insert(by);
                return Ok(Decision::Granted(auth::Caller { digest, class }));
            }
            Some(Err(refusal)) => refusal,
            None => {
                Status::unauthenticated("send a token as metadata: `authorization: Bearer <token>`")
            }
        };
        if WITHOUT_TOKEN.contains(&path) { Ok(Decision::Open) } else { Err(refusal) }
    }

    fn is_valid(&self, caller: &auth::Caller) -> bool {
        self.look_up(caller.digest).is_ok()
    }
}

/// Part of each request whose token was valid when it began: who called.
#[derive(Clone)]
pub(super) struct Authenticated {
    /// Of the token.
    pub(super) digest: [u8; 32],
    caller: Caller,
    /// Of any token since this one was looked up.
    changes: watch::Receiver<()>,
}

impl Authenticated {
    /// Of a request. Missing only if the method requires no token.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get()
            .ok_or_else(|| Status::unauthenticated("this call requires a token"))
    }
}

/// The caller of a method.
#[derive(Clone)]
pub(super) struct Caller {
    by: By,
    is: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Has access to everything; the core itself has no token.
    Manager(Option<Arc<StoredToken>>),
    /// Has access to the namespaces that the token's patterns match.
    Client(Arc<StoredToken>),
    /// Has access to the pipelines that are subscribed to it, and reads what is in their namespaces.
    Extension(ExtensionCaller),
}

/// An extension that calls with the key it was launched with.
#[derive(Clone)]
struct ExtensionCaller {
    store: Arc<Store>,
    key: Arc<ExtensionKey>,
}

impl Caller {
    fn with(digest: [u8; 32], stored: Arc<StoredToken>, now: i64) -> Result<Self, Status> {
        stored.check_valid(now)?;
        let is = match stored.token.kind() {
            TokenKind::Management => Kind::Manager(Some(stored)),
            TokenKind::Client => Kind::Client(stored),
            TokenKind::Unknown => {
                return Err(Status::unauthenticated("the token has an unknown kind"));
            }
        };
        Ok(Self { by: By::Token(digest), is })
    }

    fn token(&self) -> Option<&StoredToken> {
        match &self.is {
            Kind::Manager(token) => token.as_deref(),
            Kind::Client(token) => Some(token),
            Kind::Extension(_) => None,
        }
    }

    /// Checks that its token, which has not changed, has not expired.
    fn check_valid(&self, now: i64) -> Result<(), Status> {
        self.token().map_or(Ok(()), |token| token.check_valid(now))
    }

    /// For changes, which check their caller's access in their own transaction.
    pub(super) fn by(&self) -> &By {
        &self.by
    }

    /// Whether it may do everything.
    pub(super) fn is_manager(&self) -> bool {
        match &self.is {
            Kind::Manager(_) => true,
            Kind::Client(_) => false,
            Kind::Extension(it) => it.is_granted(Grant::Everything),
        }
    }

    /// For methods that concern the whole server.
    pub(super) fn require_manager(&self) -> Result<(), Status> {
        match &self.is {
            Kind::Manager(_) => Ok(()),
            Kind::Client(token) => token.check_management(),
            Kind::Extension(it) => it.require(Grant::Everything),
        }
    }

    /// For methods that any token may call, but an extension only if it was granted more.
    pub(super) fn require_token(&self) -> Result<(), Status> {
        match &self.is {
            Kind::Manager(_) | Kind::Client(_) => Ok(()),
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
            Kind::Manager(_) => Ok(namespace),
            Kind::Client(token) => token.check_access(namespace).map(|()| namespace),
            Kind::Extension(it) => Err(not_subscribed_in(namespace, &it.key.name)),
        }
    }

    /// Whether the caller may read what is in a namespace.
    fn reads(&self, namespace: &str) -> bool {
        match &self.is {
            Kind::Manager(_) => true,
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
            Kind::Manager(_) | Kind::Client(_) => BTreeSet::new(),
        };
        move |namespace| match &self.is {
            _ if is_manager => true,
            Kind::Client(token) => token.has_access(namespace),
            Kind::Manager(_) | Kind::Extension(_) => own.contains(namespace),
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
            Kind::Manager(_) | Kind::Client(_) => true,
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
            Kind::Manager(_) => RunStatusReasonKind::AdminCancelled,
            Kind::Client(_) | Kind::Extension(_) => RunStatusReasonKind::UserCancelled,
        }
    }

    /// Which events the caller may see, for a listing, which asks while it holds the store: those of
    /// the namespaces that it may read, and any token those of none. An extension sees those about
    /// itself.
    pub(super) fn scopes(&self) -> impl Fn(EventScope<'_>) -> bool {
        let readable = self.readable();
        let (is_manager, is_client) = (self.is_manager(), matches!(self.is, Kind::Client(_)));
        let sees_all = match &self.is {
            Kind::Extension(it) => it.is_granted(Grant::Namespaces),
            Kind::Manager(_) | Kind::Client(_) => true,
        };
        move |scope| match scope {
            _ if is_manager => true,
            EventScope::Namespace(namespace) => readable(namespace),
            EventScope::Extension(name) => match &self.is {
                Kind::Extension(it) => sees_all || it.key.name == name,
                Kind::Manager(_) | Kind::Client(_) => true,
            },
            EventScope::Core => is_client,
        }
    }

    /// Whether the caller may see an event, by its details.
    pub(super) fn can_see(&self, event: &proto::Event) -> bool {
        let seen = EventScope::of_details(&event.details, self.scopes());
        seen.unwrap_or_else(|| self.is_manager())
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
