//! The embedded core from outside: its API over real TLS, its store, and its supervision of
//! extensions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a panic is a failed test"
)]

mod caller;
#[path = "../../../../tests/support/connection.rs"]
mod connection;
#[cfg(feature = "store")]
#[path = "../../../../tests/support/disk.rs"]
mod disk;
mod files;
#[path = "../../../../tests/support/log.rs"]
mod log;
mod metronome;
mod probe;

mod access;
mod allowed;
mod api;
mod authorization;
#[cfg(feature = "store")]
mod backup;
mod bootstrap;
mod clocks;
#[cfg(target_os = "linux")]
mod connections;
mod conversations;
mod dropped;
#[cfg(feature = "store")]
mod durable;
mod events;
#[cfg(feature = "store")]
mod failing_disk;
mod foreign;
mod health;
mod long_names;
mod options;
mod real_command_line;
mod references;
mod refusals;
mod restoring;
mod runs;
mod schedules;
mod streaming;
mod subscribed_anew;
mod subscription_states;
mod supervision;
mod ticks;
mod webhook_runs;
