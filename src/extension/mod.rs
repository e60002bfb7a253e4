//! What an author uses: the [`Extension`] trait and everything that its methods take and return.
//!
//! [`crate::server`] erases the trait and makes a gRPC service of it; [`crate::client`] makes calls
//! to Gofer.

mod alarms;
mod context;
mod declared;
mod decode;
mod describe;
mod dialogue;
mod external_event;
mod go_duration;
mod in_span;
mod key;
mod live;
mod none;
mod parsed;
mod resume;
mod schedule;
mod secret;
mod settings;
mod signal;
mod start;
mod subscription;
mod subscriptions;
#[cfg(test)]
mod tests;
mod ticks;
#[cfg(feature = "cron")]
mod time_zone;

pub use declared::Declared;
pub use dialogue::Dialogue;
pub use external_event::ExternalEvent;
pub use go_duration::{GoDuration, GoDurationRangeError, ParseGoDurationError};
pub use live::Cancelled;
pub use none::{NoConfig, NoParams};
pub use parsed::Parsed;
#[cfg(feature = "cron")]
pub use schedule::{Cron, ParseCronError};
pub use schedule::{Every, Schedule};
pub use secret::Secret;
pub use subscription::Subscription;
pub use subscriptions::Subscriptions;
pub use ticks::{MissedTicks, Tick, Ticks};
#[cfg(feature = "cron")]
pub use time_zone::{ParseTimeZoneError, TimeZone};

pub(crate) use context::Context;
pub use describe::{Field, Fields, is_secret_question, settings_of};

pub(crate) use declared::sealed::SealedDeclared;
pub(crate) use describe::markdown;
pub(crate) use dialogue::{AnswerSource, Check, DialogueMessage};
pub(crate) use in_span::{call_span, in_span};
pub(crate) use key::Key;
pub(crate) use live::{
    AnyLive, Beginning, Failure, LastError, Live, Standing, State, Warning, brief, log_panic,
};
pub(crate) use settings::Settings;
pub(crate) use start::for_event;
pub(crate) use ticks::NOTICED_WITHIN;

use std::borrow::Cow;
use std::future::Future;

use crate::client::{Gofer, PipelineId};
use crate::error::{Error, ErrorKind, Result};

/// An extension: its configuration, its parameters, and what it does for a subscription.
///
/// `Self` is the *initialized* extension: [`init`](Self::init) builds it from the administrator's
/// configuration, so methods that take `self` are called only after it. The documentation and the
/// two conversations, which must work earlier, take no `self`. Everything but `init` has a default.
///
/// ```
/// use gofer_sdk::{Error, Extension, GoDuration, Gofer, Result, Subscription};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// /// What the administrator sets at install time.
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// The shortest interval that a pipeline may ask for.
///     #[serde(default = "one_minute")]
///     min_interval: GoDuration,
/// }
///
/// fn one_minute() -> GoDuration {
///     GoDuration::from_mins(1)
/// }
///
/// /// What a pipeline sets when it subscribes.
/// #[derive(Deserialize, JsonSchema)]
/// struct Params {
///     /// The time between two runs, such as `5m` or `1h30m`.
///     every: GoDuration,
/// }
///
/// struct Interval {
///     min_interval: GoDuration,
/// }
///
/// impl Extension for Interval {
///     type Config = Config;
///     type Params = Params;
///
///     async fn init(config: Config, _gofer: Gofer) -> Result<Self> {
///         Ok(Self { min_interval: config.min_interval })
///     }
///
///     fn validate(&self, params: &Params) -> Result<()> {
///         if params.every < self.min_interval {
///             let message = format!("must be at least {}", self.min_interval);
///             return Err(Error::invalid_parameter("every", message));
///         }
///         Ok(())
///     }
///
///     async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
///         let mut ticks = subscription.every(subscription.params().every)?;
///         while let Some(tick) = ticks.next().await {
///             subscription.start_run(tick.run("the interval elapsed")).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extension",
    label = "this type does not implement `gofer_sdk::Extension`",
    note = "implement it: `impl gofer_sdk::Extension for {Self} {{ type Config = …; type Params = …; async fn init(…) … }}`"
)]
pub trait Extension: Sized + Send + Sync + 'static {
    /// What the administrator sets at install time; [`NoConfig`] for nothing.
    ///
    /// Names, doc comments, types and defaults of its fields become the documentation and the
    /// installer's questions.
    type Config: Declared;

    /// What a pipeline sets when it subscribes; [`NoParams`] for nothing. Its fields become the
    /// documentation and the configurator's questions.
    type Params: Declared;

    /// Builds the extension from the administrator's configuration.
    ///
    /// Called again only after it failed, never twice at once. The configuration has been decoded
    /// and checked against its declaration.
    ///
    /// Gofer starts its extensions before its own API listens: keep `gofer` for later, and make no
    /// calls with it here.
    ///
    /// The future is dropped if the extension is shut down before it completes. If the caller of
    /// Init leaves, it goes on, and the next caller gets its outcome.
    ///
    /// # Errors
    ///
    /// [`Error::invalid_configuration`] for a setting that is not acceptable, with
    /// [`and_configuration`](Error::and_configuration) for further ones: the administrator sees
    /// which and why. Any other error is returned to Gofer, which may try again; an
    /// [`Internal`](ErrorKind::Internal) error is only logged in full.
    fn init(config: Self::Config, gofer: Gofer) -> impl Future<Output = Result<Self>> + Send;

    /// Checks what the declaration alone cannot, before Subscribe is acknowledged. The default
    /// accepts everything.
    ///
    /// A refused subscription stays failed until it is enabled or subscribed again: refuse only
    /// what is wrong, not what is temporarily unavailable.
    ///
    /// # Errors
    ///
    /// [`Error::invalid_parameter`], with [`and_parameter`](Error::and_parameter) to report several
    /// at once.
    fn validate(&self, params: &Self::Params) -> Result<()> {
        let _ = params;
        Ok(())
    }

    /// Checks parameters together with the pipeline that subscribes, after
    /// [`validate`](Self::validate) and before Subscribe is acknowledged. The default accepts
    /// everything.
    ///
    /// # Errors
    ///
    /// As for [`validate`](Self::validate).
    ///
    /// ```
    /// use gofer_sdk::{Error, Extension, Gofer, NoConfig, PipelineId, Result};
    /// use schemars::JsonSchema;
    /// use serde::Deserialize;
    ///
    /// /// What a pipeline sets when it subscribes.
    /// #[derive(Deserialize, JsonSchema)]
    /// struct Params {
    ///     /// The pipeline that this one follows.
    ///     after: String,
    /// }
    ///
    /// struct Chain;
    ///
    /// impl Extension for Chain {
    ///     type Config = NoConfig;
    ///     type Params = Params;
    ///
    ///     async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
    ///         Ok(Self)
    ///     }
    ///
    ///     fn validate_for(&self, pipeline: &PipelineId, params: &Params) -> Result<()> {
    ///         if *pipeline == PipelineId::from(&*params.after) {
    ///             return Err(Error::invalid_parameter("after", "must be another pipeline"));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// # let core = gofer_core::Core::in_memory().await?;
    /// # let chain = core.install::<Chain>("chain", gofer_core::NO_SETTINGS).await?;
    /// # chain.subscribe("ops/a", "l", [("after", "ops/b")]).await?;
    /// # let refused = chain.subscribe("ops/b", "l", [("after", "ops/b")]).await.unwrap_err();
    /// # assert!(refused.to_string().contains("must be another pipeline"), "{refused}");
    /// # Ok(()) }
    /// ```
    fn validate_for(&self, pipeline: &PipelineId, params: &Self::Params) -> Result<()> {
        let _ = (pipeline, params);
        Ok(())
    }

    /// The life of one subscription; the default waits for its end.
    ///
    /// Called after [`validate`](Self::validate) has passed. Unsubscribe, Shutdown and a
    /// subscription with changed parameters [cancel](Subscription::cancelled) it; after a grace
    /// period it is dropped. For one subscription at most one such future exists at any time.
    ///
    /// `Ok` means that there is nothing more to do for the subscription. What was
    /// [spawned](Subscription::spawn) before goes on.
    ///
    /// The future is dropped if it has not completed when the grace period is over, or if the
    /// server's is. What was spawned is dropped with it.
    ///
    /// # Errors
    ///
    /// An error, or a panic, is logged, shown in the extension's documentation, and reported by the
    /// health service `subscriptions`. `serve` is called again after a delay that grows from 1 s to
    /// 5 min; if it has got a tick, at its next one at the latest, but not within 1 s.
    fn serve(
        &self,
        subscription: Subscription<Self::Params>,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            subscription.cancelled().await;
            Ok(())
        }
    }

    /// Handles an HTTP request that Gofer received for this extension, a webhook mostly. The default
    /// refuses all.
    ///
    /// `subscriptions` are those that are live: each is among them before its Subscribe is
    /// acknowledged. Start the runs here, before this returns, and fail if one could not be started:
    /// then no event that was answered with success is without its runs. See [the
    /// guide](crate::guide::authors#webhooks).
    ///
    /// A run that is not stored within 5 s fails to start, with
    /// [`Unavailable`](ErrorKind::Unavailable): the sender is waiting, and can send the event again.
    ///
    /// It runs in a task of its own, which goes on if Gofer no longer waits for it. At most
    /// [`Limits::external_events`](crate::Limits::external_events) do at a time. No event is accepted
    /// once the extension shuts down; what is under way has as long as [`shutdown`](Self::shutdown)
    /// has, and is then dropped.
    ///
    /// # Errors
    ///
    /// Gofer responds to the sender with 200 if this succeeds and 500 if it fails. An embedded core
    /// responds with 400 for [`InvalidParameter`](ErrorKind::InvalidParameter), 401 for
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), 404 for [`NotFound`](ErrorKind::NotFound),
    /// 501 for [`Unimplemented`](ErrorKind::Unimplemented), 503 for
    /// [`Unavailable`](ErrorKind::Unavailable), and 500 for all others. The message is logged, and not
    /// passed on to the sender.
    fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<Self::Params>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (event, subscriptions);
        async {
            Err(Error::new(
                ErrorKind::Unimplemented,
                "this extension does not accept external events",
            ))
        }
    }

    /// Cleans up before the process ends, after all subscriptions have ended; the default does
    /// nothing.
    ///
    /// Called exactly once for each extension that [`init`](Self::init) returned, whatever asks for
    /// the end, and however often; not if a second signal demands an immediate end, or if the
    /// server's future is dropped.
    ///
    /// The future is dropped if it has not completed after
    /// [`Limits::stop_grace`](crate::Limits::stop_grace).
    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// What the extension is for, in Markdown, or a link to it.
    ///
    /// Info shows it, followed by two lists that the SDK makes: the settings of the configuration
    /// and the parameters.
    fn documentation() -> Cow<'static, str> {
        Cow::Borrowed("")
    }

    /// The conversation with the administrator who installs the extension. The default asks for
    /// each setting of [`Config`](Self::Config).
    ///
    /// The future is dropped if the caller leaves or the extension shuts down.
    ///
    /// # Errors
    ///
    /// An error ends the conversation and is returned to the caller, except
    /// [`Cancelled`](ErrorKind::Cancelled), with which a [`Dialogue`] reports that the caller left.
    fn install(dialogue: &mut Dialogue) -> impl Future<Output = Result<()>> + Send {
        async move { dialogue.ask_for::<Self::Config>().await }
    }

    /// The conversation with the owner of a pipeline who subscribes it. The default asks for each
    /// parameter of [`Params`](Self::Params), and if the extension is initialized, checks the
    /// answers with [`validate`](Self::validate).
    ///
    /// The future is dropped as that of [`install`](Self::install) is.
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install).
    fn configure(dialogue: &mut Dialogue) -> impl Future<Output = Result<()>> + Send {
        async move { dialogue.ask_for::<Self::Params>().await }
    }
}
