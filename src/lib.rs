//! Write extensions for [Gofer](https://github.com/clintjedwards/gofer): implement one trait, get a
//! well-behaved gRPC service.
//!
//! Gofer runs pipelines of containers. An *extension* is a long-running container that acts for
//! pipelines: a pipeline subscribes to it with parameters, and the extension asks Gofer to run that
//! pipeline when it is time. This is a complete one:
//!
//! ```
//! use gofer_sdk::{
//!     Error, Extension, GoDuration, Gofer, NoConfig, Result, RunError, Subscription,
//! };
//!
//! /// What a pipeline sets when it subscribes.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Params {
//!     /// The time between two runs, such as `5m` or `1h30m`.
//!     every: GoDuration,
//! }
//!
//! struct Every;
//!
//! impl Extension for Every {
//!     type Config = NoConfig;
//!     type Params = Params;
//!
//!     async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     // Checked before Gofer subscribes the pipeline.
//!     fn validate(&self, params: &Params) -> Result<()> {
//!         if params.every < GoDuration::from_secs(1) {
//!             return Err(Error::invalid_parameter("every", "must be at least 1s"));
//!         }
//!         Ok(())
//!     }
//!
//!     async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
//!         let mut ticks = subscription.every(subscription.params().every)?;
//!         while let Some(tick) = ticks.next().await {
//!             subscription.start_run(tick.run("the time has come")).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn program() {
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), RunError> {
//!     gofer_sdk::run::<Every>().await
//! }
//! # }
//! # mod doctest { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
//! # tokio::runtime::Builder::new_current_thread()
//! #     .enable_all().start_paused(true).build().unwrap()
//! #     .block_on(async {
//! #         use gofer_core::{Core, NO_SETTINGS, hours};
//! #         let gofer = Core::in_memory().await.unwrap();
//! #         let every = gofer.install::<Every>("every", NO_SETTINGS).await.unwrap();
//! #         every.subscribe("ops/nightly", "docs", [("every", "1h30m")]).await.unwrap();
//! #         gofer.elapse(hours(3)).await;
//! #         assert_eq!(gofer.runs("ops/nightly").len(), 2);
//! #         doctest::restarts_and_unsubscribes(&gofer, &every).await.unwrap();
//! #     });
//! ```
//!
//! # Is this for me?
//!
//! Yes, if you run [Gofer](https://github.com/clintjedwards/gofer) 0.6.2 and want something of
//! yours to start its pipelines: a timer, a webhook, a queue. The program is a container that Gofer
//! starts and talks to over gRPC; this crate does everything but your part of it. No, if you want
//! to write pipelines, or to embed a Gofer in a program: that is
//! [`gofer-core`](https://docs.rs/gofer-core), which is also what extensions are tested with, as
//! the example above is.
//!
//! # Where to look
//!
//! - Guides: [writing an extension](guide::authors) and [operating a
//!   core](https://docs.rs/gofer-core/latest/gofer_core/guide/operating/index.html).
//! - [`Extension`] is the trait that an author implements. Its methods use [`Subscription`],
//!   [`Ticks`], [`Dialogue`] and [`ExternalEvent`] and return an [`Error`]; its settings are
//!   [`Declared`] as structs, with [`GoDuration`] for durations, [`Secret`] for secrets, and
//!   [`Parsed`] for whatever else is parsed from text.
//! - [`run`] runs an extension that Gofer starts; [`Server`] is for programs with their own
//!   runtime, listener, [`Limits`] or way to stop.
//! - [`Gofer`] is the client for Gofer's API, also for programs that are not extensions:
//!   [`Gofer::builder`].
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `api` | the module `api`: Gofer's whole API as generated from the contract, with tonic and prost. It may change in any release |
//! | `cron` | `Cron`, a [`Schedule`] by the wall clock such as `30 2 * * * *`, and `TimeZone`, a setting; the IANA database of time zones is then part of the program |
//! | `metrics` | [what an extension counts](guide::authors#metrics), such as ticks and runs, for an exporter that the program installs; on the facade of the crate [`metrics`](https://docs.rs/metrics) |
//! | `reflection` | gRPC server reflection, for tools such as grpcurl; it needs the token like every other call |
//!
//! The public API uses types of other crates: [`http`] (in [`ExternalEvent`]) and [`Bytes`], both
//! re-exported here. Settings derive `serde::Deserialize` and `schemars::JsonSchema`.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The guide: how to write an extension.
#[cfg(doc)]
pub mod guide {
    #[doc = include_str!("../docs/authors.md")]
    pub mod authors {}
}

#[cfg(feature = "api")]
#[cfg_attr(docsrs, doc(cfg(feature = "api")))]
pub mod api;
mod catch_panic;
mod client;
mod error;
mod extension;
#[doc(hidden)]
pub mod internal;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod server;

pub use bytes::Bytes;
pub use client::{
    Event, EventFilter, EventFollower, Events, Gofer, GoferAddress, GoferBuilder, InvalidAddress,
    Objects, PipelineId, Run, RunInfo, RunState, RunStatus, Secrets,
};
pub use error::{Error, ErrorKind, Result};
pub use extension::{
    Cancelled, Declared, Dialogue, Every, Extension, ExternalEvent, GoDuration,
    GoDurationRangeError, MissedTicks, NoConfig, NoParams, ParseGoDurationError, Parsed, Schedule,
    Secret, Subscription, Subscriptions, Tick, Ticks,
};
#[cfg(feature = "cron")]
#[cfg_attr(docsrs, doc(cfg(feature = "cron")))]
pub use extension::{Cron, ParseCronError, ParseTimeZoneError, TimeZone};
pub use http;
pub use server::{Limits, LogLevel, RunError, Server, SystemConfig, SystemConfigError, run};
