//! Gofer's API as generated from the contract, for calls that [`Gofer`](crate::Gofer) has no method
//! for.
//!
//! This module follows the contract of Gofer 0.6.2 and the versions of [`tonic`] and [`prost`] that
//! it is generated for; it may change in any release of this crate.

pub use gofer_net::Transport;
pub use gofer_proto::FILE_DESCRIPTOR_SET;
pub use gofer_proto::contract::*;
pub use {prost, tonic};
