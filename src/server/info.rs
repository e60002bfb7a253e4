//! Info: what the extension is, its subscriptions, which of them are failing, and whether Gofer's
//! API answers.
//!
//! Separate from `service` and its generated types because the list of subscriptions is kept as it
//! goes over the wire (see `listing`), and tonic's codec would need a `String` for each of them.

use std::fmt::Write as _;

use bytes::BufMut;
use gofer_net::Outage;
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use super::lifecycle::Lifecycle;
use super::listing::Snapshot;
use gofer_proto::{ExtensionInfoRequest, ExtensionInfoResponse};

/// A response to Info.
pub(super) struct Info {
    /// Everything but the list.
    head: ExtensionInfoResponse,
    list: Snapshot,
}

impl Info {
    /// The author's documentation, the declared settings, an outage of Gofer's API, and the
    /// subscriptions that are failing at the moment.
    pub(super) fn of(name: &str, lifecycle: &Lifecycle) -> Self {
        let mut documentation = lifecycle.definition.documentation().to_owned();
        if let Some(Outage { began, reason, .. }) = lifecycle.outage() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                documentation,
                "\n## Calls to Gofer fail\n\nSince {}: {reason}",
                humantime::format_rfc3339_seconds(began),
            );
        }
        if *lifecycle.failing().borrow() > 0 {
            documentation.push_str("\n## Failing subscriptions\n\n");
            for line in lifecycle.registry.failing() {
                documentation.push_str("- ");
                documentation.push_str(&line);
                documentation.push('\n');
            }
        }
        let list = lifecycle.registry.list();
        if list.omitted > 0 {
            let (listed, all) = (list.listed, list.listed + list.omitted);
            // Writing to a String cannot fail.
            let _ = writeln!(
                documentation,
                "\nThe list of subscriptions was cut: it shows {listed} of {all}."
            );
        }
        let name = name.to_owned();
        Self { head: ExtensionInfoResponse { name, documentation, registered: Vec::new() }, list }
    }

    fn len(&self) -> usize {
        self.head.encoded_len() + self.list.encoded.len()
    }

    fn encode(&self, buffer: &mut impl BufMut) {
        self.head.encode_raw(buffer);
        // Protobuf fields may come in any order, and repeated ones in parts.
        buffer.put_slice(&self.list.encoded);
    }
}

/// The message as the generated type.
impl From<Info> for ExtensionInfoResponse {
    fn from(Info { head, list }: Info) -> Self {
        // We encoded it ourselves, so it decodes.
        let list = Self::decode(list.encoded.as_slice()).unwrap_or_default();
        Self { registered: list.registered, ..head }
    }
}

/// Encodes [`Info`] as an `ExtensionInfoResponse`.
#[derive(Default)]
pub(super) struct InfoCodec;

impl Codec for InfoCodec {
    type Encode = Info;
    type Decode = ExtensionInfoRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<ExtensionInfoRequest>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for InfoCodec {
    type Item = Info;
    type Error = Status;

    fn encode(&mut self, info: Info, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(info.len());
        info.encode(buffer);
        Ok(())
    }
}
