//! Reading the records of what is alive.

use gofer_proto as proto;
use gofer_proto::embedded::ExtensionOptions;
use prost::Message;

use super::{Flags, RecordKind, SealedSecret, StoredBeside, StoredLaunch, StoredOptions};
use crate::launcher::Recorded;
use crate::store::history::StoredRun;
use crate::store::patterns::Patterns;
use crate::store::runs::UnfinishedRun;
use crate::store::seal::Seal;
use crate::store::secrets::Secret;
use crate::store::subscriptions::Beginning;
use crate::store::usage::Usage;

impl RecordKind {
    pub(in crate::store) fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Version,
            Self::Flags,
            Self::Namespace,
            Self::Pipeline,
            Self::Config,
            Self::Run,
            Self::Subscription,
            Self::Registration,
            Self::Token,
            Self::Event,
            Self::Object,
            Self::Secret,
            Self::Launch,
            Self::Options,
            Self::Usage,
            Self::ObjectInfo,
            Self::ObjectContent,
            Self::RunKey,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record that was read.
pub(in crate::store) enum Record {
    /// Checked when the file was opened.
    Version,
    Flags(Flags),
    Namespace(proto::Namespace),
    Pipeline(proto::PipelineMetadata),
    Config(proto::PipelineConfig),
    Run(UnfinishedRun),
    Subscription(proto::PipelineExtensionSubscription, Option<Beginning>),
    Registration(proto::ExtensionRegistration),
    Token([u8; 32], proto::Token),
    Secret(Secret),
    Launch(Recorded),
    Options(String, ExtensionOptions),
    /// With the namespace and the pipeline.
    Usage(String, String, Usage),
}

/// Decodes a record; `None` if it is malformed, or encrypted with another key.
pub(in crate::store) fn decode(key: &[u8], value: &[u8], seal: &Seal) -> Option<Record> {
    let (kind, rest) = key.split_first()?;
    Some(match RecordKind::of(*kind)? {
        RecordKind::Version => Record::Version,
        RecordKind::Flags => {
            let [bootstrapped, ignores_runs] = value else { return None };
            Record::Flags(Flags {
                bootstrapped: *bootstrapped != 0,
                ignores_runs: *ignores_runs != 0,
            })
        }
        RecordKind::Namespace => Record::Namespace(Message::decode(value).ok()?),
        RecordKind::Pipeline => Record::Pipeline(Message::decode(value).ok()?),
        RecordKind::Config => Record::Config(Message::decode(value).ok()?),
        RecordKind::Run => {
            let (run, key) = StoredRun::decode(value)?;
            Record::Run(UnfinishedRun { run, key })
        }
        RecordKind::Subscription => Record::Subscription(
            Message::decode(value).ok()?,
            StoredBeside::decode(value).ok()?.beginning,
        ),
        RecordKind::Registration => {
            let registration = seal.open(key, value)?;
            Record::Registration(Message::decode(&*registration).ok()?)
        }
        RecordKind::Token => Record::Token(rest.try_into().ok()?, Message::decode(value).ok()?),
        RecordKind::Launch => {
            let StoredLaunch { is_container, owner } = StoredLaunch::decode(value).ok()?;
            Record::Launch(Recorded { digest: rest.try_into().ok()?, is_container, owner })
        }
        RecordKind::Options => {
            let it = StoredOptions::decode(value).ok()?;
            Record::Options(it.name, it.options.unwrap_or_default())
        }
        RecordKind::Secret => {
            let it = SealedSecret::decode(value).ok()?;
            Record::Secret(Secret {
                content: String::from_utf8(seal.open(key, &it.sealed)?).ok()?,
                namespace: it.namespace,
                pipeline: it.pipeline,
                key: it.key,
                patterns: Patterns::restore(&it.namespaces),
                namespaces: it.namespaces,
                created: it.created,
            })
        }
        RecordKind::Usage => {
            let (namespace, rest) = split_name(rest)?;
            let (pipeline, _) = split_name(rest)?;
            Record::Usage(namespace, pipeline, Message::decode(value).ok()?)
        }
        // In the history.
        RecordKind::Event
        | RecordKind::Object
        | RecordKind::ObjectInfo
        | RecordKind::ObjectContent
        | RecordKind::RunKey => return None,
    })
}

/// The name that a part of a key begins with, and what follows.
fn split_name(key: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = key.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    Some((String::from_utf8(name.to_vec()).ok()?, rest))
}
