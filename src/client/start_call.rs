//! The call that starts a run of an extension, on the path of every tick.
//!
//! Its message is encoded once, however often it is sent, and from what it is about rather than from a
//! copy of all its parts; and both messages have buffers of about
//! their size, instead of the 8 KiB each that tonic's generated client reserves.

use bytes::{BufMut, Bytes, BytesMut};
use gofer_net::{MAX_RESPONSE_BYTES, SentOn};
use gofer_proto::{self as proto, StartRunRequest, StartRunResponse};
use http::uri::PathAndQuery;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::run::Keyed;
use super::{Gofer, PipelineId, RunInfo};

/// A gRPC message begins with a byte and its length.
const PREFIX_BYTES: usize = 5;

/// A run with a few variables fits; the buffer grows if it has to. Blocks of a KiB and more are what
/// allocators take long for.
const RESPONSE_BYTES: usize = 960;

/// A request that may be sent several times.
#[derive(Clone)]
pub(super) struct StartCall(Bytes);

impl StartCall {
    /// Of the extension and its label.
    pub(super) fn new(extension: &str, label: &str, pipeline: &PipelineId, run: &Keyed) -> Self {
        // With the names of its fields and their lengths.
        let mut bytes = 128 + pipeline.namespace().len() + pipeline.pipeline().len();
        bytes += extension.len() + label.len() + run.reason.len();
        bytes += run.variables().map(|(name, value)| 16 + name.len() + value.len()).sum::<usize>();
        let mut request = BytesMut::with_capacity(bytes);
        // As `StartRunRequest` is encoded, without a copy of each part.
        put(&mut request, 1, &[pipeline.namespace()]);
        put(&mut request, 2, &[pipeline.pipeline()]);
        for (name, value) in run.variables() {
            put_message(&mut request, 3, |entry| {
                put(entry, 1, &[name]);
                put(entry, 2, &[value]);
            });
        }
        put_message(&mut request, 4, |initiator| {
            encode_key(1, WireType::Varint, initiator);
            encode_varint(INITIATOR as u64, initiator);
            put(initiator, 2, &[extension, " (", label, ")"]);
            put(initiator, 3, &[&run.reason]);
        });
        Self(request.freeze())
    }

    /// Sends it once. `sent_on` learns on which connection.
    pub(super) async fn send(
        &self,
        gofer: &Gofer,
        sent_on: Option<&SentOn>,
    ) -> Result<RunInfo, Status> {
        let mut request = Request::new(self.0.clone());
        if let Some(sent_on) = sent_on {
            request.extensions_mut().insert(sent_on.clone());
        }
        let path = PathAndQuery::from_static("/proto.Gofer/StartRun");
        let transport = gofer.inner.transport.clone();
        let mut grpc = Grpc::new(transport).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let response = grpc.unary(request, path, StartCodec(self.0.len())).await?;
        Ok(RunInfo::new(response.into_inner().run.unwrap_or_default()))
    }
}

const INITIATOR: proto::initiator::Type = proto::initiator::Type::Extension;

/// A string, from its parts.
fn put(message: &mut BytesMut, field: u32, parts: &[&str]) {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    // What is empty is left out.
    if bytes > 0 {
        encode_key(field, WireType::LengthDelimited, message);
        encode_varint(bytes as u64, message);
        for part in parts {
            message.put_slice(part.as_bytes());
        }
    }
}

/// A message within a message.
fn put_message(message: &mut BytesMut, field: u32, encode: impl Fn(&mut BytesMut)) {
    encode_key(field, WireType::LengthDelimited, message);
    let start = message.len();
    encode(message);
    let bytes = message.len() - start;
    // Its length is before it.
    let mut length = [0; 10];
    let mut rest = &mut length[..];
    encode_varint(bytes as u64, &mut rest);
    let left = rest.len();
    let length = &length[..10 - left];
    message.put_slice(length);
    message[start..].rotate_right(length.len());
}

/// For one request of this length.
#[derive(Clone, Copy)]
struct StartCodec(usize);

impl Codec for StartCodec {
    type Encode = Bytes;
    type Decode = StartRunResponse;
    type Encoder = Self;
    type Decoder = ProstDecoder<StartRunResponse>;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        let settings = BufferSettings::new(RESPONSE_BYTES, RESPONSE_BYTES);
        ProstCodec::<StartRunRequest, StartRunResponse>::raw_decoder(settings)
    }
}

impl Encoder for StartCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        let bytes = PREFIX_BYTES + self.0;
        BufferSettings::new(bytes, bytes)
    }
}

#[cfg(test)]
mod tests;
