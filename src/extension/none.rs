//! What an extension declares where it has nothing to be set.

use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of an extension that has none.
///
/// Every key that an administrator sets is refused, so that a setting which
/// nobody reads is noticed at install time.
///
/// ```
/// use gofer_sdk::NoConfig;
///
/// /// An extension writes `type Config = NoConfig;` and gets one in `init`.
/// fn init(config: NoConfig) {
///     let NoConfig {} = config;
/// }
/// # init(NoConfig::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub struct NoConfig {}

/// The parameters of an extension whose pipelines have nothing to set.
///
/// Every key that a pipeline sets is refused, so that a parameter which
/// nobody reads is noticed when the pipeline subscribes.
///
/// ```
/// use gofer_sdk::NoParams;
///
/// /// An extension writes `type Params = NoParams;`.
/// fn serve(params: NoParams) {
///     let NoParams {} = params;
/// }
/// # serve(NoParams::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub struct NoParams {}
