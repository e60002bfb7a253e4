//! Secrets: texts under a key, of a pipeline or of the whole core. They are encrypted on disk, and
//! never part of an event or an error.

use std::collections::BTreeMap;

use tonic::Status;

use super::patterns::Patterns;
use super::usage::size;
use super::{By, Needs, Store, Tables, check_name, or_default};
use crate::grants::Grant;
use gofer_proto::SecretStoreKey;

/// Bytes of all global secrets.
const GLOBAL_SECRETS: u64 = 64 << 20;

/// The owner of secrets, and who asks for them.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    Pipeline {
        namespace: &'a str,
        pipeline: &'a str,
        by: &'a By,
    },
    /// The core. Each secret lists the namespaces that may use it.
    Global {
        by: &'a By,
    },
}

/// A secret as stored in memory.
#[derive(Clone)]
pub(super) struct Secret {
    /// Both are empty for a global secret.
    pub(super) namespace: String,
    pub(super) pipeline: String,
    pub(super) key: String,
    /// Patterns of the namespaces that may use a global secret.
    pub(super) namespaces: Vec<String>,
    /// The same, compiled.
    pub(super) patterns: Patterns,
    pub(super) created: i64,
    pub(super) content: String,
}

impl Secret {
    /// What it counts as.
    pub(super) fn size(&self) -> u64 {
        size(self.key.len() + self.content.len())
    }

    fn metadata(&self) -> SecretStoreKey {
        SecretStoreKey {
            key: self.key.clone(),
            namespaces: self.namespaces.clone(),
            created: self.created,
        }
    }
}

/// By their keys.
pub(super) type Secrets = BTreeMap<String, Secret>;

impl Tables {
    /// To read them.
    fn secrets(&self, of: Holder<'_>) -> Result<&Secrets, Status> {
        self.authorize_secrets(of, Grant::ReadSecrets, Grant::GlobalSecrets)?;
        match of {
            Holder::Pipeline { namespace, pipeline, .. } => {
                Ok(&self.pipeline(namespace, pipeline)?.secrets)
            }
            Holder::Global { .. } => Ok(&self.secrets),
        }
    }

    /// To change them.
    fn secrets_mut(&mut self, of: Holder<'_>) -> Result<&mut Secrets, Status> {
        self.authorize_secrets(of, Grant::WriteSecrets, Grant::Everything)?;
        match of {
            Holder::Pipeline { namespace, pipeline, .. } => {
                Ok(&mut self.pipeline_mut(namespace, pipeline)?.secrets)
            }
            Holder::Global { .. } => Ok(&mut self.secrets),
        }
    }

    /// With what an extension must have been granted for those of a pipeline, and for global ones.
    fn authorize_secrets(&self, of: Holder<'_>, own: Grant, global: Grant) -> Result<(), Status> {
        match of {
            Holder::Pipeline { namespace, pipeline, by } => {
                self.authorize(by, Needs::Secrets(namespace, pipeline, own))
            }
            Holder::Global { by } => self.authorize(by, Needs::Management(global)),
        }
    }

    /// Checks that there is room for a secret that replaces these bytes, and counts it.
    fn charge_secret(&mut self, of: Holder<'_>, replaced: u64, bytes: u64) -> Result<(), Status> {
        match of {
            Holder::Pipeline { namespace, .. } => {
                let table = self.namespace_mut(namespace)?;
                table.usage.check_content(or_default(namespace), replaced, bytes)?;
                table.usage.replace_live(replaced, bytes);
                Ok(())
            }
            Holder::Global { .. } => {
                let all: u64 = self.secrets.values().map(Secret::size).sum();
                if bytes <= replaced || all - replaced + bytes <= GLOBAL_SECRETS {
                    return Ok(());
                }
                Err(Status::resource_exhausted(format!(
                    "there is no room for {bytes} bytes more: the global secrets have {all} of at \
                     most {GLOBAL_SECRETS} bytes; delete some"
                )))
            }
        }
    }
}

impl Store {
    pub(crate) fn secret(
        &self,
        of: Holder<'_>,
        key: &str,
    ) -> Result<(SecretStoreKey, String), Status> {
        let tables = self.tables();
        let found = tables.secrets(of)?.get(key);
        found.map(|it| (it.metadata(), it.content.clone())).ok_or_else(|| no_secret(key))
    }

    /// By their keys.
    pub(crate) fn secrets(&self, of: Holder<'_>) -> Result<Vec<SecretStoreKey>, Status> {
        Ok(self.tables().secrets(of)?.values().map(Secret::metadata).collect())
    }

    pub(crate) fn put_secret(
        &self,
        of: Holder<'_>,
        key: String,
        content: String,
        namespaces: Vec<String>,
        force: bool,
    ) -> Result<(), Status> {
        // Here as well, so that it is refused for want of access and not for anything else.
        self.tables().authorize_secrets(of, Grant::WriteSecrets, Grant::Everything)?;
        check_name("secret's key", &key)?;
        let patterns = Patterns::new(&namespaces)?;
        let created = self.clock.unix_millis();
        let (namespace, pipeline) = match of {
            Holder::Pipeline { namespace, pipeline, .. } => (or_default(namespace), pipeline),
            Holder::Global { .. } => ("", ""),
        };
        let mut tables = self.change()?;
        let replaced = tables.secrets_mut(of)?.get(&key).map(Secret::size);
        if replaced.is_some() && !force {
            let why = format!("a secret `{key}` already exists; set `force` to replace it");
            return Err(Status::already_exists(why));
        }
        let secret = Secret {
            namespace: namespace.to_owned(),
            pipeline: pipeline.to_owned(),
            key: key.clone(),
            namespaces,
            patterns,
            created,
            content,
        };
        // First, since these may fail: then nothing has changed.
        let sealed = tables.journal.sealed_secret(&secret)?;
        tables.charge_secret(of, replaced.unwrap_or(0), secret.size())?;
        tables.journal.put_secret(sealed);
        tables.secrets_mut(of)?.insert(key, secret);
        Ok(())
    }

    pub(crate) fn delete_secret(&self, of: Holder<'_>, key: &str) -> Result<(), Status> {
        let mut tables = self.change()?;
        let removed = tables.secrets_mut(of)?.remove(key).ok_or_else(|| no_secret(key))?;
        tables.charge_secret(of, removed.size(), 0)?;
        tables.journal.remove_secret(&removed);
        Ok(())
    }

    /// The content of a global secret, if this namespace may use it.
    pub(crate) fn global_secret_for(&self, namespace: &str, key: &str) -> Option<String> {
        let tables = self.tables();
        let secret = tables.secrets.get(key)?;
        secret.patterns.matches(or_default(namespace)).then(|| secret.content.clone())
    }
}

fn no_secret(key: &str) -> Status {
    Status::not_found(format!("there is no secret `{key}`"))
}
