//! What the sections share: the processes under test, the baselines, the client that loads both,
//! and the table.

pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod core;
pub(crate) mod cores;
/// The example, as it is shipped.
#[path = "../../../examples/cron/cron.rs"]
pub(crate) mod cron;
pub(crate) mod gofer;
pub(crate) mod identity;
/// The example, as it is shipped.
#[path = "../../../examples/interval/interval.rs"]
pub(crate) mod interval;
pub(crate) mod machine;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod roles;

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What the command line asks for.
pub(crate) struct Options {
    /// Small numbers: does it run at all?
    pub(crate) quick: bool,
}

impl Options {
    /// The full number, or the small one of a quick run.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The median; zero of nothing.
#[must_use]
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median, with the least and the most in brackets if there are several values.
#[must_use]
pub(crate) fn spread(values: &[f64], digits: usize, unit: &str) -> String {
    let [median, least, most] = [0.5, 0.0, 1.0].map(|part| quantile(values, part));
    if values.len() < 2 {
        return format!("{median:.digits$}{unit}");
    }
    format!("{median:.digits$}{unit} ({least:.digits$}–{most:.digits$})")
}

/// The value that this part of the values is below.
#[must_use]
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into what fits in memory"
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// For printing and dividing: counts here are far below 2^53, up to which this is exact.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or_default() as f64
}
