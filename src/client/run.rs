//! A run to be started, and the two variables with which an extension marks it.
//!
//! Both travel as variables of the run because every Gofer keeps those, and hands them back with
//! the run: whether a run has been started is answered by looking for its key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// The variable with a run's key.
pub const RUN_KEY: &str = "GOFER_EXTENSION_RUN_KEY";

/// The variable with the time that a run was scheduled for, in RFC 3339.
pub const SCHEDULED_AT: &str = "GOFER_EXTENSION_SCHEDULED_AT";

/// How the keys begin that are not an author's.
const OWN: &str = "gofer-sdk:";

/// How that of a tick begins. Its time follows.
const TICK: &str = "gofer-sdk:tick:";

/// The longest key of an author's, in bytes: a digest or a URL fits.
const MAX_KEY: usize = 256;

/// A run to be started: why, and with which variables.
///
/// ```
/// use gofer_sdk::Run;
///
/// let run = Run::because("a commit was pushed").key("delivery-72d3162e").variable("COMMIT", "c0ffee");
/// assert_eq!(run.reason(), "a commit was pushed");
/// ```
#[derive(Clone)]
pub struct Run {
    reason: Cow<'static, str>,
    variables: Vec<(String, String)>,
    key: Option<String>,
    scheduled: Option<Scheduled>,
    /// Its key, if a run has been scheduled for its time before.
    again: Option<String>,
}

/// The time that a run was scheduled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scheduled {
    /// In Unix nanoseconds.
    pub(crate) at: i64,
    pub(crate) occurrence: Occurrence,
    /// How many seconds later it is too late to start the run; `u32::MAX` if it never is.
    pub(crate) max_lateness: u32,
}

/// Which run for a time it is, if a clock shows the time twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occurrence {
    /// There is one for each time, however often a clock shows it.
    Only,
    /// As far as is known, none has been scheduled for this time.
    First,
    /// One may have been scheduled for this time before, by a clock that was ahead.
    Again,
}

/// What an extension's run is recognized by.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    /// An author may use it in another process too.
    pub(crate) is_authors: bool,
}

impl Run {
    /// A run for a reason, a short text for people who look at the run.
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
            variables: Vec::new(),
            key: None,
            scheduled: None,
            again: None,
        }
    }

    pub(crate) fn scheduled(reason: Cow<'static, str>, scheduled: Scheduled) -> Self {
        Self { scheduled: Some(scheduled), ..Self::because(reason) }
    }

    /// When it is too late to start it, in Unix nanoseconds; `None` if it never is.
    pub(crate) fn too_late(&self) -> Option<i64> {
        let Scheduled { at, max_lateness, .. } = self.scheduled?;
        let lateness = i64::from(max_lateness).saturating_mul(1_000_000_000);
        (max_lateness < u32::MAX).then(|| at.saturating_add(lateness))
    }

    /// Adds an environment variable for the run's tasks. If a name is added twice, the last value
    /// counts.
    ///
    /// `GOFER_EXTENSION_RUN_KEY` and `GOFER_EXTENSION_SCHEDULED_AT` are set by the SDK: an
    /// extension that adds one of them gets an error when it starts the run.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets the key, which names what the run is for, such as the ID of a webhook's delivery. Of
    /// all runs that one label starts for a pipeline, only one is started for each key: a repeat,
    /// also by another process of the extension, returns the run that exists.
    ///
    /// The key is 1 to 256 bytes long, does not begin with `gofer-sdk:`, and has no control
    /// characters; it is visible to the run, as the variable `GOFER_EXTENSION_RUN_KEY`. Without
    /// one, the SDK makes a key for each call, and for each [`Tick`](crate::Tick).
    ///
    /// See [the guarantees](crate::guide::authors#every-run-once) for what this depends on.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Why the run is started.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The key that the author gave it.
    pub(crate) fn authors_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) fn scheduled_at(&self) -> Option<i64> {
        self.scheduled.map(|scheduled| scheduled.at)
    }

    /// The time that it is known by; `None` if it is known by a key of the author's.
    pub(crate) fn time(&self) -> Option<Scheduled> {
        self.scheduled.filter(|_| self.key.is_none())
    }

    /// The same run with this key, for a time that a run has been scheduled for before.
    pub(crate) fn again(mut self, key: String) -> Self {
        if let Some(scheduled) = &mut self.scheduled {
            scheduled.occurrence = Occurrence::Again;
        }
        self.again = Some(key);
        self
    }

    /// The reason and variables of a run that no extension starts.
    pub(crate) fn unkeyed(self) -> Result<(String, HashMap<String, String>)> {
        if self.key.is_some() {
            let why = "only runs that an extension starts have keys";
            return Err(Error::invalid_parameter("key", why));
        }
        Ok((self.reason.into_owned(), self.variables.into_iter().collect()))
    }

    /// What a run that an extension starts is sent with.
    pub(crate) fn keyed(self) -> Result<Keyed> {
        for (name, _) in &self.variables {
            let remedy = match &**name {
                RUN_KEY => "use `Run::key`",
                SCHEDULED_AT => "use `Tick::run`",
                _ => continue,
            };
            let why = format!("is set by the SDK; {remedy}");
            return Err(Error::invalid_parameter(name.clone(), why));
        }
        let is_again = self.scheduled.is_some_and(|it| it.occurrence == Occurrence::Again);
        let is_authors = self.key.is_some();
        let text = match (self.key, self.scheduled) {
            (Some(key), _) => checked(key)?,
            (None, Some(it)) if !is_again => TICK.to_owned() + &rfc3339(it.at),
            (None, _) => self.again.unwrap_or_else(unique),
        };
        let scheduled = self.scheduled.filter(|_| !text.starts_with(TICK));
        Ok(Keyed {
            reason: self.reason,
            scheduled: scheduled.map(|it| rfc3339(it.at)),
            key: Key { text, is_authors },
            variables: self.variables,
        })
    }
}

/// A run that an extension starts.
pub(crate) struct Keyed {
    pub(crate) reason: Cow<'static, str>,
    pub(crate) key: Key,
    /// When it was scheduled for, in RFC 3339, unless its key ends with that.
    scheduled: Option<String>,
    /// Those of the author's. Of several with one name, the last one counts, as in protobuf.
    pub(crate) variables: Vec<(String, String)>,
}

impl Keyed {
    /// All variables, by name.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.variables.iter().map(|(name, value)| (&**name, &**value));
        let scheduled = self.scheduled.as_deref().or_else(|| self.key.text.strip_prefix(TICK));
        let scheduled = scheduled.map(|at| (SCHEDULED_AT, at));
        own.chain([(RUN_KEY, &*self.key.text)]).chain(scheduled)
    }
}

fn checked(key: String) -> Result<String> {
    let why = if key.is_empty() || key.len() > MAX_KEY {
        format!("must be 1 to {MAX_KEY} bytes long")
    } else if key.starts_with(OWN) {
        format!("must not begin with `{OWN}`, with which the SDK's own keys begin")
    } else if key.contains(char::is_control) {
        "must not contain control characters".to_owned()
    } else {
        return Ok(key);
    };
    Err(Error::invalid_parameter("key", why))
}

/// A key that no other call has, in this process or another.
pub(crate) fn unique() -> String {
    static PROCESS: OnceLock<[u64; 2]> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    // Its keys are random; nobody has to guess them, so no secret is needed.
    let [high, low] = PROCESS.get_or_init(|| [0, 1].map(|n| RandomState::new().hash_one(n)));
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    format!("{OWN}call:{high:016x}{low:016x}:{call}")
}

/// In RFC 3339, in UTC, with a fraction of nine digits if it is not a whole second.
pub(crate) fn rfc3339(unix_nanos: i64) -> String {
    // The format has no times before 1970.
    humantime::format_rfc3339(system_time(unix_nanos.max(0))).to_string()
}

/// A time in Unix nanoseconds.
pub(crate) fn system_time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// In Unix nanoseconds; the nearest that there are for times beyond the years 1677 to 2262.
pub(crate) fn unix_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

/// The reason, and the names of the variables; values and keys may be secrets.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Run")
            .field("reason", &self.reason)
            .field("variables", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
