//! Secrets: texts under a key, of a pipeline or of the whole core. They are encrypted on disk, and
//! never part of an event or an error.

use std::collections::BTreeMap;

use tonic::Status;

use super::patterns::Patterns;
use super::{By, Needs, Store, Tables, check_name, or_default};
use crate::grants::Grant;
use gofer_proto::SecretStoreKey;

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
    fn secrets(&mut self, of: Holder<'_>) -> Result<&mut Secrets, Status> {
        self.secrets_if(of, Grant::ReadSecrets, Grant::GlobalSecrets)
    }

    /// To change them.
    fn secrets_mut(&mut self, of: Holder<'_>) -> Result<&mut Secrets, Status> {
        self.secrets_if(of, Grant::WriteSecrets, Grant::Everything)
    }

    /// With what an extension must have been granted for those of a pipeline, and for global ones.
    fn secrets_if(
        &mut self,
        of: Holder<'_>,
        own: Grant,
        global: Grant,
    ) -> Result<&mut Secrets, Status> {
        match of {
            Holder::Pipeline { namespace, pipeline, by } => {
                self.authorize(by, Needs::Secrets(namespace, pipeline, own))?;
                Ok(&mut self.pipeline_mut(namespace, pipeline)?.secrets)
            }
            Holder::Global { by } => {
                self.authorize(by, Needs::Management(global))?;
                Ok(&mut self.secrets)
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
        let mut tables = self.tables();
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
        self.tables().secrets_mut(of)?;
        check_name("secret's key", &key)?;
        let patterns = Patterns::new(&namespaces)?;
        let created = self.clock.unix_millis();
        let (namespace, pipeline) = match of {
            Holder::Pipeline { namespace, pipeline, .. } => (or_default(namespace), pipeline),
            Holder::Global { .. } => ("", ""),
        };
        let mut tables = self.tables();
        if tables.secrets_mut(of)?.contains_key(&key) && !force {
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
        // First, since it may fail: then nothing has changed.
        tables.journal.put_secret(&secret)?;
        tables.secrets_mut(of)?.insert(key, secret);
        Ok(())
    }

    pub(crate) fn delete_secret(&self, of: Holder<'_>, key: &str) -> Result<(), Status> {
        let mut tables = self.tables();
        let removed = tables.secrets_mut(of)?.remove(key).ok_or_else(|| no_secret(key))?;
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
