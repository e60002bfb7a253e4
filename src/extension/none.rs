//! What an extension declares if it has no settings.

use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of an extension that has none.
///
/// Every key is refused, so that a setting without effect is noticed at install time.
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

/// The parameters of an extension that has none.
///
/// Every key is refused, so that a parameter without effect is noticed when it is set.
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
