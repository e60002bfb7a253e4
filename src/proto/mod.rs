//! The wire contract: what a Gofer server and its extensions say to each other.
//!
//! Everything here but [`FILE_DESCRIPTOR_SET`] is generated from the `.proto` files in `proto/`
//! and checked in, so that users of this crate need no `protoc` and run no code generation. The
//! test `tests/proto.rs` fails when the generated files and the `.proto` files disagree; after an
//! edit to a `.proto` file, `UPDATE_PROTO=1 cargo test --test proto` writes them anew.
//!
//! What holds throughout: times are Unix milliseconds, with 0 for what has not happened. An enum's
//! value 0 says that nothing is known. On the way to Gofer, an empty `namespace_id` means `default`.
//!
//! These types are plain data. What they mean to an extension, and the checks that they pass
//! before an author's code sees them, is deliberately elsewhere: in `server` on the way in and in
//! `client` on the way out.
//!
//! Messages that carry secrets (configuration, settings, variables, tokens, payloads) print them
//! with `Debug`. Do not log a message of this module as a whole.

#![allow(
    missing_docs,
    reason = "the contract documents what its names do not say; the generator adds undocumented items"
)]
#![allow(
    clippy::pedantic,
    reason = "the generated code is what prost and tonic write, not what we would"
)]

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, without comments.
///
/// This is what gRPC server reflection serves, so that tools such as `grpcurl` can call an
/// extension without having the `.proto` files.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("descriptor.bin");

// `include!` and not `mod`: the types belong to this very module, and rustfmt leaves the file alone,
// whose layout must stay as the generator wrote it.
include!("proto.rs");

/// What the embedded core offers beside Gofer's API, to the holders of the same tokens; no part of
/// the contract.
#[cfg(feature = "harness")]
pub mod embedded {
    include!("embedded.rs");
}
