//! Who is behind the keys that this process has made, and what extensions have access to.
//!
//! In memory only: a core that starts has launched nothing. Part of the tables, so that a change is
//! made only if its caller still has access.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tonic::Status;

use super::{Options, Store, StoredToken, Tables, or_default};
use crate::grants::Grant;
use gofer_net::auth::sha256;
use gofer_proto::PipelineExtensionSubscription as Subscription;

/// What a caller has shown.
pub(crate) enum Credential {
    Key(KeyHolder),
    Token(Arc<StoredToken>),
}

/// Whom a key was made for.
#[derive(Clone)]
pub(crate) enum KeyHolder {
    /// The core's own client, which may do everything.
    Core,
    /// An installed extension.
    Extension(Arc<ExtensionKey>),
    /// An extension that was launched for an installer's conversation, which may do nothing.
    Installer,
}

/// The key of one launch of an extension.
pub(crate) struct ExtensionKey {
    pub(crate) name: String,
    digest: [u8; 32],
}

/// Who makes a change, or reads what is confidential. Its access is checked in the transaction that
/// does so: it may have been revoked since the call began.
#[derive(Clone)]
pub(crate) enum By {
    /// The core, or who embeds it.
    Core,
    /// The owner of the token with this digest.
    Token([u8; 32]),
    Extension(Arc<ExtensionKey>),
}

impl By {
    pub(super) fn extension(&self) -> Option<&ExtensionKey> {
        match self {
            Self::Extension(key) => Some(key),
            Self::Core | Self::Token(_) => None,
        }
    }
}

/// What a change needs access to.
#[derive(Clone, Copy)]
pub(crate) enum Needs<'a> {
    /// Runs and objects of a pipeline: its namespace and its id.
    Pipeline(&'a str, &'a str),
    /// Its secrets, which an extension must have been granted.
    Secrets(&'a str, &'a str, Grant),
    /// A namespace, to change its pipelines and subscriptions.
    Namespace(&'a str),
    /// A management token; of an extension, this grant.
    Management(Grant),
}

/// The keys that are accepted, by their SHA-256.
#[derive(Default)]
pub(super) struct Access(HashMap<[u8; 32], Key>);

struct Key {
    holder: KeyHolder,
    /// What its extension is granted, which may become less while it runs.
    grants: BTreeSet<Grant>,
    /// By namespace and pipeline, the labels of the subscriptions that the extension holds.
    subscribed: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Key {
    fn is_of(&self, extension: &str) -> bool {
        matches!(&self.holder, KeyHolder::Extension(it) if it.name == extension)
    }
}

impl Access {
    fn check(&self, by: &ExtensionKey, needs: Needs<'_>) -> Result<(), Status> {
        let key = self.0.get(&by.digest).ok_or_else(unknown_token)?;
        let is_granted = |grant: Grant| grant.is_in(&key.grants);
        if is_granted(Grant::Everything) {
            return Ok(());
        }
        let lacks = |grant: Grant| Err(lacks(&by.name, grant));
        match needs {
            Needs::Secrets(_, _, grant) | Needs::Management(grant) if !is_granted(grant) => {
                lacks(grant)
            }
            Needs::Management(_) => Ok(()),
            Needs::Pipeline(namespace, pipeline) | Needs::Secrets(namespace, pipeline, _) => {
                let namespace = or_default(namespace);
                let pipelines = key.subscribed.get(namespace);
                let in_namespace = is_granted(Grant::Namespaces);
                if pipelines.is_some_and(|it| in_namespace || it.contains_key(pipeline)) {
                    return Ok(());
                }
                Err(Status::permission_denied(format!(
                    "the pipeline `{namespace}/{pipeline}` is not subscribed to the extension `{}`",
                    by.name
                )))
            }
            Needs::Namespace(namespace) => {
                let namespace = or_default(namespace);
                if !key.subscribed.contains_key(namespace) {
                    return Err(not_subscribed_in(namespace, &by.name));
                }
                if is_granted(Grant::Namespaces) { Ok(()) } else { lacks(Grant::Namespaces) }
            }
        }
    }

    /// Takes back from all keys of an extension what its options do not allow.
    pub(super) fn narrow(&mut self, extension: &str, options: &Options) {
        for key in self.0.values_mut().filter(|key| key.is_of(extension)) {
            key.grants = Grant::common(&key.grants, &options.grants);
            key.subscribed.retain(|namespace, _| options.allows(namespace));
        }
    }

    fn end(&mut self, digest: &[u8; 32], [namespace, pipeline, label]: [&str; 3]) {
        let Some(key) = self.0.get_mut(digest) else { return };
        let Some(pipelines) = key.subscribed.get_mut(namespace) else { return };
        let Some(labels) = pipelines.get_mut(pipeline) else { return };
        labels.remove(label);
        if labels.is_empty() {
            pipelines.remove(pipeline);
        }
        if pipelines.is_empty() {
            key.subscribed.remove(namespace);
        }
    }
}

impl Tables {
    /// Checks that a caller has access now.
    pub(super) fn authorize(&self, by: &By, needs: Needs<'_>) -> Result<(), Status> {
        match by {
            By::Core => Ok(()),
            By::Token(digest) => {
                let token = self.tokens.get(digest).ok_or_else(unknown_token)?;
                token.check_valid(self.clock.unix_millis())?;
                match needs {
                    Needs::Pipeline(namespace, _)
                    | Needs::Secrets(namespace, _, _)
                    | Needs::Namespace(namespace) => token.check_access(or_default(namespace)),
                    Needs::Management(_) => token.check_management(),
                }
            }
            By::Extension(key) => self.access.check(key, needs),
        }
    }
}

impl Store {
    /// Checks that a caller has access now, before something that takes a while.
    pub(crate) fn authorize(&self, by: &By, needs: Needs<'_>) -> Result<(), Status> {
        self.tables().authorize(by, needs)
    }

    /// Accepts a new key until the guard is dropped.
    pub(crate) fn accept_key(self: &Arc<Self>, key: &str, of: NewKey) -> KeyGuard {
        let digest = sha256(key.as_bytes());
        let (holder, grants) = match of {
            NewKey::Core => (KeyHolder::Core, BTreeSet::new()),
            NewKey::Installer => (KeyHolder::Installer, BTreeSet::new()),
            NewKey::Extension { name, grants } => {
                (KeyHolder::Extension(Arc::new(ExtensionKey { name, digest })), grants)
            }
        };
        self.tables().access.0.insert(digest, Key { holder, grants, subscribed: BTreeMap::new() });
        KeyGuard { store: Arc::clone(self), digest }
    }

    /// What has this digest: a key or a token.
    pub(crate) fn credential(&self, digest: &[u8; 32]) -> Option<Credential> {
        let tables = self.tables();
        match tables.access.0.get(digest) {
            Some(key) => Some(Credential::Key(key.holder.clone())),
            None => tables.tokens.get(digest).cloned().map(Credential::Token),
        }
    }

    #[cfg(test)]
    pub(crate) fn key_holder(&self, digest: &[u8; 32]) -> Option<KeyHolder> {
        self.tables().access.0.get(digest).map(|key| key.holder.clone())
    }

    /// Whether an extension is granted this, by itself or as a part of more.
    pub(crate) fn is_granted(&self, extension: &ExtensionKey, grant: Grant) -> bool {
        let tables = self.tables();
        tables.access.0.get(&extension.digest).is_some_and(|key| grant.is_in(&key.grants))
    }

    /// The namespaces in which an extension has a subscription.
    pub(crate) fn namespaces_of(&self, extension: &ExtensionKey) -> BTreeSet<String> {
        let tables = self.tables();
        let key = tables.access.0.get(&extension.digest);
        key.map(|key| key.subscribed.keys().cloned().collect()).unwrap_or_default()
    }

    /// Whether an extension has a subscription in a namespace.
    pub(crate) fn is_subscribed_in(&self, extension: &ExtensionKey, namespace: &str) -> bool {
        let tables = self.tables();
        let key = tables.access.0.get(&extension.digest);
        key.is_some_and(|key| key.subscribed.contains_key(namespace))
    }

    /// Ends the access that comes with a subscription, for every launch of its extension.
    pub(crate) fn end_access(&self, subscription: &Subscription) {
        let Subscription { namespace, pipeline, name, label, .. } = subscription;
        let mut tables = self.tables();
        let keys = tables.access.0.iter().filter(|(_, key)| key.is_of(name));
        let digests: Vec<_> = keys.map(|(digest, _)| *digest).collect();
        for digest in digests {
            tables.access.end(&digest, [namespace, pipeline, label]);
        }
        self.tokens_changed.send_replace(());
    }
}

/// Whom to accept a key from.
pub(crate) enum NewKey {
    Core,
    Extension { name: String, grants: BTreeSet<Grant> },
    Installer,
}

/// The core accepts the key until this is dropped.
pub(crate) struct KeyGuard {
    store: Arc<Store>,
    digest: [u8; 32],
}

impl KeyGuard {
    /// Gives the extension access to the pipeline of a subscription, before it is subscribed; not if
    /// it may not be.
    pub(crate) fn begin_access(&self, subscription: &Subscription) -> AccessGuard<'_> {
        let Subscription { namespace, pipeline, name, label, .. } = subscription;
        let names = [namespace, pipeline, label].map(Clone::clone);
        let mut tables = self.store.tables();
        let Tables { access, options, .. } = &mut *tables;
        let may_subscribe = options.get(name).is_none_or(|it| it.allows(namespace));
        let key = access.0.get_mut(&self.digest).filter(|_| may_subscribe);
        let is_new = key.is_some_and(|key| {
            let [namespace, pipeline, label] = names.clone();
            let pipelines = key.subscribed.entry(namespace).or_default();
            pipelines.entry(pipeline).or_default().insert(label)
        });
        AccessGuard { key: self, names, is_new }
    }

    /// Refuses the key from now on.
    pub(crate) fn end(&self) {
        if self.store.tables().access.0.remove(&self.digest).is_some() {
            self.store.tokens_changed.send_replace(());
        }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Access for the time of a Subscribe. If it is not kept, it ends with this, unless the extension
/// had it before: it then still holds what it was subscribed with.
pub(crate) struct AccessGuard<'a> {
    key: &'a KeyGuard,
    names: [String; 3],
    is_new: bool,
}

impl AccessGuard<'_> {
    pub(crate) fn keep(mut self) {
        self.is_new = false;
    }
}

impl Drop for AccessGuard<'_> {
    fn drop(&mut self) {
        if self.is_new {
            let names = self.names.each_ref().map(String::as_str);
            self.key.store.tables().access.end(&self.key.digest, names);
            self.key.store.tokens_changed.send_replace(());
        }
    }
}

fn lacks(extension: &str, grant: Grant) -> Status {
    Status::permission_denied(format!(
        "the extension `{extension}` was not granted `{grant}`, which this requires"
    ))
}

pub(crate) fn not_subscribed_in(namespace: &str, extension: &str) -> Status {
    Status::permission_denied(format!(
        "no pipeline of the namespace `{namespace}` is subscribed to the extension `{extension}`"
    ))
}

pub(crate) fn unknown_token() -> Status {
    Status::unauthenticated("unknown token; create one with CreateToken")
}

#[cfg(test)]
mod tests;
