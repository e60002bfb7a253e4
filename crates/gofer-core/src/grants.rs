//! What an extension may do beyond its own pipelines, who may use it, and within which limits.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gofer_proto::embedded::ExtensionOptions;
use gofer_sdk::Error;

/// Something that an administrator allows an extension beyond what every extension may do, which is
/// to use the pipelines that are subscribed to it and to read what is in their namespaces.
///
/// ```
/// use gofer_core::Grant;
///
/// let grant: Grant = "read-secrets".parse()?;
/// assert_eq!(grant, Grant::ReadSecrets);
/// assert_eq!(Grant::Everything.to_string(), "everything");
/// assert!("root".parse::<Grant>().unwrap_err().to_string().contains("`global-secrets`"));
/// # Ok::<(), gofer_sdk::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Grant {
    /// `read-secrets`: it reads the secrets of the pipelines that are subscribed to it.
    ReadSecrets,
    /// `write-secrets`: it writes and deletes these secrets.
    WriteSecrets,
    /// `global-secrets`: it reads all global secrets.
    GlobalSecrets,
    /// `namespaces`: in the namespaces of its subscriptions it may do what a client token for them
    /// may do.
    Namespaces,
    /// `everything`: it may do what a management token may do.
    Everything,
}

impl Grant {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ReadSecrets,
        Self::WriteSecrets,
        Self::GlobalSecrets,
        Self::Namespaces,
        Self::Everything,
    ];

    /// Its name, as in the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadSecrets => "read-secrets",
            Self::WriteSecrets => "write-secrets",
            Self::GlobalSecrets => "global-secrets",
            Self::Namespaces => "namespaces",
            Self::Everything => "everything",
        }
    }

    /// Whether it was granted, by itself or as a part of more.
    pub(super) fn is_in(self, granted: &BTreeSet<Self>) -> bool {
        let implied = match self {
            Self::ReadSecrets | Self::WriteSecrets => granted.contains(&Self::Namespaces),
            Self::GlobalSecrets | Self::Namespaces | Self::Everything => false,
        };
        implied || granted.contains(&self) || granted.contains(&Self::Everything)
    }

    /// What both of them grant.
    pub(super) fn common(one: &BTreeSet<Self>, other: &BTreeSet<Self>) -> BTreeSet<Self> {
        let all = one.union(other).copied();
        all.filter(|grant| grant.is_in(one) && grant.is_in(other)).collect()
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By its name.
///
/// # Errors
///
/// [`InvalidParameter`](gofer_sdk::ErrorKind::InvalidParameter) with the known names.
impl FromStr for Grant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|grant| grant.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(|grant| format!("`{grant}`")).join(", ");
            Error::invalid_parameter("grants", format!("has an unknown grant; known are {known}"))
        })
    }
}

/// How an extension is installed: what it may do, which namespaces may use it, and within which
/// limits. By default it has no grants, and the pipelines of all namespaces may subscribe to it.
///
/// ```
/// use gofer_core::{Core, Grant, InstallOptions};
/// # use gofer_sdk::ErrorKind;
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<()> {
/// let core = Core::in_memory().await?;
/// let options = InstallOptions::new().grant(Grant::ReadSecrets).namespaces(["ops", "team-.*"]);
/// let config = [("min_interval", "30s")];
/// let interval = core.install_with::<Interval>("interval", config, options).await?;
/// interval.subscribe("ops/nightly", "often", [("every", "5m")]).await?;
/// let refused = interval.subscribe("nightly", "often", [("every", "5m")]).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
///
/// interval.update_options(InstallOptions::new().namespaces([".*"])).await?;
/// interval.subscribe("nightly", "often", [("every", "5m")]).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct InstallOptions(pub(super) ExtensionOptions);

impl InstallOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows the extension something.
    pub fn grant(mut self, grant: Grant) -> Self {
        self.0.grants.push(grant.name().to_owned());
        self
    }

    /// Sets the namespaces whose pipelines may subscribe to it: regular expressions that match a
    /// whole name, as for client tokens; none for all namespaces.
    pub fn namespaces(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.namespaces = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Limits the memory of its container, in bytes, with what it keeps in /tmp; from 8 MiB to
    /// 1 TiB, by default 512 MiB. It gets no swap in addition. A container that uses more is killed
    /// and restarted.
    ///
    /// This, [`processes`](Self::processes) and [`writable_root`](Self::writable_root) are for
    /// container images, and refused for other extensions.
    ///
    /// ```
    /// use gofer_core::{Core, InstallOptions, NO_SETTINGS};
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// let core = Core::in_memory().await?;
    /// let options = InstallOptions::new().memory(256 << 20).processes(64);
    /// // It runs in this process, which the limits would not hold for.
    /// let refused = core.install_with::<Interval>("interval", NO_SETTINGS, options).await;
    /// assert!(refused.unwrap_err().to_string().contains("`memory`"));
    /// # Ok(()) }
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.0.memory = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        self
    }

    /// Limits how many processes and threads its container has; from 1 to 65,536, by default 512.
    pub fn processes(mut self, most: u32) -> Self {
        self.0.processes = Some(most.into());
        self
    }

    /// Sets whether its container may write anywhere in its file system. By default it may only
    /// write to /tmp, which is in memory and holds 64 MiB. Whatever it writes is deleted with the
    /// container.
    pub fn writable_root(mut self, writable: bool) -> Self {
        self.0.writable_root = Some(writable);
        self
    }

    /// Sets how long it may take from its launch until it has answered Init; from 100 ms to 10 min,
    /// as for the other timeouts, by default 30 s. After that, the launch has failed.
    ///
    /// ```
    /// use gofer_core::{Core, InstallOptions, NO_SETTINGS, minutes, seconds};
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/interval.rs"));
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<()> {
    /// let core = Core::in_memory().await?;
    /// let options = InstallOptions::new()
    ///     .start_timeout(minutes(5))
    ///     .call_timeout(minutes(1))
    ///     .stop_timeout(seconds(20));
    /// core.install_with::<Interval>("interval", NO_SETTINGS, options).await?;
    /// # Ok(()) }
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.0.start_timeout = Some(millis(timeout));
        self
    }

    /// Sets how long it may take to answer any other call, such as Subscribe or an external event;
    /// default 30 s. After that, the call has failed.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.0.call_timeout = Some(millis(timeout));
        self
    }

    /// Sets how long it may take from Shutdown until what it runs in has ended; default 10 s. After
    /// that, it is killed.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.0.stop_timeout = Some(millis(timeout));
        self
    }
}

fn millis(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}
