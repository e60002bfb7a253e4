//! Hooks for `gofer-core`, which runs extensions inside its own process.
//!
//! **Internal.** `gofer-core` requires the exact version of this crate; anything here may change in
//! any release.

pub use crate::catch_panic::panic_message;
pub use crate::client::{
    ClientOptions, RUN_KEY, SCHEDULED_AT, close_client, error, meaning, new_client, pin, run_info,
    transport,
};
pub use crate::extension::{Field, Fields, is_secret_question, settings_of};
pub use crate::server::{
    PREFIX, SUBSCRIBED_AFTER, SUBSCRIPTION_AGE, SUBSCRIPTION_REPLACED, SUBSCRIPTION_SINCE, Signals,
    misdeclared, serve_embedded,
};
