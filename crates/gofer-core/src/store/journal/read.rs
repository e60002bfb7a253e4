//! How a record of a file is read.

use gofer_proto as proto;
use prost::Message;

use super::{Flags, Kind, SealedSecret};
use crate::store::objects::Object;
use crate::store::patterns::Patterns;
use crate::store::seal::Seal;
use crate::store::secrets::Secret;

impl Kind {
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
            Self::Start,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One record of a file that is read.
pub(in crate::store) enum Record {
    /// Checked when the file was opened.
    Version,
    Flags(Flags),
    Namespace(proto::Namespace),
    Pipeline(proto::PipelineMetadata),
    Config(proto::PipelineConfig),
    Run(proto::Run),
    Subscription(proto::PipelineExtensionSubscription),
    Registration(proto::ExtensionRegistration),
    Token([u8; 32], proto::Token),
    Event(proto::Event),
    Object(Object),
    Secret(Secret),
    Start([u8; 32]),
}

/// A record, of its key and value; `None` where it is none, or sealed with
/// another key.
pub(in crate::store) fn decode(key: &[u8], value: &[u8], seal: &Seal) -> Option<Record> {
    let (kind, rest) = key.split_first()?;
    Some(match Kind::of(*kind)? {
        Kind::Version => Record::Version,
        Kind::Flags => {
            let [bootstrapped, ignores_runs] = value else { return None };
            Record::Flags(Flags {
                bootstrapped: *bootstrapped != 0,
                ignores_runs: *ignores_runs != 0,
            })
        }
        Kind::Namespace => Record::Namespace(Message::decode(value).ok()?),
        Kind::Pipeline => Record::Pipeline(Message::decode(value).ok()?),
        Kind::Config => Record::Config(Message::decode(value).ok()?),
        Kind::Run => Record::Run(Message::decode(value).ok()?),
        Kind::Subscription => Record::Subscription(Message::decode(value).ok()?),
        Kind::Registration => {
            let registration = seal.open(key, value)?;
            Record::Registration(Message::decode(&*registration).ok()?)
        }
        Kind::Token => Record::Token(rest.try_into().ok()?, Message::decode(value).ok()?),
        Kind::Event => Record::Event(Message::decode(value).ok()?),
        Kind::Object => Record::Object(Message::decode(value).ok()?),
        Kind::Start => Record::Start(rest.try_into().ok()?),
        Kind::Secret => {
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
