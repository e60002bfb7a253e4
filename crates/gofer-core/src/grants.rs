//! What an extension may do beyond its own pipelines.

use std::fmt;
use std::str::FromStr;

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
