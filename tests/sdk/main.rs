//! The SDK from outside: an extension that serves over TLS, and the client, with a Gofer that
//! answers as a test decides.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "what fails here fails a test"
)]

#[path = "../support/authors.rs"]
mod authors;
#[path = "../support/mod.rs"]
mod support;

mod auth;
mod chaos;
mod conversations;
mod dropped;
mod external_events;
mod follow;
mod gofer_client;
mod in_memory;
mod lifecycle;
mod lost_answers;
mod misbehaving_author;
mod observability;
mod outages;
mod own_client;
mod parameters;
mod stand_in;
mod starts;
mod subscription_states;
mod subscriptions;
