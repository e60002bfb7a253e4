//! Reading the records of a file.

use gofer_proto as proto;
use gofer_proto::embedded::ExtensionOptions;
use prost::Message;

use super::{Flags, RecordKind, SealedSecret, StoredBeside, StoredLaunch, StoredOptions};
use crate::launcher::Recorded;
use crate::store::objects::Object;
use crate::store::patterns::Patterns;
use crate::store::seal::Seal;
use crate::store::secrets::Secret;
use crate::store::subscriptions::Beginning;

impl RecordKind {
    fn of(byte: u8) -> Option<Self> {
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
    Run(proto::Run),
    Subscription(proto::PipelineExtensionSubscription, Option<Beginning>),
    Registration(proto::ExtensionRegistration),
    Token([u8; 32], proto::Token),
    Event(proto::Event),
    Object(Object),
    Secret(Secret),
    Launch(Recorded),
    Options(String, ExtensionOptions),
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
        RecordKind::Run => Record::Run(Message::decode(value).ok()?),
        RecordKind::Subscription => Record::Subscription(
            Message::decode(value).ok()?,
            StoredBeside::decode(value).ok()?.beginning,
        ),
        RecordKind::Registration => {
            let registration = seal.open(key, value)?;
            Record::Registration(Message::decode(&*registration).ok()?)
        }
        RecordKind::Token => Record::Token(rest.try_into().ok()?, Message::decode(value).ok()?),
        RecordKind::Event => Record::Event(Message::decode(value).ok()?),
        RecordKind::Object => Record::Object(Message::decode(value).ok()?),
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
    })
}
