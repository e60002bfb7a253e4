//! The changes of an operation, as records of a file.
//!
//! A record's key begins with the byte of its kind, so that reading the file in order gives
//! namespaces before their pipelines, and pipelines before what belongs to them. Its value is a
//! protobuf message, usually one of the API's.

#[cfg(feature = "store")]
mod read;

use std::sync::Arc;

use prost::Message;
use tonic::Status;

#[cfg(feature = "store")]
use super::file::VERSION;
use super::objects::Object;
use super::seal::Seal;
use super::secrets::Secret;
use super::subscriptions::Beginning;
use crate::launcher::Recorded;
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
    Config = 4,
    Run = 5,
    Subscription = 6,
    Registration = 7,
    Token = 8,
    Event = 9,
    Object = 10,
    Secret = 11,
    Launch = 12,
    Options = 13,
}

impl RecordKind {
    /// A key that is unique to these names and this number: each name is preceded by its length,
    /// and numbers sort by size.
    pub(super) fn key(self, names: &[&str], number: Option<i64>) -> Vec<u8> {
        let mut key = vec![self as u8];
        for name in names {
            // Names are far shorter than 4 GiB.
            key.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
            key.extend_from_slice(name.as_bytes());
        }
        if let Some(number) = number {
            key.extend(number.to_be_bytes());
        }
        key
    }
}

/// The changes of an operation, in order. Nothing is collected for a store in memory only.
pub(super) struct Journal {
    kept: bool,
    seal: Option<Arc<Seal>>,
    pub(super) writes: Vec<Write>,
}

/// A record that is put or, without a value, removed.
pub(super) struct Write {
    #[cfg_attr(not(feature = "store"), expect(dead_code, reason = "nothing is written"))]
    pub(super) key: Vec<u8>,
    #[cfg_attr(not(feature = "store"), expect(dead_code, reason = "nothing is written"))]
    pub(super) value: Option<Vec<u8>>,
}

impl Journal {
    /// Collects changes if there is a key to encrypt secrets with.
    pub(super) fn new(seal: Option<Arc<Seal>>) -> Self {
        Self { kept: seal.is_some(), seal, writes: Vec::new() }
    }

    fn write(
        &mut self,
        kind: RecordKind,
        names: &[&str],
        number: Option<i64>,
        value: Option<Vec<u8>>,
    ) {
        if self.kept {
            self.writes.push(Write { key: kind.key(names, number), value });
        }
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

    pub(super) fn put_config(&mut self, it: &proto::PipelineConfig) {
        self.put(RecordKind::Config, &[&it.namespace, &it.pipeline], Some(it.version), it);
    }

    pub(super) fn remove_config(&mut self, it: &proto::PipelineConfig) {
        self.write(RecordKind::Config, &[&it.namespace, &it.pipeline], Some(it.version), None);
    }

    pub(super) fn put_run(&mut self, it: &proto::Run) {
        self.put(RecordKind::Run, &[&it.namespace, &it.pipeline], Some(it.id), it);
    }

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
        self.writes.push(Write { key, value: Some(sealed) });
        Ok(())
    }

    pub(super) fn remove_registration(&mut self, name: &str) {
        self.write(RecordKind::Registration, &[name], None, None);
    }

    /// Together with the version of the file: programs that read only earlier ones know no options.
    pub(super) fn put_options(&mut self, name: &str, it: &ExtensionOptions) {
        if self.kept {
            #[cfg(feature = "store")]
            self.write(RecordKind::Version, &[], None, Some(VERSION.to_be_bytes().to_vec()));
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

    pub(super) fn put_event(&mut self, it: &proto::Event) {
        self.put(RecordKind::Event, &[], Some(it.id), it);
    }

    pub(super) fn remove_event(&mut self, id: i64) {
        self.write(RecordKind::Event, &[], Some(id), None);
    }

    pub(super) fn put_object(&mut self, it: &Object) {
        self.put(RecordKind::Object, &[&it.namespace, &it.pipeline, &it.key], Some(it.run), it);
    }

    pub(super) fn remove_object(&mut self, it: &Object) {
        self.write(RecordKind::Object, &[&it.namespace, &it.pipeline, &it.key], Some(it.run), None);
    }

    pub(super) fn put_secret(&mut self, it: &Secret) -> Result<(), Status> {
        let key = RecordKind::Secret.key(&[&it.namespace, &it.pipeline, &it.key], None);
        let Some(sealed) = self.sealed(&key, it.content.as_bytes())? else { return Ok(()) };
        let record = SealedSecret {
            namespace: it.namespace.clone(),
            pipeline: it.pipeline.clone(),
            key: it.key.clone(),
            namespaces: it.namespaces.clone(),
            created: it.created,
            sealed,
        };
        self.writes.push(Write { key, value: Some(record.encode_to_vec()) });
        Ok(())
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
            let key = [&[kind as u8], &digest[..]].concat();
            self.writes.push(Write { key, value });
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
