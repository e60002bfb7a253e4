//! The call that starts a run of an extension, on the path of every tick.
//!
//! Its message is encoded once, however often it is sent, and from what it is about rather than from a
//! copy of all its parts.

use std::thread::LocalKey;

use bytes::{BufMut, BytesMut};
use gofer_net::{AtRest, Framed, Job, Reused, SentOn, unreadable};
use gofer_proto::{self as proto, StartRunResponse};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::Status;

use super::run::Keyed;
use super::{Gofer, PipelineRef, RunInfo};

/// A request that may be sent several times.
#[derive(Clone)]
pub(super) struct StartCall(Framed);

impl StartCall {
    /// Of the extension and its label.
    pub(super) fn new(extension: &str, label: &str, of: PipelineRef<'_>, run: &Keyed) -> Self {
        // With the names of its fields and their lengths.
        let mut bytes = 128 + of.namespace.len() + of.pipeline.len();
        bytes += extension.len() + label.len() + run.reason.len();
        bytes += run.variables().map(|(name, value)| 16 + name.len() + value.len()).sum::<usize>();
        Self(Framed::new(bytes, |request| {
            // As `StartRunRequest` is encoded, without a copy of each part.
            put(request, 1, &[of.namespace]);
            put(request, 2, &[of.pipeline]);
            for (name, value) in run.variables() {
                put_message(request, 3, |entry| {
                    put(entry, 1, &[name]);
                    put(entry, 2, &[value]);
                });
            }
            put_message(request, 4, |initiator| {
                encode_key(1, WireType::Varint, initiator);
                encode_varint(INITIATOR as u64, initiator);
                put(initiator, 2, &[extension, " (", label, ")"]);
                put(initiator, 3, &[&run.reason]);
            });
        }))
    }

    /// Sends it once. `sent_on` learns on which connection.
    pub(super) fn send(&self, gofer: &Gofer, sent_on: Option<&SentOn>) -> Reused<Sending> {
        let (gofer, request) = (gofer.clone(), self.0.clone());
        Reused::new(Sending { gofer, request, sent_on: sent_on.cloned() })
    }
}

/// A call in flight. Its future is two kilobytes, which a start that waits for its turn does not hold:
/// during an outage, a million may wait, of which few are in flight at a time.
pub(super) struct Sending {
    gofer: Gofer,
    request: Framed,
    sent_on: Option<SentOn>,
}

thread_local! {
    static AT_REST: AtRest<Result<RunInfo, Status>> = const { AtRest::new() };
}

impl Job for Sending {
    type Output = Result<RunInfo, Status>;

    async fn run(job: Option<Self>) -> Self::Output {
        let Some(Self { gofer, request, sent_on }) = job else {
            return std::future::pending().await;
        };
        let transport = &gofer.inner.transport;
        let method = "/proto.Gofer/StartRun";
        let response = transport.unary(method, &request, sent_on.as_ref()).await?;
        let response = StartRunResponse::decode(response).map_err(|error| {
            unreadable(format!("the response of StartRun cannot be decoded: {error}"))
        })?;
        Ok(RunInfo::new(response.run.unwrap_or_default()))
    }

    fn at_rest() -> &'static LocalKey<AtRest<Self::Output>> {
        &AT_REST
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

#[cfg(test)]
mod tests;
