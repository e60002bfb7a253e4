//! What an author sees: the [`Extension`] trait and everything its methods
//! take and give.
//!
//! Nothing here knows of gRPC. The trait is erased and wrapped into a service
//! in [`crate::server`]; the way back to Gofer is [`crate::client`].

mod context;
mod declared;
mod decode;
mod describe;
mod dialogue;
mod external_event;
mod go_duration;
mod key;
mod live;
mod none;
mod resume;
mod settings;
mod signal;
mod start;
mod subscription;
mod ticks;

pub use declared::Declared;
pub use dialogue::Dialogue;
pub use external_event::ExternalEvent;
pub use go_duration::{GoDuration, GoDurationRangeError, ParseGoDurationError};
pub use none::{NoConfig, NoParams};
pub use subscription::Subscription;
pub use ticks::Ticks;

pub(crate) use context::Context;
pub use describe::{Setting, settings_of};

pub(crate) use declared::sealed::SealedDeclared;
pub(crate) use describe::{Fields, markdown};
pub(crate) use dialogue::{Answers, Check, DialogueMessage};
pub(crate) use key::Key;
pub(crate) use live::{Failure, Live, log_panic};
pub(crate) use settings::Settings;

use std::borrow::Cow;
use std::future::Future;

use crate::client::Gofer;
use crate::error::{Error, ErrorKind, Result};

/// An extension: what it asks of the administrator, what it asks of each
/// pipeline, and what it does for one subscription.
///
/// `Self` is the *initialized* extension: [`init`](Self::init) builds it from
/// the administrator's configuration, so no other method can be called before.
/// What must work earlier, the documentation and the two conversations, takes
/// no `self`. Everything but `init` has a default.
///
/// ```
/// use gofer_sdk::{Error, Extension, GoDuration, Gofer, Result, Run, Subscription};
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
///         while ticks.next().await {
///             subscription.start_run(Run::because("the interval elapsed")).await?;
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
    /// Names, doc comments, types and defaults of its fields become the
    /// documentation and the installer's questions.
    type Config: Declared;

    /// What a pipeline sets when it subscribes; [`NoParams`] for nothing.
    ///
    /// Names, doc comments, types and defaults of its fields become the
    /// documentation and the configurator's questions.
    type Params: Declared;

    /// Builds the extension from the administrator's configuration.
    ///
    /// Called once at a time, and again only after it failed. The configuration
    /// has been decoded and checked against its declaration.
    ///
    /// Gofer starts its extensions before its own API listens: keep `gofer` for
    /// later, and do not wait for an answer from it here.
    ///
    /// # Errors
    ///
    /// [`Error::invalid_configuration`] for a setting that is not acceptable:
    /// the administrator is told which one and why. Any other error is logged,
    /// and Gofer may try again.
    fn init(config: Self::Config, gofer: Gofer) -> impl Future<Output = Result<Self>> + Send;

    /// Checks what the declaration alone cannot, before Subscribe is
    /// acknowledged. The default accepts everything.
    ///
    /// A refused subscription is marked as failed until somebody subscribes
    /// again: refuse what is wrong, not what does not work at the moment.
    ///
    /// # Errors
    ///
    /// [`Error::invalid_parameter`], with
    /// [`and_parameter`](Error::and_parameter) to tell several at once.
    fn validate(&self, params: &Self::Params) -> Result<()> {
        let _ = params;
        Ok(())
    }

    /// The life of one subscription; the default waits for its end.
    ///
    /// Called once [`validate`](Self::validate) has passed. Unsubscribe,
    /// Shutdown and a subscription with changed parameters
    /// [cancel](Subscription::cancelled) it; after a grace it is dropped. For
    /// one subscription at most one such future exists at any time.
    ///
    /// `Ok` means that there is nothing more to do for the subscription.
    ///
    /// # Errors
    ///
    /// An error, or a panic, is logged, shown in Info and health, and `serve`
    /// is called again after a pause that grows from 1 s to 5 min.
    fn serve(
        &self,
        subscription: Subscription<Self::Params>,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            subscription.cancelled().await;
            Ok(())
        }
    }

    /// Handles an HTTP request that reached Gofer for this extension. The
    /// default refuses every one.
    ///
    /// # Errors
    ///
    /// Gofer answers the outside caller 200 where this succeeds and 500 where
    /// it fails.
    fn external_event(&self, event: ExternalEvent) -> impl Future<Output = Result<()>> + Send {
        let _ = event;
        async {
            Err(Error::new(
                ErrorKind::Unimplemented,
                "this extension does not take external events",
            ))
        }
    }

    /// Cleans up before the process ends, after all subscriptions have ended;
    /// the default does nothing. Dropped after
    /// [`Limits::stop_grace`](crate::Limits::stop_grace).
    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// What the extension is for, in Markdown, or a link to it.
    ///
    /// Info answers with it, followed by what the SDK writes itself: one list
    /// of the configuration's settings and one of the parameters.
    #[must_use]
    fn documentation() -> Cow<'static, str> {
        Cow::Borrowed("")
    }

    /// Holds the conversation with the administrator who installs the
    /// extension. The default asks for each setting of [`Config`](Self::Config).
    ///
    /// # Errors
    ///
    /// The conversation ends with the error's sentence;
    /// [`Cancelled`](ErrorKind::Cancelled), which [`Dialogue::ask`] gives when
    /// the other side hangs up, ends it cleanly.
    fn install(dialogue: &mut Dialogue) -> impl Future<Output = Result<()>> + Send {
        async move { dialogue.ask_for::<Self::Config>().await }
    }

    /// Holds the conversation with the owner of a pipeline who subscribes it.
    /// The default asks for each parameter of [`Params`](Self::Params), and
    /// where the extension is initialized checks the answers with
    /// [`validate`](Self::validate).
    ///
    /// # Errors
    ///
    /// As for [`install`](Self::install).
    fn configure(dialogue: &mut Dialogue) -> impl Future<Output = Result<()>> + Send {
        async move { dialogue.ask_for::<Self::Params>().await }
    }
}
