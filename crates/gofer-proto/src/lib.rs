//! The gRPC contract of [Gofer](https://github.com/clintjedwards/gofer) 0.6.2, generated: what a
//! Gofer server and its extensions send each other.
//!
//! This crate is a part of [gofer-sdk](https://docs.rs/gofer-sdk) and follows the contract, not
//! semantic versioning. Authors of extensions find what they need of it in `gofer_sdk::api`.
//!
//! - [`contract`]: the messages, and the clients of both services. Re-exported at the root.
//! - [`server`]: the traits and services for servers.
//! - [`embedded`]: the services that the embedded core offers in addition to Gofer's API, and the
//!   SDK's extensions in addition to the contract.
//!
//! The code is generated from the workspace's `proto/` and checked in, so users need no `protoc`. A
//! test fails if the two disagree; `UPDATE_PROTO=1 cargo test -p gofer-proto` generates it again.
//!
//! Times are Unix milliseconds, and 0 if something has not happened. Value 0 of an enum means that
//! nothing is known. In requests to Gofer, an empty `namespace_id` means `default`.
//!
//! Messages that carry secrets (configuration, settings, variables, tokens, payloads) print them
//! with `Debug`. Do not log a message of this crate as a whole.
//!
//! ```
//! use gofer_proto::{GetRunRequest, prost::Message as _};
//!
//! let request = GetRunRequest { id: 7, ..GetRunRequest::default() };
//! let encoded = request.encode_to_vec();
//! assert_eq!(GetRunRequest::decode(&*encoded), Ok(request));
//! ```

#![allow(
    missing_docs,
    reason = "the contract documents what its names do not say; the generator adds undocumented items"
)]
#![allow(
    clippy::pedantic,
    reason = "the generated code is what prost and tonic write, not what we would"
)]

pub use contract::*;
pub use prost;
pub use tonic;

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, without comments.
///
/// This is what gRPC server reflection serves, so that tools such as `grpcurl` can call an
/// extension without having the `.proto` files.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("descriptor.bin");

/// The service `gofer_sdk.embedded.ExtensionStatus`, in the same form.
pub const EXTENSION_STATUS_DESCRIPTOR_SET: &[u8] = include_bytes!("extension_status.bin");

// `include!` and not files of these names, since rustfmt would change what the generator wrote.

/// The messages of the contract, and the clients of its services.
pub mod contract {
    include!("contract.rs");
}

/// The servers of the contract's services.
pub mod server {
    include!("server.rs");
}

/// What the embedded core and the SDK's extensions offer in addition; not part of the contract.
pub mod embedded {
    include!("embedded.rs");
}
