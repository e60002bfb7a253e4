//! The changes of an operation, as records of a file.
//!
//! A record's key begins with the byte of its kind, so that reading what is alive in order gives
//! namespaces before their pipelines, and pipelines before what belongs to them. Its value is a
//! protobuf message, usually one of the API's.

#[cfg(feature = "store")]
mod read;

use std::sync::Arc;

use prost::Message;
use tonic::Status;

use super::history::{History, StoredRun};
use super::run_keys::RunKey;
use super::seal::Seal;
use super::secrets::Secret;
use super::subscriptions::Beginning;
use super::usage::Usage;
use crate::launcher::Recorded;
use bytes::Bytes;
use gofer_proto as proto;
use gofer_proto::embedded::ExtensionOptions;

#[cfg(feature = "store")]
pub(super) use read::{Record, decode};

/// The kind of a record. The numbers are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    #[cfg(feature = "store")]
    Version = 0,
    Flags = 1,
    Namespace = 2,
    Pipeline = 3,
    /// Alive: the live one. In the history: those before it.
    Config = 4,
    /// Alive: one that is not complete. In the history: those that are.
    Run = 5,
    Subscription = 6,
    Registration = 7,
    Token = 8,
    /// In the history.
    Event = 9,
    /// Of earlier versions: with its content.
    #[cfg(feature = "store")]
    Object = 10,
    Secret = 11,
    Launch = 12,
    Options = 13,
    Usage = 14,
    /// In the history.
    ObjectInfo = 15,
    /// In the history.
    ObjectContent = 16,
    /// In the history: the run that has this key.
    RunKey = 17,
}

impl RecordKind {
    /// A key that is unique to these names and this number: each name is preceded by its length,
    /// and numbers sort by size.
    pub(super) fn key(self, names: &[&str], number: Option<i64>) -> Vec<u8> {
        let mut key = vec![self as u8];
        for name in names {
            push_name(&mut key, name);
        }
        if let Some(number) = number {
            key.extend(number.to_be_bytes());
        }
        key
    }
}

pub(super) fn push_name(key: &mut Vec<u8>, name: &str) {
    // Names are far shorter than 4 GiB.
    key.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
}

/// The changes of an operation, in order. Nothing is collected for a store in memory only, whose
/// history is in memory too.
pub(super) struct Journal {
    kept: bool,
    seal: Option<Arc<Seal>>,
    history: Arc<History>,
    pub(super) writes: Vec<Write>,
}

/// A record that is put or, without a value, removed.
#[cfg_attr(not(feature = "store"), expect(dead_code, reason = "nothing is written"))]
pub(super) struct Write {
    pub(super) of: Part,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Bytes>,
}

/// The part of the store that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Read when the file is opened, and held in memory.
    Alive,
    /// Read when it is asked for.
    History,
}

impl Journal {
    /// Collects changes if there is a key to encrypt secrets with.
    pub(super) fn new(seal: Option<Arc<Seal>>, history: Arc<History>) -> Self {
        Self { kept: seal.is_some(), seal, history, writes: Vec::new() }
    }

    #[cfg(feature = "store")]
    pub(super) fn seal(&self) -> Option<&Arc<Seal>> {
        self.seal.as_ref()
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.history
    }

    fn write(
        &mut self,
        kind: RecordKind,
        names: &[&str],
        number: Option<i64>,
        value: Option<Vec<u8>>,
    ) {
        if self.kept {
            self.write_alive(kind.key(names, number), value);
        }
    }

    fn write_alive(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.push(Write { of: Part::Alive, key, value: value.map(Bytes::from) });
    }

    fn put(
        &mut self,
        kind: RecordKind,
        names: &[&str],
        number: Option<i64>,
        record: &impl Message,
    ) {
        if self.kept {
            self.write(kind, names, number, Some(record.encode_to_vec()));
        }
    }

    /// Adds a record to the history, or removes one.
    pub(super) fn write_history(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        if self.kept {
            self.history.set(key.clone(), value.clone());
            self.writes.push(Write { of: Part::History, key, value });
        } else {
            self.history.set(key, value);
        }
    }

    pub(super) fn put_flags(&mut self, flags: Flags) {
        self.write(
            RecordKind::Flags,
            &[],
            None,
            Some(vec![flags.bootstrapped.into(), flags.ignores_runs.into()]),
        );
    }

    pub(super) fn put_namespace(&mut self, it: &proto::Namespace) {
        self.put(RecordKind::Namespace, &[&it.id], None, it);
    }

    pub(super) fn remove_namespace(&mut self, id: &str) {
        self.write(RecordKind::Namespace, &[id], None, None);
    }

    pub(super) fn put_pipeline(&mut self, it: &proto::PipelineMetadata) {
        self.put(RecordKind::Pipeline, &[&it.namespace, &it.id], None, it);
    }

    pub(super) fn remove_pipeline(&mut self, namespace: &str, id: &str) {
        self.write(RecordKind::Pipeline, &[namespace, id], None, None);
    }

    pub(super) fn put_usage(&mut self, of: &proto::PipelineMetadata, it: &Usage) {
        self.put(RecordKind::Usage, &[&of.namespace, &of.id], None, it);
    }

    pub(super) fn remove_usage(&mut self, of: &proto::PipelineMetadata) {
        self.write(RecordKind::Usage, &[&of.namespace, &of.id], None, None);
    }

    /// Puts the live one.
    pub(super) fn put_config(&mut self, it: &proto::PipelineConfig) {
        self.put(RecordKind::Config, &[&it.namespace, &it.pipeline], None, it);
    }

    pub(super) fn remove_config(&mut self, it: &proto::PipelineConfig) {
        self.write(RecordKind::Config, &[&it.namespace, &it.pipeline], None, None);
    }

    /// Puts one that is not complete.
    pub(super) fn put_run(&mut self, it: &proto::Run, key: Option<RunKey>) {
        if self.kept {
            let value = StoredRun::encode(it, key);
            let names = [&*it.namespace, &it.pipeline];
            self.write(RecordKind::Run, &names, Some(it.id), Some(value));
        }
    }

    /// Removes one that was not complete.
    pub(super) fn remove_run(&mut self, it: &proto::Run) {
        self.write(RecordKind::Run, &[&it.namespace, &it.pipeline], Some(it.id), None);
    }

    pub(super) fn put_subscription(
        &mut self,
        it: &proto::PipelineExtensionSubscription,
        beginning: Option<Beginning>,
    ) {
        let names = [&*it.namespace, &it.pipeline, &it.name, &it.label];
        if self.kept {
            let mut record = it.encode_to_vec();
            record.extend(StoredBeside { beginning }.encode_to_vec());
            self.write(RecordKind::Subscription, &names, None, Some(record));
        }
    }

    pub(super) fn remove_subscription(&mut self, it: &proto::PipelineExtensionSubscription) {
        let names = [&*it.namespace, &it.pipeline, &it.name, &it.label];
        self.write(RecordKind::Subscription, &names, None, None);
    }

    /// Encrypted as a whole, since it holds a registry's password and the configuration.
    pub(super) fn put_registration(
        &mut self,
        it: &proto::ExtensionRegistration,
    ) -> Result<(), Status> {
        let key = RecordKind::Registration.key(&[&it.name], None);
        let Some(sealed) = self.sealed(&key, &it.encode_to_vec())? else { return Ok(()) };
        self.write_alive(key, Some(sealed));
        Ok(())
    }

    pub(super) fn remove_registration(&mut self, name: &str) {
        self.write(RecordKind::Registration, &[name], None, None);
    }

    pub(super) fn put_options(&mut self, name: &str, it: &ExtensionOptions) {
        if self.kept {
            let record = StoredOptions { name: name.to_owned(), options: Some(it.clone()) };
            self.put(RecordKind::Options, &[name], None, &record);
        }
    }

    pub(super) fn remove_options(&mut self, name: &str) {
        self.write(RecordKind::Options, &[name], None, None);
    }

    pub(super) fn put_token(&mut self, digest: &[u8; 32], it: &proto::Token) {
        if self.kept {
            self.digest(RecordKind::Token, digest, Some(it.encode_to_vec()));
        }
    }

    pub(super) fn remove_token(&mut self, digest: &[u8; 32]) {
        self.digest(RecordKind::Token, digest, None);
    }

    /// The record of a secret; `None` for a store in memory only.
    pub(super) fn sealed_secret(&self, it: &Secret) -> Result<Option<SealedRecord>, Status> {
        let key = RecordKind::Secret.key(&[&it.namespace, &it.pipeline, &it.key], None);
        let Some(sealed) = self.sealed(&key, it.content.as_bytes())? else { return Ok(None) };
        let record = SealedSecret {
            namespace: it.namespace.clone(),
            pipeline: it.pipeline.clone(),
            key: it.key.clone(),
            namespaces: it.namespaces.clone(),
            created: it.created,
            sealed,
        };
        Ok(Some(SealedRecord(key, record)))
    }

    pub(super) fn put_secret(&mut self, sealed: Option<SealedRecord>) {
        if let Some(SealedRecord(key, record)) = sealed {
            self.write_alive(key, Some(record.encode_to_vec()));
        }
    }

    /// Encrypted for its place; `None` for a store in memory only.
    fn sealed(&self, place: &[u8], content: &[u8]) -> Result<Option<Vec<u8>>, Status> {
        let Some(seal) = &self.seal else { return Ok(None) };
        let sealed = seal.seal(place, content);
        sealed.map(Some).ok_or_else(|| Status::internal("a secret cannot be encrypted"))
    }

    pub(super) fn put_launch(&mut self, it: &Recorded) {
        let record = StoredLaunch { is_container: it.is_container, owner: it.owner.clone() };
        self.digest(RecordKind::Launch, &it.digest, Some(record.encode_to_vec()));
    }

    pub(super) fn remove_launch(&mut self, digest: &[u8; 32]) {
        self.digest(RecordKind::Launch, digest, None);
    }

    fn digest(&mut self, kind: RecordKind, digest: &[u8; 32], value: Option<Vec<u8>>) {
        if self.kept {
            self.write_alive([&[kind as u8], &digest[..]].concat(), value);
        }
    }

    pub(super) fn remove_secret(&mut self, it: &Secret) {
        self.write(RecordKind::Secret, &[&it.namespace, &it.pipeline, &it.key], None, None);
    }
}

/// The options of an extension as stored on disk.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredOptions {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    options: Option<ExtensionOptions>,
}

/// What the record of a subscription holds besides the API's message, whose fields have other
/// numbers: programs that read only that skip it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StoredBeside {
    #[prost(message, optional, tag = "1001")]
    beginning: Option<Beginning>,
}

/// A secret with the key of its record.
pub(super) struct SealedRecord(Vec<u8>, SealedSecret);

/// What is stored of a launch besides the digest of its key. Earlier versions stored nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredLaunch {
    #[prost(bool, optional, tag = "1")]
    is_container: Option<bool>,
    #[prost(string, tag = "2")]
    owner: String,
}

/// A secret as stored on disk.
#[derive(Clone, PartialEq, prost::Message)]
struct SealedSecret {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    pipeline: String,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(string, repeated, tag = "4")]
    namespaces: Vec<String>,
    #[prost(int64, tag = "5")]
    created: i64,
    #[prost(bytes = "vec", tag = "6")]
    sealed: Vec<u8>,
}

/// Switches of the whole core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// The first token, which can be made without one, has been made.
    pub(super) bootstrapped: bool,
    /// No runs are started at the moment.
    pub(super) ignores_runs: bool,
}
