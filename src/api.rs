//! Gofer's API as generated from the contract, for calls for which [`Gofer`](crate::Gofer) has no
//! method: messages, the client, and what it needs of [`tonic`] and [`prost`].
//!
//! This module follows the contract of Gofer 0.6.2 and the versions of tonic and prost that it is
//! generated for, and not semver: any release of this crate may change it. The services that Gofer
//! and an extension implement are not part of it.

pub use gofer_net::Transport;
pub use gofer_proto::FILE_DESCRIPTOR_SET;
pub use gofer_proto::contract::*;
pub use {prost, tonic};
