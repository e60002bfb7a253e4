//! Tokens. A token is returned once, to the caller that creates it; only its SHA-256 is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;

use super::super::certificates::random_key;
use super::patterns::{Patterns, is_name};
use super::{By, Needs, Store, Tables};
use crate::grants::Grant;
use gofer_net::auth::sha256;
use gofer_proto::Token;
use gofer_proto::token::Kind;

/// Tokens that there may be.
const MOST_TOKENS: usize = 10_000;

/// How long it is remembered that a token has expired, in milliseconds.
const EXPIRED_FOR: i64 = 30 * 24 * 60 * 60 * 1000;

/// Of a digest, to name a token: enough that nobody hits another one by a typing error.
const LEAST_DIGITS: usize = 8;

/// A token's details, without the token itself.
#[derive(Clone)]
pub(crate) struct StoredToken {
    pub(crate) token: Token,
    /// Those in the token, compiled.
    patterns: Patterns,
}

/// The first management token, before it is valid.
pub(crate) struct FirstToken {
    details: StoredToken,
    token: String,
}

impl FirstToken {
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

impl StoredToken {
    #[cfg(feature = "store")]
    pub(super) fn restore(token: Token) -> Self {
        Self { patterns: Patterns::restore(&token.namespaces), token }
    }

    /// For tests of what a token gives access to.
    #[cfg(test)]
    pub(crate) fn new(token: Token) -> Result<Self, Status> {
        Ok(Self { patterns: Patterns::new(&token.namespaces)?, token })
    }

    /// Whether the token's kind and patterns give access to a namespace.
    pub(crate) fn has_access(&self, namespace: &str) -> bool {
        match self.token.kind() {
            Kind::Management => true,
            Kind::Client => self.patterns.matches(namespace),
            Kind::Unknown => false,
        }
    }

    pub(crate) fn check_access(&self, namespace: &str) -> Result<(), Status> {
        if self.has_access(namespace) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "the token gives no access to the namespace `{namespace}`"
        )))
    }

    pub(crate) fn check_management(&self) -> Result<(), Status> {
        match self.token.kind() {
            Kind::Management => Ok(()),
            Kind::Client | Kind::Unknown => {
                Err(Status::permission_denied("this requires a management token"))
            }
        }
    }

    pub(crate) fn check_valid(&self, now: i64) -> Result<(), Status> {
        let Token { disabled, expires, .. } = self.token;
        if disabled {
            return Err(Status::unauthenticated("the token is disabled; enable it or use another"));
        }
        if expires != 0 && expires <= now {
            return Err(Status::unauthenticated("the token has expired; create a new one"));
        }
        Ok(())
    }
}

impl Store {
    /// Creates a token, and returns its details and the token itself. Without `valid_for`, it does
    /// not expire.
    pub(crate) fn create_token(
        &self,
        kind: Kind,
        namespaces: Vec<String>,
        metadata: HashMap<String, String>,
        valid_for: Option<Duration>,
        by: &By,
    ) -> Result<(Token, String), Status> {
        let (details, token) = self.new_token(kind, namespaces, metadata, valid_for)?;
        let now = self.clock.unix_millis();
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Management(Grant::Everything))?;
        tables.check_named_namespaces(&details.token.namespaces)?;
        tables.forget_expired_tokens(now)?;
        tables.insert_token(&token, &details);
        Ok((details.token, token))
    }

    fn new_token(
        &self,
        kind: Kind,
        namespaces: Vec<String>,
        metadata: HashMap<String, String>,
        valid_for: Option<Duration>,
    ) -> Result<(StoredToken, String), Status> {
        if kind == Kind::Unknown {
            return Err(Status::invalid_argument("`kind` must be MANAGEMENT or CLIENT"));
        }
        if kind == Kind::Client && namespaces.is_empty() {
            return Err(Status::invalid_argument(
                "`namespaces` must list what a client token has access to",
            ));
        }
        let patterns = Patterns::new(&namespaces)?;
        let now = self.clock.unix_millis();
        let expires = valid_for.map_or(0, |time| {
            now.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)).max(1)
        });
        let token = Token {
            created: now,
            kind: kind.into(),
            namespaces,
            metadata,
            expires,
            disabled: false,
        };
        Ok((StoredToken { token, patterns }, random_key()?))
    }

    /// Creates the first management token, once.
    pub(crate) fn bootstrap_token(&self) -> Result<(Token, String), Status> {
        let first = self.new_first_token()?;
        self.add_first_token(&first)?;
        Ok((first.details.token, first.token))
    }

    /// A management token that is not valid yet.
    pub(crate) fn new_first_token(&self) -> Result<FirstToken, Status> {
        let (details, token) =
            self.new_token(Kind::Management, Vec::new(), HashMap::new(), None)?;
        Ok(FirstToken { details, token })
    }

    /// Makes it valid, if it is the first one.
    pub(crate) fn add_first_token(&self, first: &FirstToken) -> Result<(), Status> {
        let mut tables = self.change()?;
        if std::mem::replace(&mut tables.flags.bootstrapped, true) {
            return Err(Status::failed_precondition(
                "the first token has already been made; use a management token to make more",
            ));
        }
        let flags = tables.flags;
        tables.journal.put_flags(flags);
        tables.insert_token(&first.token, &first.details);
        Ok(())
    }

    pub(crate) fn awaits_first_token(&self) -> bool {
        !self.tables().flags.bootstrapped
    }

    /// The tokens with access to a namespace, or all for an empty name; oldest first.
    pub(crate) fn tokens(&self, namespace: &str) -> Vec<([u8; 32], Token)> {
        let mut found: Vec<_> = self
            .tables()
            .tokens
            .iter()
            .filter(|(_, it)| namespace.is_empty() || it.has_access(namespace))
            .map(|(digest, it)| (*digest, it.token.clone()))
            .collect();
        found.sort_by_key(|(_, token)| token.created);
        found
    }

    /// By the token itself, or by the first digits of its digest.
    pub(crate) fn token(&self, which: &str) -> Result<([u8; 32], Token), Status> {
        let tables = self.tables();
        let digest = tables.find_token(which)?;
        let found = tables.tokens.get(&digest).ok_or_else(no_token)?;
        Ok((digest, found.token.clone()))
    }

    pub(crate) fn disable_token(&self, which: &str, disabled: bool, by: &By) -> Result<(), Status> {
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Management(Grant::Everything))?;
        let digest = tables.find_token(which)?;
        let Tables { tokens, journal, .. } = &mut *tables;
        let found = Arc::make_mut(tokens.get_mut(&digest).ok_or_else(no_token)?);
        found.token.disabled = disabled;
        journal.put_token(&digest, &found.token);
        self.tokens_changed.send_replace(());
        Ok(())
    }

    pub(crate) fn delete_token(&self, which: &str, by: &By) -> Result<(), Status> {
        let mut tables = self.change()?;
        tables.authorize(by, Needs::Management(Grant::Everything))?;
        let digest = tables.find_token(which)?;
        tables.tokens.remove(&digest).ok_or_else(no_token)?;
        tables.journal.remove_token(&digest);
        self.tokens_changed.send_replace(());
        Ok(())
    }

    /// Changes whenever the access that a token gives changes, except when it expires.
    pub(crate) fn token_changes(&self) -> watch::Receiver<()> {
        self.tokens_changed.subscribe()
    }
}

impl Tables {
    /// A pattern that is the name of a namespace must be that of one that exists: a name with a typing
    /// error would give access to nothing. Other patterns may be for namespaces that are yet to be.
    fn check_named_namespaces(&self, patterns: &[String]) -> Result<(), Status> {
        let missing = patterns.iter().find(|it| is_name(it) && !self.namespaces.contains_key(*it));
        match missing {
            None => Ok(()),
            Some(id) => Err(Status::not_found(format!(
                "there is no namespace `{id}`; create it first, or give a pattern such as `{id}.*`"
            ))),
        }
    }

    /// The digest of a token that is given itself, or by the first digits of its digest, so that a
    /// token can be revoked without having it.
    fn find_token(&self, which: &str) -> Result<[u8; 32], Status> {
        let digest = sha256(which.as_bytes());
        if self.tokens.contains_key(&digest) {
            return Ok(digest);
        }
        if which.is_empty() || !which.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(no_token());
        }
        if which.len() < LEAST_DIGITS {
            return Err(Status::invalid_argument(format!(
                "`token` has too few digits: give at least {LEAST_DIGITS} of the token's digest, \
                 or the token itself"
            )));
        }
        let prefix = which.to_ascii_lowercase();
        let mut found = self.tokens.keys().filter(|it| hex::encode(it).starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(digest), None) => Ok(*digest),
            (Some(_), Some(_)) => Err(Status::invalid_argument(
                "`token` is ambiguous: the digests of several tokens begin with these digits; give \
                 more of them",
            )),
            (None, _) => Err(no_token()),
        }
    }

    /// Forgets tokens that expired long ago, and checks that there is room for one more.
    fn forget_expired_tokens(&mut self, now: i64) -> Result<(), Status> {
        let Self { tokens, journal, .. } = self;
        tokens.retain(|digest, stored| {
            let token = &stored.token;
            let is_kept = token.expires == 0 || token.expires.saturating_add(EXPIRED_FOR) > now;
            if !is_kept {
                journal.remove_token(digest);
            }
            is_kept
        });
        if tokens.len() < MOST_TOKENS {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "there are {MOST_TOKENS} tokens already; delete some, or let them expire"
        )))
    }

    fn insert_token(&mut self, token: &str, details: &StoredToken) {
        let digest = sha256(token.as_bytes());
        self.journal.put_token(&digest, &details.token);
        self.tokens.insert(digest, Arc::new(details.clone()));
    }
}

fn no_token() -> Status {
    Status::not_found(format!(
        "there is no such token; give the token itself, or at least {LEAST_DIGITS} digits of its \
         SHA-256 digest"
    ))
}
