//! The embedded core from outside: its API over real TLS, what it keeps, and the extensions that it
//! keeps up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what fails here fails a test"
)]

mod caller;
mod metronome;

mod api;
mod authorization;
#[cfg(feature = "store")]
mod durable;
mod events;
mod runs;
mod supervision;
