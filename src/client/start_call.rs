//! The call that starts a run of an extension, on the path of every tick.
//!
//! Its message is encoded once, however often it is sent; and both messages have buffers of about
//! their size, instead of the 8 KiB each that tonic's generated client reserves.

use bytes::{BufMut, Bytes};
use gofer_net::{MAX_RESPONSE_BYTES, SentOn};
use gofer_proto::{StartRunRequest, StartRunResponse};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::{Gofer, RunInfo};

/// A gRPC message begins with a byte and its length.
const PREFIX_BYTES: usize = 5;

/// A run with a few variables fits; the buffer grows if it has to. Blocks of a KiB and more are what
/// allocators take long for.
const RESPONSE_BYTES: usize = 960;

/// A request that may be sent several times.
#[derive(Clone)]
pub(super) struct StartCall(Bytes);

impl StartCall {
    pub(super) fn new(request: &StartRunRequest) -> Self {
        Self(request.encode_to_vec().into())
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
